"""ONNX files and protos, which may come from anyone.

load.py            read_model, from_proto: parse and check
external_data.py   weights in other files, read only from where they may be
validate.py        checks that onnx.checker does not make
tensors.py         sizes, arrays and copies of tensors
onnxsim.py         simplify: onnxsim, if it is installed
"""
