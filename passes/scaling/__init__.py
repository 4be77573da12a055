"""Powers of two by which the channels of values are scaled, so that the outputs stay as they are.

channels.py   which channels of a graph have to share a scale, and which keep theirs
balance.py    the scales at which what writes a channel and what reads it are alike
constants.py  weights, biases and norms of a node whose channels are scaled
"""
