"""The candidates that a report compares.

candidates.py   each candidate of a model: its graph, its row, and the job of its worker
tools.py        other tools that rewrite ONNX graphs, each run in a child process
ablation.py     the graphs between the training graph and flatfold's, one rewrite at a time
"""
