"""Targets trt and trt-rtx: TensorRT and TensorRT for RTX on an NVIDIA GPU.

engine.py    the backend and its engine
options.py   the two editions of TensorRT and their options
build.py     building an engine in a child process
run.py       running an engine on a GPU
cuda.py      memory, streams and graphs of a GPU
"""
