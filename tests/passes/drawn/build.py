"""Records to ONNX: every step that fits becomes nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from tests.nets import Net
from tests.passes.drawn import channels, layers
from tests.passes.drawn import records as r
from tests.passes.drawn.growth import Growth, Value


@dataclass(frozen=True)
class Built:
    """The model, the shape of an input for it, and the steps that fitted."""

    model: onnx.ModelProto
    shape: tuple[int, ...]
    steps: tuple[r.Step, ...]


def build(graph: r.Graph, dtype: type = np.float64) -> Built:
    shape = (2, graph.channels, *graph.sizes)
    batch = 2 if graph.open == "nothing" else "n"
    sizes = "dhw"[: len(graph.sizes)] if graph.open == "sizes" else graph.sizes
    net = Net((batch, graph.channels, *sizes), dtype=dtype)
    growth = Growth(net, graph.open, [Value("x", graph.channels, graph.sizes)])
    used = []
    for step in graph.steps:
        before = len(growth.pool)
        net.rng = np.random.default_rng(step.seed)
        made = STEPS[type(step)](growth, step, growth.at(step.at))
        growth.pool += [] if made is None else [made]
        used += [step] if len(growth.pool) > before else []
    return Built(net.model(*_outputs(growth, graph)), shape, tuple(used))


def _outputs(growth: Growth, graph: r.Graph) -> list[str]:
    """Names of the outputs, the input of the graph not among them."""
    names = [growth.pool[-1].name]
    if graph.head is not None:
        growth.net.rng = np.random.default_rng(graph.head.seed)
        names = [head(growth, graph.head, growth.pool[-1]) or names[0]]
    names += [growth.at(index).name for index in graph.outputs]
    if graph.leaves:
        read = {name for node in growth.net.nodes for name in node.input}
        names += [v.name for v in growth.pool if v.name not in read]
    outputs = [name for name in dict.fromkeys(names) if name != "x"]
    return outputs or [growth.net.op("Neg", "x")]


def norm(growth: Growth, step: r.Norm, v: Value) -> Value:
    return growth.norm(v)


def channels_last(growth: Growth, step: r.ChannelsLast, v: Value) -> Value:
    net, c = growth.net, v.channels
    there = [0, *range(2, v.axes + 2), 1]
    back = [0, v.axes + 1, *range(1, v.axes + 1)]
    y = first = net.op("Transpose", v.name, perm=there)
    for kind in step.inside:
        y = along_last(growth, kind, y, c)
    y = net.op("Add", y, first) if step.skip else y
    return replace(v, name=net.op("Transpose", y, perm=back))


def last_axis(growth: Growth, step: r.LastAxis, v: Value) -> Value:
    return replace(v, name=along_last(growth, step.kind, v.name, v.sizes[-1]))


def along_last(growth: Growth, kind: str, name: str, count: int) -> str:
    """One operator along the last axis, of `count` numbers."""
    net = growth.net
    if kind == "MatMul":
        return net.op(kind, name, growth.numbers(count, count, fan=count))
    if kind in ("Mul", "Add"):
        return net.op(kind, name, growth.simple(count))
    if kind == "BatchNormalization":
        return growth.norm(Value(name, count, ())).name
    if kind == "LayerNormalization":  # the large epsilon keeps rounding as small as it is
        scale, offset = growth.numbers(count), growth.numbers(count)
        return net.op(kind, name, scale, offset, epsilon=0.1)
    return net.op(kind, name)


def head(growth: Growth, step: r.Head, v: Value) -> str | None:
    name, count = _flat(growth, step, v)
    if not name:
        return None
    for kind in step.maps:
        name = along_last(growth, kind, name, count)
    for layer in step.layers:
        name, count = _dense(growth, layer, name, count), layer.out
    for kind in step.after:
        name = along_last(growth, kind, name, count)
    return name


def _flat(growth: Growth, step: r.Head, v: Value) -> tuple[str, int]:
    """[N, C] or, without a pool, [N, C * sizes], where that can be written down."""
    net, axes = growth.net, list(range(2, v.axes + 2))
    if step.pool == "none":
        count = int(np.prod(v.shape))
        return (
            ("", 0)
            if growth.open == "sizes" or count > 100
            else (
                net.op("Flatten", v.name),
                count,
            )
        )
    if step.pool == "GlobalAveragePool":
        name = net.op(step.pool, v.name)
    else:
        kept = int(step.pool[-1])
        name = net.op("ReduceMean", v.name, growth.indices(*axes), keepdims=kept)
        if not kept:
            return name, v.channels
    extra: Sequence[str] = ()
    if step.flat != "Flatten":
        extra = [growth.indices(*(axes if step.flat == "Squeeze" else (-1, v.channels)))]
    return net.op(step.flat, name, *extra), v.channels


def _dense(growth: Growth, layer: r.Dense, name: str, count: int) -> str:
    net = growth.net
    bias = [growth.numbers(layer.out)] if layer.bias else []
    if layer.kind == "MatMul":
        y = net.op("MatMul", name, growth.numbers(count, layer.out, fan=count))
        return net.op("Add", y, bias[0]) if bias else y
    shape = (layer.out, count) if layer.trans else (count, layer.out)
    how = {"alpha": 0.5, "beta": -2.0} if layer.scaled else {}
    return net.op(
        "Gemm", name, growth.numbers(*shape, fan=count), *bias, transB=int(layer.trans), **how
    )


STEPS: dict[type[r.Step], Callable[..., Value | None]] = {
    r.Act: channels.act,
    r.Affine: channels.affine,
    r.Branches: layers.branches,
    r.ChannelsLast: channels_last,
    r.Conv: layers.conv,
    r.Edge: layers.edge,
    r.Join: channels.join,
    r.LastAxis: last_axis,
    r.Norm: norm,
    r.Partial: channels.partial,
    r.Parts: channels.parts,
    r.Pick: channels.pick,
    r.Pool: layers.pool,
    r.Shift: layers.shift,
    r.Shuffle: channels.shuffle,
    r.Total: layers.total,
    r.Transposed: layers.transposed,
}
