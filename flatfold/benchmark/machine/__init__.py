"""The machine that the times are measured on.

machine.py    its facts, its state before and after, and what would make a comparison unfair
roofline.py   its limits on a target, and the least time that a graph needs there
"""
