"""One random model from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from flatfold.errors import InputError
from flatfold.system.trial import Trial
from tests.fuzz.bodies import BODIES, Part
from tests.fuzz.elementwise import ELEMENTWISE, arithmetic, clip, prelu, relu
from tests.fuzz.layers import LAYERS, batch_norm, conv, linear, pointwise
from tests.fuzz.maps import MAPS, pad, pool
from tests.fuzz.movement import MOVEMENT, shuffle, transpose
from tests.fuzz.sketch import Array, Rejected, Sketch, names_read, run, typed

OPSETS = range(7, 27)
LINEAR: list[Part] = [
    *(conv, conv, conv, batch_norm, batch_norm, pointwise, arithmetic, pad, pool, shuffle, linear),
    transpose,
]
FAMILIES: list[tuple[float, list[Part]]] = [
    (0.30, LINEAR),
    (0.10, LAYERS),
    (0.18, ELEMENTWISE),
    (0.12, MAPS),
    (0.18, MOVEMENT),
    (0.03, BODIES),
]  # the rest are branches, drawn below
SHAPES = (
    *((1, 4, 8, 8), (2, 3, 7, 6), (1, 4, 1, 1), (1, 1, 5, 5), (3, 2, 4, 9), (2, 6, 5, 5)),
    *(
        (1, 8, 6, 6),
        (2, 4, 9),
        (1, 3, 1),
        (2, 5),
        (1, 6),
        (4, 3, 5),
        (1, 2, 4, 4, 4),
        (2, 2, 3, 1, 2),
    ),
    *((8, 8, 8, 8), (1, 4, 1, 6), (5,)),
)


MOST_WEIGHTS = 1 << 22  # elements: a Gemm behind a Flatten may have any number
RECURRENT = ("GRU", "LSTM", "RNN")  # ONNX Runtime ends the process where one has no steps


@dataclass
class Drawn:
    """A model, and inputs for one or two sizes that ONNX Runtime runs it on."""

    model: onnx.ModelProto
    feeds: list[dict[str, Array]]


def draw(seed: int) -> Drawn | None:
    """The model of `seed`; None where nothing useful came of it."""
    rng = np.random.default_rng([seed, 20])
    s = Sketch(rng, int(rng.choice(OPSETS)))
    x = s.input(s.normal(*s.one(SHAPES)))
    if s.chance(0.15):
        shape = s.shape(x)
        s.input(s.normal(*(shape if s.chance(0.6) else (shape[0], 1, *shape[2:]))))
    try:
        for _ in range(s.between(2, 12)):
            _add_something(s)
        return _finished(s)
    except Rejected:
        return None


def _add_something(s: Sketch) -> None:
    floats = [name for name, array in s.values.items() if array.dtype == np.float32]
    x = floats[-1] if s.chance(0.65) else s.one(floats)
    for _ in range(8):
        if s.attempt(_one_part(s), x) is not None:
            return


def _one_part(s: Sketch) -> Part:
    at = s.rng.random()
    for share, parts in FAMILIES:
        if at < share:
            part: Part = s.one(parts)
            return part
        at -= share
    return _branches


def _branches(s: Sketch, x: str) -> str:
    """Two or three short chains that read one value, and join."""
    ends = []
    for _ in range(s.between(2, 3)):
        y = x
        for _ in range(s.between(0, 3)):
            y = s.one(LINEAR if s.chance(0.85) else [relu, clip, prelu])(s, y)
        ends.append(y)
    if s.chance(0.25):
        rank = len(s.shape(x))
        return s.add("Concat", *ends, axis=s.one((1, 1, s.between(0, max(0, rank - 1)))))
    if s.chance(0.2) and s.opset >= 8:
        return s.add("Sum", *ends)
    y = ends[0]
    for end in ends[1:]:
        y = s.add(
            s.one(("Add", "Add", "Add", "Sub", "Mul")), *([y, end] if s.chance(0.5) else [end, y])
        )
    return y


def _finished(s: Sketch) -> Drawn:
    """The model with its outputs and open axes."""
    read = set().union(*map(names_read, s.nodes)) if s.nodes else set()
    computed = [name for name in s.values if name not in s.inputs]
    leaves = [name for name in computed if name not in read]
    if not leaves:
        raise Rejected("no nodes")
    outputs = leaves if s.chance(0.6) else leaves[-1:]
    if s.chance(0.15):
        outputs = [*outputs, s.one(computed)]
    outputs = list(dict.fromkeys(outputs))
    if s.chance(0.03):
        outputs.append(next(iter(s.inputs)))
    nodes = s.nodes if s.chance(0.2) else _needed(s.nodes, outputs)
    used = set().union(*map(names_read, nodes)) if nodes else set()
    inputs = {name: array for name, array in s.inputs.items() if name in used or name in outputs}
    if not inputs:
        raise Rejected("constant")
    constants = {name: array for name, array in s.constants.items() if name in used | set(outputs)}
    if sum(array.size for array in constants.values()) > MOST_WEIGHTS:
        raise Rejected("large")
    model = s.model(nodes, inputs, constants, outputs)
    _declare_outputs(s, model, outputs)
    run(model, inputs)
    return _opened(s, model, inputs)


def _needed(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= names_read(node)
            kept.append(node)
    return kept[::-1]


def _declare_outputs(s: Sketch, model: onnx.ModelProto, outputs: list[str]) -> None:
    for value, name in zip(model.graph.output, outputs, strict=True):
        array = s.array(name)
        value.CopyFrom(typed(name, array, array.shape if s.chance(0.5) else _open(s, array)))


def _open(s: Sketch, array: Array) -> list[None] | None:
    """A shape of which only the rank is known, or not even that."""
    return None if s.chance(0.01) else [None] * array.ndim


def _opened(s: Sketch, model: onnx.ModelProto, feeds: dict[str, Array]) -> Drawn:
    """Axes left open, where the graph runs with other sizes too."""
    if s.chance(0.4):
        return Drawn(model, [feeds])
    array = next(iter(feeds.values()))
    everything = array.ndim > 2 and s.chance(0.5)
    axes = [0, *range(2, array.ndim)] if everything else [0]
    grown = {
        key: s.normal(*(n + 2 if i in axes and i < a.ndim else n for i, n in enumerate(a.shape)))
        for key, a in feeds.items()
    }
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    for value in opened.graph.output:
        value.CopyFrom(typed(value.name, s.array(value.name), _open(s, s.array(value.name))))
    for value in opened.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis in axes:
            if axis < len(dims):
                dims[axis].dim_param = f"d{axis}" if s.chance(0.8) else ""
    try:
        if any(node.op_type in RECURRENT for node in opened.graph.node):
            shapes = {name: array.shape for name, array in grown.items()}
            Trial(opened.SerializeToString()).run(shapes)
        run(opened, grown)
    except (Rejected, InputError):
        return Drawn(model, [feeds])
    return Drawn(opened, [feeds, grown])
