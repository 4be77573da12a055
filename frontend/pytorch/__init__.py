"""PyTorch modules.

export.py    export_module: nn.Module to ONNX IR, unoptimized
inputs.py    example inputs to export with
module.py    running a module: float64 reference, other processes, profiler
wrapper.py   the module inside a wrapper; what is no module although it runs like one
weights.py   load_weights: state dicts and checkpoint files into a module
"""
