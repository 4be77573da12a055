"""From an affine form to ONNX nodes.

<<<<<<< HEAD
plan.py         how a form is written as nodes: decided once, then priced and emitted
emit.py         the nodes of a plan
replacement.py  Replacement: nodes that are not yet part of a graph, and unused names for them
rounding.py     weights from float64 to the type of the graph, rounded once
=======
plan.py         how a form is written, and what that costs: decided once
emit.py         the nodes of a plan
rounding.py     weights from float64 to the type of the graph, rounded once
replacement.py  new nodes that are not yet in a graph, and names for them
>>>>>>> f01fdee (passes: public names and module lists; convolution() makes a stencil; an ablation starts with what others build on)
"""
