"""Numbers that a value can have, given the activations that make it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.proof.convolution import Array

MAKING: dict[str, Callable[[Array], Array]] = {
    "Abs": np.abs,
    "Clip": np.asarray,
    "Exp": np.exp,
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softmax": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Sqrt": np.abs,
    "Tanh": np.tanh,
}
CARRYING = (
    "AveragePool",
    "Flatten",
    "Gather",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "ReduceMean",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


def within_range(source: ir.Value, x: Array) -> Array:
    """Values that `source` may have: what the activations that make it make of `x`."""
    chain: list[ir.Node] = []
    node = source.producer()
    while node is not None and (node.op_type in CARRYING or node.op_type in MAKING):
        chain.append(node)
        first = node.inputs[0]
        node = first.producer() if first is not None else None
    for node in reversed(chain):
        if node.op_type == "Clip":
            x = np.minimum(np.maximum(x, limits_of(node)[0]), limits_of(node)[1])
        elif node.op_type in MAKING:
            x = MAKING[node.op_type](x)
    return x


def limits_of(node: ir.Node) -> tuple[float, float]:
    """Both limits of a Clip, inputs or attributes; infinite where there is none."""
    limits = [-np.inf, np.inf]
    for index, name in enumerate(("min", "max")):
        if name in node.attributes:
            limits[index] = float(node.attributes[name].value)
        value = node.inputs[index + 1] if len(node.inputs) > index + 1 else None
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if tensor is not None:
            limits[index] = float(tensor.numpy().reshape(-1)[0])
    return limits[0], limits[1]
