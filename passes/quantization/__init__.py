"""Graphs in 8 bits: what each value and weight is rounded to, and how an engine wants that written.

record.py   ranges of values, codes of weights and corrected biases, for any target
dialect.py  what each engine wants to see, so that it computes on codes
writer.py   a float graph with the codes of a record, in a dialect
"""
