"""The structure of a change: everything that decides which steps its algebra takes.

Two changes of one structure have the same nodes, attributes, shapes and wiring on both sides, and
their weights are zeros and ones in the same places. The code of the passes asks nothing else about
a weight, so it took the same steps for both, and the identity test of one is that of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes import Change
from flatfold.passes.reading.padded import surroundings
from flatfold.proof.interpreter.operators import traits_of

# Their constants say which pixels are read: what is asked about these is more than where zeros are.
SAMPLERS = ("DeformConv", "GridSample")


def structure_of(change: Change) -> bytes | None:
    """A hash of the structure; None where steps may depend on more of the weights than that.

    So they do in front of activations, whose range is asked for, and at a border that is constant
    up to rounding only.
    """
    region = change.region
    loose = region.border_rounded or region.form.border_bias is not None
    if loose or any(_asks_for_numbers(node) for node in region.nodes):
        return None
    digest = hashlib.sha256(repr(change.rewrite).encode())
    numbers: dict[ir.Value | None, int] = {None: -1}
    for side in (tuple(reversed(region.nodes)), tuple(change.replacement.nodes)):
        digest.update(b"side")
        for node in side:
            _add_node(digest, node, numbers)
    for term in region.form.terms:
        for one in surroundings(term.source):  # by which it depends on what else is read
            facts = numbers.get(term.source), numbers.get(one.inner), one.begin, one.end, one.mode
            digest.update(repr(facts).encode())
    digest.update(
        repr([numbers.get(v) for v in (region.output, change.replacement.output)]).encode()
    )
    return digest.digest()


def _asks_for_numbers(node: ir.Node) -> bool:
    return traits_of(node).piecewise or node.op_type in SAMPLERS


def _add_node(digest: hashlib._Hash, node: ir.Node, numbers: dict[ir.Value | None, int]) -> None:
    attributes = [(name, _attribute(node.attributes[name])) for name in sorted(node.attributes)]
    digest.update(repr((node.op_identifier(), attributes)).encode())
    for value in (*node.inputs, *node.outputs):
        known = value in numbers
        number = numbers.setdefault(value, len(numbers))
        digest.update(repr(number).encode())
        if value is not None and not known:
            digest.update(repr((value.dtype, _dims(value))).encode())
            digest.update(_pattern(value))


def _attribute(attribute: ir.Attr) -> object:
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().tobytes()
    return attribute.value


def _dims(value: ir.Value) -> Iterable[object]:
    return [str(dim) for dim in value.shape] if value.shape is not None else ["?"]


def _pattern(value: ir.Value) -> bytes:
    """Of integers, all; of other constants, where they are 0 and 1, and whether they are alike."""
    tensor = ir.convenience.get_const_tensor(value)
    node = value.producer()
    if tensor is None and node is not None and node.op_type == "Expand" and node.inputs[0]:
        return b"expanded" + _pattern(node.inputs[0])  # a constant, repeated for every image
    if tensor is None:
        return b"computed"
    array: npt.NDArray[np.generic] = tensor.numpy()
    if array.dtype.kind in "iub":
        return array.tobytes()
    flat = array.reshape(-1)
    masks = [np.packbits(flat == number).tobytes() for number in (0, 1)]
    alike = bool(np.all(flat == flat[:1]))
    return b"".join((*masks, repr((array.shape, array.dtype.name, alike)).encode()))
