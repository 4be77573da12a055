"""One canonical form for the graphs of every exporter.

canonicalize.py      canonicalize: the form, and the rounds that lead to it
inlining.py          functions of the model in place of their calls, within a budget
graph_shapes.py      sizes and types of all values, from the inputs on
operator_shapes/     what each operator makes of the sizes of its inputs
tensor_types.py      what each operator makes of the types of its inputs
fold_constants.py    what depends on constants alone, computed within a budget
chains.py            two operators of one kind, one behind the other
duplicates.py        what is computed twice, and small constants that are there twice
control_flow.py      the bodies of If, Loop and Scan; If with a constant condition
gather.py            GatherND, SplitToSequence, stacked tensors
scatter.py           ScatterND and ScatterElements
identities.py        operators that change nothing
views.py             views of views, and reductions of single elements
shape_constants.py   shape arithmetic replaced by its results
shape_rules.py       partial evaluation of the operators of shape arithmetic
symbolic_dims.py     what is known of sizes, shapes and indices before a run
interface.py         inputs and outputs, which keep their names, types and shapes
edit.py              small edits of a graph
"""
