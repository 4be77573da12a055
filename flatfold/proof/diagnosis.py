"""What is wrong with a cone that was refuted, in words: where it is, and which weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from flatfold.proof.cones import Cone, named
from flatfold.proof.convolution import Array
from flatfold.proof.crosscheck import ROUNDINGS, Verdict, run
from flatfold.proof.cut_data import Reach, Shape, farther, is_free, reach_of, small_shapes
from flatfold.proof.pair import Pair, Unsupported, attribute
from flatfold.proof.probe import Finding, Window, probe
from flatfold.proof.roundoff import MARGIN, ROUNDOFF


def described(cone: Cone, verdict: Verdict, finding: Finding | None) -> str:
    """ "conv3, bn4 against conv3.conv differ by 292 u*M ..."."""
    image_channel = verdict.gap.place[:2]
    position = verdict.gap.place[2:]
    text = f"{named(cone.before)} and {named(cone.after)} differ by {verdict.gap.ratio:.3g} u*M"
    text += f" (allowed {MARGIN * ROUNDINGS:.3g})"
    if len(image_channel) == 2:
        text += f", most in output channel {image_channel[1]}"
        text += f" at {position}" if position else ""
    return f"{text}; {finding}" if finding is not None else text


def diagnose(
    cone: Cone, shapes: Mapping[ir.Value, Shape], as_it_is: bool = False
) -> Finding | None:
    """The wrong weight of a linear cone; None where there is none to name.

    Looked for in the smallest maps that show it, or in those of `shapes` `as_it_is`.
    """
    own = {v: shapes[v] for v, _ in cone.sources}
    if not cone.is_linear or any(len(shape) < 2 for shape in own.values()):
        return None
    axes = max((len(shape) - 2 for shape in own.values()), default=0)
    reach = farther(reach_of(cone.before, cone.a, axes), reach_of(cone.after, cone.b, axes))
    free = axes > 0 and is_free((*cone.before, *cone.after), axes)
    small = own if free and as_it_is else small_shapes(own, reach) if free else None
    bias: Finding | None = None
    for source in own:
        try:
            found = _probed(cone, source, small or own, reach, small is not None)
        except (Unsupported, ValueError, LookupError, TypeError):
            return bias
        if found is not None and found.input is not None:
            name = (source.name or "") if len(own) > 1 else ""
            return replace(found, source=name)
        bias = bias or found
    return bias


def _probed(
    cone: Cone, source: ir.Value, shapes: Mapping[ir.Value, Shape], reach: Reach, stacked: bool
) -> Finding | None:
    """One source answers, the others are zero."""

    def side(nodes: tuple[ir.Node, ...], output: ir.Value, second: bool) -> Callable[[Array], Pair]:
        def answer(x: Array) -> Pair:
            feeds = {}
            for value, shape in shapes.items():
                count = len(x) if stacked else shape[0]
                array = np.zeros((count, *shape[1:]))
                if value is source:
                    array[:] = x
                feeds[cone.partner(value) if second else value] = Pair(array, np.abs(array))
            return run(nodes, output, feeds)

        return answer

    dtype = cone.a.dtype.name if cone.a.dtype is not None else "FLOAT"
    bound = MARGIN * ROUNDINGS * ROUNDOFF[dtype]
    before, after = side(cone.before, cone.a, False), side(cone.after, cone.b, True)
    return probe(before, after, shapes[source][1:], _window(cone, reach), bound, stacked)


def _window(cone: Cone, reach: Reach) -> Window:
    """Taps are those of the second graph's kernel, where it has one."""
    kernels = [node for node in cone.after if node.op_type == "Conv"]
    others = [
        n for n in cone.after if n.op_type in ("AveragePool", "ConvTranspose", "Pad", "Slice")
    ]
    axes = len(reach.span)
    if len(kernels) != 1 or others or attribute(kernels[0], "auto_pad", "NOTSET") != "NOTSET":
        return Window(reach.stride, reach.span)
    pads = tuple(attribute(kernels[0], "pads", [0] * 2 * axes)[:axes])
    return Window(
        reach.stride, reach.span, pads, tuple(attribute(kernels[0], "dilations", [1] * axes))
    )
