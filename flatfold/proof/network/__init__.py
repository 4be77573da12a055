"""Whole graphs and engines, run on the same inputs and compared with a float64 reference.

inputs.py      the inputs, and the numbers that values inside a graph may have
sizes.py       sizes for the open axes of the inputs
fixed_sizes.py  the sizes that layers ask for
reference.py   the original graph in float64, by ONNX's reference evaluator
judge.py       outputs on one input: how large an error may be
arithmetic.py  a typed graph in its own arithmetic: every value rounded to its type
allowance.py   how far the outputs of a typed graph may be off
session.py     one graph in ONNX Runtime, optimisation off
jump.py        both graphs cut in front of operators that turn a rounding into any difference
branches.py     branches that differ and that no input ran
rounding.py    the original with other roundings
output_range.py  the numbers between which an output lies
run.py         two graphs compared in ONNX Runtime, optimisation off
engine.py      an engine compared with the original graph
"""
