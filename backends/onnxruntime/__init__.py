"""Targets ort-cpu and ort-cuda: ONNX Runtime on the processor and on an NVIDIA GPU.

cpu.py           target ort-cpu
cuda.py          target ort-cuda
session.py       options of a session, opening it and running it
profile.py       the time of each layer
determinism.py   an optimised graph saved as the same bytes each time
"""
