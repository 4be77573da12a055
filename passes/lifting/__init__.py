"""From a linear region of the graph to one affine form."""
