"""Whether a change is right by its algebra: computed in a prime field, where nothing rounds.

field.py           arithmetic modulo 2^31 - 1 on arrays, and the element for each number
shadow.py          arrays of floats that carry field elements along
identity_test.py   both sides of a change compared at random points of the field
"""
