"""From a linear region of the graph to one affine form.

lifter.py     Lifter: grows a region from its last node back to the values it reads
forms.py      FormBuilder: the form of an operator's output from the forms of its inputs
sums.py       the arithmetic of forms: composition, sums, concatenation
recompute.py  sums that look through shared values, where computing those again costs less
readers.py    the layers that could take a map, all of them together
splits.py     a Split of channels as Slices while the passes run, and back
unread.py     zero weights that meet what was not read before
"""
