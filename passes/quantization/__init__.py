"""Graphs in 8 bits: what each value and weight is rounded to, and how an engine wants that written.

record.py   ranges of values, codes of weights and corrected biases, for any target
"""
