"""What a node computes, as a stencil.

node.py         constants, attributes, shapes and readers of a node
meaning.py      Linear = Applied | Summed | Joined | Transparent: what an operator can mean
least_sizes.py  the least that an open axis can be long
layers.py       Conv, ConvTranspose, Gemm, MatMul
pooling.py      AveragePool as a convolution; windows of MaxPool
channels.py     Gather, Slice and shuffles of channels
transparent.py  operators that a per-channel map commutes with: means, views, Transpose
copying.py      Resize, and operators that copy pixels, which such a map commutes with as well
rearranging.py  where the channels are behind operators that only move numbers
padded.py       maps with copies of their own pixels around them, and layers over them
products.py     a value as a number times powers of other values
composites.py   operators that are spelled out in several nodes, and that engines find by these
activations.py  which of them are activations
norms.py        which of them are norms
affine.py       an affine form: a bias plus terms, each a stencil of a value
layout.py       channels first or last: forms brought to one layout
deferred.py     values that no node computes yet

`meaning(node, readers)` reads a node with the first reader that understands it. `READERS` are those
that are always in use; each pass brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.channels import read_channel_slice, read_gather, read_shuffle
from flatfold.passes.reading.composites import COMPOSITE_KEY
from flatfold.passes.reading.copying import read_copying_pad, read_resize
from flatfold.passes.reading.layers import LAYERS, read_einsum
from flatfold.passes.reading.meaning import Applied, Linear, scale
from flatfold.passes.reading.node import FLOATS, constant, producer_of, source
from flatfold.passes.reading.pooling import read_average
from flatfold.passes.reading.rearranging import MOVERS
from flatfold.passes.reading.transparent import TRANSPARENT, read_rearrangement, read_view
from flatfold.passes.stencil.stencil import Stencil

Reader = Callable[[ir.Node], Linear]
ReaderTable = Mapping[str, Sequence[Reader]]


def meaning(node: ir.Node, readers: ReaderTable) -> Linear:
    """What the node means by the first reader that understands it.

    Raises Decline with the most telling reason if none does.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in readers:
        raise Decline("NONLINEAR", f"{node.op_type} is not linear")
    if COMPOSITE_KEY in node.meta:
        what = f"it is part of a {node.meta[COMPOSITE_KEY]}"
        raise Decline("COMPOSITE", f"{what}, which engines compute in one step")
    dtype = node.outputs[0].dtype
    if dtype is not None and dtype not in FLOATS:
        if node.op_type not in LAYERS:  # indices and sizes are not worth a remark
            raise Decline("NONLINEAR", f"{dtype.name} is not a floating-point type")
        raise Decline("DTYPE", f"{dtype.name} is not a floating-point type")
    reasons: list[Decline] = []
    for reader in readers[node.op_type]:
        try:
            return reader(node)
        except Decline as reason:
            reasons.append(reason)
    telling = (reason for reason in reasons if reason.code != "NONLINEAR")
    raise next(telling, reasons[0])


def read_layer(node: ir.Node) -> Stencil:
    """The stencil of a Conv, ConvTranspose, Gemm or MatMul. Raises Decline for any other node."""
    linear = meaning(node, {op_type: (reader,) for op_type, reader in LAYERS.items()})
    assert isinstance(linear, Applied)
    return linear.stencil


def read_same(node: ir.Node) -> Applied:
    """y = x: Identity, and Dropout in inference."""
    for mask in node.outputs[1:]:
        if mask.uses() or mask.is_graph_output():
            raise Decline("OUTPUT", f"the mask {mask.name}, the second output, is used")
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mode = constant(training)
    if training is not None and (mode is None or mode):
        state = "not a constant" if mode is None else "1"
        raise Decline("TRAINING-MODE", f"the training mode {training.name} of Dropout is {state}")
    return scale(source(node))


def read_reshape(node: ir.Node) -> Linear:
    """The end of a shuffle of channels; or axes dropped, added or split anew."""
    try:
        return read_shuffle(node)
    except Decline:
        view = read_view(node)
    if view.spatial is None:
        with suppress(Decline):
            moved = read_rearrangement(node)
            if producer_of(moved.source).op_type in ("BatchNormalization", "Conv"):
                return moved  # axis 1 is the channels for sure
    return view


READERS: dict[str, Reader] = {
    "AveragePool": read_average,
    "Dropout": read_same,
    "Einsum": read_einsum,
    "Gather": read_gather,
    "Identity": read_same,
    "Pad": read_copying_pad,
    "Reshape": read_reshape,
    "Resize": read_resize,
    "Slice": read_channel_slice,
    **LAYERS,
    **TRANSPARENT,
}

# In use behind all others: what these operators do besides, such as a crop, is read first.
LAST_READERS: dict[str, Reader] = dict.fromkeys(MOVERS, read_rearrangement)
