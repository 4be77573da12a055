"""From an affine form to ONNX nodes.

plan.py         how a form is written as nodes: decided once, then priced and emitted
emit.py         the nodes of a plan
replacement.py  Replacement: nodes that are not yet part of a graph, and unused names for them
rounding.py     weights from float64 to the type of the graph, rounded once
"""
