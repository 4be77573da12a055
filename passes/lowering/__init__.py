"""From an affine form to ONNX nodes.

plan.py         how a form is written, and what that costs: decided once
emit.py         the nodes of a plan
draft.py        nodes in place of others, while they are written
spellings.py    the nodes by which engines find an operator
rounding.py     weights from float64 to the type of the graph, rounded once
replacement.py  new nodes that are not yet in a graph, and names for them
"""
