"""Steps that select, reorder and map channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.passes.drawn import records as r
from tests.passes.drawn.growth import MOST_CHANNELS, Growth, Value
from tests.passes.drawn.layers import conv


def affine(growth: Growth, step: r.Affine, v: Value) -> Value:
    net, kind = growth.net, step.kind
    if kind in ("Neg", "Identity", "Dropout"):
        return replace(v, name=net.op(kind, v.name))
    ones = [1] * v.axes
    shape = {"channel": (v.channels, *ones), "number": (), "row": v.sizes[-1:]}
    extent = shape.get(step.extent, (1, *v.shape))
    if step.extent == "zero map":
        kind, constant = "Sub" if kind == "Sub" else "Add", net.const(np.zeros(extent))
    else:
        constant = growth.simple(*extent, low=0.5 if kind == "Div" else -1.0)
    pair = [v.name, constant]
    pair = pair[::-1] if step.swapped and kind != "Div" else pair
    return replace(v, name=net.op(kind, *pair))


def act(growth: Growth, step: r.Act, v: Value) -> Value:
    """Activations, and what else is not one operator with a constant."""
    net, kind, how = growth.net, step.kind, {}
    inputs = [v.name]
    if kind == "Mix":
        share = [net.const(np.array(n)) for n in (1 - step.amount, step.amount)]
        bent = net.op("Mul", share[0], net.op("Relu", v.name))
        return replace(v, name=net.op("Add", bent, net.op("Mul", v.name, share[1])))
    if kind in ("Gate", "AddMean"):
        mean = net.op("GlobalAveragePool", v.name)
        inputs += [net.op("Sigmoid", mean) if kind == "Gate" else mean]
        kind = "Mul" if kind == "Gate" else "Add"
    if kind == "Square":
        kind, inputs = "Mul", [v.name, v.name]
    if kind == "Clip":
        inputs += [net.const(np.array(n)) for n in (0.0, 1.0 + 5 * step.amount)]
    if kind == "LeakyRelu":
        how = {"alpha": step.amount}
    if kind == "PRelu":
        slopes = np.full((v.channels, *[1] * v.axes), 1.0)
        slopes[0] = step.amount
        inputs += [net.const(slopes)]
    return replace(v, name=net.op(kind, *inputs, **how))


def pick(growth: Growth, step: r.Pick, v: Value) -> Value:
    if step.kind == "Gather":
        picked = [i % v.channels for i in step.indices]
        name = growth.net.op("Gather", v.name, growth.indices(*picked), axis=1)
        return Value(name, len(picked), v.sizes)
    first = step.first % v.channels
    count = len(range(first, v.channels, step.step))
    return Value(growth.cut(v.name, 1, first, v.channels, step.step), count, v.sizes)


def parts(growth: Growth, step: r.Parts, v: Value) -> Value | None:
    """The pieces that are read stay in the pool, so that other steps may read them."""
    if v.channels % step.count:
        return None
    many = v.channels // step.count
    first = growth.net.op("Split", v.name, outputs=step.count, axis=1, num_outputs=step.count)
    names = [first, *(f"{first}_{i}" for i in range(1, step.count))]
    order = [i % step.count for i in step.order]
    pieces = {i: _piece(growth, step, i, Value(names[i], many, v.sizes)) for i in order}
    growth.pool += pieces.values()
    if len(order) == 1 or many * len(order) > MOST_CHANNELS:
        return None
    name = growth.net.op("Concat", *(pieces[i].name for i in order), axis=1)
    return Value(name, many * len(order), v.sizes)


def _piece(growth: Growth, step: r.Parts, index: int, piece: Value) -> Value:
    if index in step.mapped:
        layer = r.Conv(out=piece.channels, kernel=(3, 3, 3), pads="same")
        piece = conv(growth, layer, piece) or piece
    if index in step.bent:
        piece = replace(piece, name=growth.net.op("Relu", piece.name))
    return piece


def join(growth: Growth, step: r.Join, v: Value) -> Value | None:
    fitting = [o for o in growth.pool if o.sizes == v.sizes]
    taken = [v, *(fitting[-1 - i % len(fitting)] for i in step.others)]
    channels = sum(o.channels for o in taken)
    if channels > MOST_CHANNELS:
        return None
    name = growth.net.op("Concat", *(o.name for o in taken), axis=1)
    return Value(name, channels, v.sizes)


def shuffle(growth: Growth, step: r.Shuffle, v: Value) -> Value | None:
    """An open batch is -1 or 0; one open size can be -1, several cannot be written down."""
    if v.channels % step.groups or (growth.open == "sizes" and v.axes > 1):
        return None
    net, batch, sizes = growth.net, {"-1": -1, "0": 0, "number": 2}[step.batch], v.sizes
    if batch == 2 and growth.open != "nothing":
        batch = -1
    if growth.open == "sizes":
        batch, sizes = 0, (-1,)
    apart = growth.indices(batch, step.groups, v.channels // step.groups, *sizes)
    y = net.op("Reshape", v.name, apart)
    y = net.op("Transpose", y, perm=[0, 2, 1, *range(3, v.axes + 3)])
    return replace(v, name=net.op("Reshape", y, growth.indices(batch, v.channels, *sizes)))


def partial(growth: Growth, step: r.Partial, v: Value) -> Value | None:
    x, keep = growth.alike(v, step.other), step.keep
    if keep >= v.channels:
        return None
    if step.masked:
        mask = (np.arange(v.channels) < keep).astype(float).reshape(-1, *[1] * v.axes)
        masked = growth.net.op("Mul", growth.net.const(mask), x.name)
        return replace(v, name=growth.net.op("Add", v.name, masked))
    ours, theirs = (growth.cut(value.name, 1, 0, keep) for value in (v, x))
    both = growth.net.op("Add", ours, theirs)
    rest = growth.cut(v.name, 1, keep, v.channels)
    return replace(v, name=growth.net.op("Concat", both, rest, axis=1))
