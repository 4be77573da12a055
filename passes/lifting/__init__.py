"""From a linear region of the graph to one affine form.

lifter.py     Lifter: grows a region from its last node back to the values it reads
<<<<<<< HEAD
forms.py      the form of one operator's output, from the forms of its inputs
sums.py       composition, sums and concatenation of affine forms
recompute.py  sums over the inputs of their operands, where that costs less
splits.py     a Split of channels as Slices, and back to one Split where nothing used them
=======
forms.py      FormBuilder: the form of an operator's output from the forms of its inputs
sums.py       the arithmetic of forms: composition, sums, concatenation
recompute.py  sums that look through shared values, where computing those again costs less
splits.py     a Split of channels as Slices while the passes run, and back
>>>>>>> f01fdee (passes: public names and module lists; convolution() makes a stencil; an ablation starts with what others build on)
"""
