"""A model as text, one line a node: y3 = Conv(y1, [4,2,3,3], pads=[1,1,1,1], group=2)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

FEW = 6  # constants of so many numbers are written out
PLAIN = {"dilations": {1}, "group": {1}, "pads": {0}, "strides": {1}}  # need not be said


def printed(model: onnx.ModelProto) -> str:
    graph = model.graph
    constants = {t.name: _constant(numpy_helper.to_array(t)) for t in graph.initializer}
    inputs = [f"{v.name}: {_shape(v)}" for v in graph.input]
    lines = [_line(node, constants) for node in graph.node]
    return "\n".join([*inputs, *lines, "return " + ", ".join(v.name for v in graph.output)])


def _line(node: onnx.NodeProto, constants: dict[str, str]) -> str:
    inputs = [constants.get(name, name) for name in node.input]
    given = [(a.name, helper.get_attribute_value(a)) for a in node.attribute]
    attributes = [f"{name}={_plain(value)}" for name, value in given if not _is_plain(name, value)]
    return f"{', '.join(node.output)} = {node.op_type}({', '.join(inputs + attributes)})"


def _is_plain(name: str, value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return name in PLAIN and set(numbers) == PLAIN[name]


def _plain(value: object) -> str:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text.replace(", ", ",")


def _constant(array: np.ndarray) -> str:
    """Its shape, and its numbers where they are few."""
    if array.dtype.kind == "i":
        return _plain(array.tolist())
    shape = _plain(list(array.shape))
    if array.size > FEW:
        return shape
    numbers = ",".join(f"{n:.4g}" for n in array.reshape(-1))
    return numbers if array.ndim == 0 else f"{shape}={{{numbers}}}"


def _shape(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return f"{kind}[{','.join(d.dim_param or str(d.dim_value) for d in dims)}]"
