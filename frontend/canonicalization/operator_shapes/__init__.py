"""The sizes of the outputs of ONNX's operators, by the rules of ONNX Runtime.

rule.py           what the rules read of a node
convolution.py    convolutions, pools and what undoes them
movement.py       operators that move, repeat, join and resize
gather.py         operators that select by index, and those that order
layer.py          matrix products, recurrent layers, norms, reductions
table.py          the rule of each operator
"""
