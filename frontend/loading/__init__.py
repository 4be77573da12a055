"""ONNX files and protos, which may come from anyone.

load.py            read_model, from_proto: parse and check
external_data.py   weights in other files, read only from where they may be
repair.py          what runtimes accept and ONNX does not: order, sizes of -1, false shapes
sparse.py          sparse weights made dense
validate.py        checks that onnx.checker does not make
tensors.py         sizes, arrays and copies of tensors
onnxsim.py         simplify: onnxsim, if it is installed
"""
