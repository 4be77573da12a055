"""Two graphs compared part by part, whichever tool rewrote the second.

alignment.py   pairs of values that may be equal, by their numbers on one input
cones.py       the nodes between pairs, in both graphs
data.py        sizes and inputs on which a cone is run
check.py       both sides of one cone in float64, compared within rounding
prove.py       all cones that the outputs are computed from
verify.py      the verdict, with what is wrong in each cone that was refuted
"""
