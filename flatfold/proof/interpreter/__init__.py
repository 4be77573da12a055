"""Evaluates ONNX nodes in float64, with a bound for their rounding errors.

It shares no code with `flatfold.passes`: an error in a rewrite cannot repeat here.

interpreter.py   evaluate: nodes in order, from feeds to values
pair.py          a value with its magnitude companion
operators.py     one row for each operator: its rule, and the traits that checks rely on
movement.py      rules of operators that only move numbers
convolution.py   convolutions and pools by their definition
sampling.py      operators that read between pixels
"""
