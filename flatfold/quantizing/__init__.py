"""A float graph in 8 bits, by what its values are on data. Everything here runs graphs.

layers.py      the layers that can compute on codes: weights as matrices, and what they multiply
ranges.py      what values reach, and where clipping them loses least
rounding.py    codes of weights: to nearest, or by what the layer reads
biases.py      biases that undo what quantization adds on average
comparison.py  a quantized graph beside the float one: as a whole and layer by layer
steps.py       the steps in order, each kept where it gains
mixed.py       which layers stay in float so that no more is lost than allowed
recipe.py      the whole way: which graph, the steps, and what stays in float
judgement.py   what a quantized graph loses on data that was held out
engine_check.py  an engine beside the quantized graph that it was built from
"""
