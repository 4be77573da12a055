"""From two models that differ to the smallest pair that differs, and to the wrong weight.

impulse.py   the wrong weight of a cone, by its impulse responses
extract.py   a cone as a pair of small models
shrink.py    a pair made smaller while the same weight stays wrong
reduce.py    all of it for two models, written to a folder
"""
