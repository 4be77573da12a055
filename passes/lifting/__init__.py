"""From a linear region of the graph to one affine form.

lifter.py     Lifter: grows a region from its last node back to the values it reads
forms.py      the form of one operator's output, from the forms of its inputs
sums.py       composition, sums and concatenation of affine forms
recompute.py  sums over the inputs of their operands, where that costs less
splits.py     a Split of channels as Slices, and back to one Split where nothing used them
"""
