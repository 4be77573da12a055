"""A report as one HTML page; the templates, the style and the script are in this folder.

page.py            the page, and what it may load
charts.py          SVG elements, axes, and the look of each row
intervals.py       latencies with their intervals, and bars in tables
distributions.py   the spread of runs, and drift
waterfall.py       the effect of each rewrite
roofline.py        the limits of the machine, and where each row is
layers.py          the time by kind of layer
blocks.py          changed blocks as pictures
graph_layout.py    a graph as an SVG
"""
