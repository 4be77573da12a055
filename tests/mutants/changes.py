"""Mutants of small models, each drawn from a seed: changed bytes, or a changed structure."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.fuzz.draw import draw
from tests.mutants.declarations import DECLARATIONS
from tests.mutants.draws import Rng
from tests.mutants.nodes import NODES

TEXT = """<ir_version: 10, opset_import: ["" : 17]>
net (float[N, 4, 8, 8] x) => (float[N, 6] y, float[N, 4, 8, 8] seen)
<float[N, 4, 8, 8] sum, float[N, 4, 8, 8] normed> {
  wide = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w3)
  normed = BatchNormalization <epsilon = 0.001> (wide, scale, shift, mean, var)
  narrow = Conv (x, w1, b1)
  other = BatchNormalization (narrow, scale, shift, mean, var)
  two = Add (normed, other)
  sum = Add (two, x)
  seen = Relu (sum)
  grouped = Conv <group = 4, pads = [1, 1, 1, 1], strides = [2, 2]> (seen, wd)
  padded = Pad (grouped, pads)
  mean2 = AveragePool <kernel_shape = [2, 2], strides = [1, 1]> (padded)
  half, rest = Split <axis = 1> (mean2, sizes)
  first = Conv (half, wa)
  second = Conv (rest, wb)
  both = Concat <axis = 1> (first, second)
  gated = Mul (both, gain)
  pooled = GlobalAveragePool (gated)
  flat = Flatten (pooled)
  y = Gemm <transB = 1> (flat, matrix, bias)
}"""

CHANGES = [*NODES, *DECLARATIONS]


@functools.cache
def original() -> bytes:
    """The file of the model that is changed."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    shapes = {
        "w3": (4, 4, 3, 3),
        "w1": (4, 4, 1, 1),
        "b1": (4,),
        "scale": (4,),
        "shift": (4,),
        "mean": (4,),
        "var": (4,),
        "wd": (4, 1, 3, 3),
        "wa": (3, 2, 1, 1),
        "wb": (3, 2, 3, 3),
        "gain": (6, 1, 1),
        "matrix": (6, 6),
        "bias": (6,),
    }
    arrays: dict[str, Any] = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    arrays["var"] = np.abs(arrays["var"]) + np.float32(0.5)
    arrays["wb"] = arrays["wb"][:, :, 1:2, 1:2]
    arrays["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    arrays["sizes"] = np.array([2, 2], np.int64)
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def mutant(seed: int) -> bytes:
    """The mutant of `seed`: bytes are changed if it is even, nodes or declarations if it is odd.

    Every other two are mutants of a random graph of their own, the others of one small network.
    """
    rng = np.random.default_rng(seed)
    drawn = draw(seed) if seed % 4 > 1 else None
    base = original() if drawn is None else drawn.model.SerializeToString(deterministic=True)
    if seed % 2 == 0:
        return _changed_bytes(bytearray(base), rng)
    proto = onnx.load_model_from_string(base)
    for _ in range(int(rng.integers(1, 4))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        change(proto, rng)
    content: bytes = proto.SerializeToString()
    return content


def _changed_bytes(data: bytearray, rng: Rng) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(data) or 1)), int(rng.integers(1, 9))
        match int(rng.integers(6)):
            case 0 | 1:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 2:
                data[at : at + 1] = bytes([data[at] ^ 1 << int(rng.integers(8))]) if data else b""
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = rng.bytes(length)
            case _:
                other = int(rng.integers(len(data) or 1))
                data[at : at + length] = data[other : other + length]
    return bytes(data)
