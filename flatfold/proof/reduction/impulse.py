"""Find the weight in which two affine functions differ, by their impulse responses.

f(0) is the bias, and f(e) - f(0) for an impulse e holds every weight that reads the pixel of the
impulse. Two callables can be compared (`compare_responses`), or both sides of a cone
(`find_wrong_weight`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.cut_points.check import ROUNDINGS, Verdict, evaluate_output
from flatfold.proof.cut_points.cones import Cone, node_names
from flatfold.proof.cut_points.data import (
    Reach,
    Shape,
    is_any_size,
    larger_reach,
    reach_of,
    small_shapes,
)
from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.pair import Pair, Unsupported, attribute
from flatfold.proof.network.judge import MARGIN, ROUNDOFF

IMAGES = 32  # impulses that run at a time
RUNS = 4096  # most impulses that one function runs on
LOUD = 2.0**20  # the size of an impulse, next to which constants are small: M includes them too

Side = Callable[[Array], Pair]


@dataclass(frozen=True)
class WrongWeight:
    """The weight that is most wrong: from x[input] to y[output] it is `found`, not `expected`.

    `tap` is an index into the kernel or, where `is_offset`, the distance from the output's own
    pixel. Without an input channel it is the bias. `others`: the number of further weights that are
    wrong. `source`: the name of x where there are several inputs.
    """

    output: int
    expected: float
    found: float
    input: int | None = None
    tap: Shape = ()
    is_offset: bool = False
    others: int = 0
    source: str = ""

    def __str__(self) -> str:
        if self.input is None:
            where = f"bias of output channel {self.output}"
        else:
            place = "offset" if self.is_offset else "tap"
            source = f" of {self.source}" if self.source else ""
            where = f"output channel {self.output}, input channel {self.input}{source}"
            where += f", {place} {self.tap}" if self.tap else ""
        more = f" (and {self.others} more)" if self.others else ""
        return f"{where}: expected {self.expected:.6g}, found {self.found:.6g}{more}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Window:
    """From positions of the output to those of the input: input = stride * output + offset.

    Where the second function is one kernel, its `pads` and `dilations` turn an offset into a tap.
    """

    stride: Shape
    span: Shape
    pads: Shape | None = None
    dilations: Shape | None = None

    def tap(self, at: Sequence[int], out: Sequence[int]) -> Shape:
        """The tap, or the offset, that takes the input's pixel `at` to the output's pixel `out`."""
        offset = tuple(int(p - s * o) for p, o, s in zip(at, out, self.stride, strict=True))
        if self.pads is None or self.dilations is None:
            return offset
        steps = zip(offset, self.pads, self.dilations, strict=True)
        return tuple((o + pad) // d for o, pad, d in steps)

    def inner_pixels(self, sizes: Shape) -> list[Shape]:
        """Pixels far from the border, one for each phase of the stride: every tap reads one."""
        axes = zip(sizes, self.span, self.stride, strict=True)
        pixels = [dict.fromkeys(min(a + i, n - 1) for i in range(s)) for n, a, s in axes]
        return list(product(*pixels))

    def border_pixels(self, sizes: Shape) -> list[Shape]:
        """Pixels on the border and next to it, and the middle."""
        return list(product(*(sorted({0, min(1, n - 1), n // 2, n - 1}) for n in sizes)))


def compare_responses(
    before: Side,
    after: Side,
    shape: Shape,
    window: Window,
    bound: float,
    stacked: bool = True,
    bias_only: bool = False,
) -> WrongWeight | None:
    """The weight whose error exceeds `bound` * M most, M of its own product; None if all are right.

    before, after: [n, *shape] -> a value and its M; n > 1 only where `stacked`. Looks for weights
    that are wrong away from the border first, then for the bias, then at the border; with
    `bias_only` for the bias first.
    """
    zero = np.zeros((1, *shape))
    ends = before(zero), after(zero)
    bias = _wrong_bias(*ends, bound)
    if bias_only and bias is not None:
        return bias
    for places in (window.inner_pixels(shape[1:]), window.border_pixels(shape[1:])):
        worst: tuple[float, WrongWeight | None] = (1.0, None)
        wrong = 0
        runs = islice(product(places, range(shape[0])), RUNS)
        for part in _batches(runs, IMAGES if stacked else 1):
            x = np.zeros((len(part), *shape))
            for image, (place, channel) in enumerate(part):
                at: Any = (image, channel, *place)
                x[at] = LOUD
            responses = _responses((before(x), after(x)), ends, bound)
            wrong += int(np.sum(responses[0] > 1))
            worst = _worse(worst, responses, part, window)
        if worst[1] is not None:
            return replace(worst[1], others=wrong - 1)
        if bias is not None:
            return bias
    return None


def _worse(
    worst: tuple[float, WrongWeight | None],
    responses: tuple[Array, Array, Array],
    part: Any,
    window: Window,
) -> tuple[float, WrongWeight | None]:
    """The worst so far; `part` lists the pixel and the channel of each image's impulse."""
    ratio, one, two = responses
    if ratio.size == 0:
        return worst
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    if not ratio[at] > worst[0]:
        return worst
    place, channel = part[at[0]]
    tap = window.tap(place, at[2:])
    weights = float(one[at]), float(two[at])
    return float(ratio[at]), WrongWeight(at[1], *weights, channel, tap, window.pads is None)


def _responses(
    sides: tuple[Pair, Pair], ends: tuple[Pair, Pair], bound: float
) -> tuple[Array, Array, Array]:
    """The error of every output over its bound, and the responses of both sides to an impulse."""
    one, two = (side.y - end.y for side, end in zip(sides, ends, strict=True))
    return _ratio(np.abs(two - one), bound * sides[0].m), one / LOUD, two / LOUD


def _wrong_bias(one: Pair, two: Pair, bound: float) -> WrongWeight | None:
    ratio = _ratio(np.abs(two.y - one.y), bound * one.m)
    over = tuple(range(2, ratio.ndim))
    channels = ratio.max(axis=(0, *over))
    if not np.max(channels, initial=0.0) > 1:
        return None
    channel = int(np.argmax(channels))
    place = np.unravel_index(int(np.argmax(ratio[0, channel])), ratio.shape[2:])
    at: Any = (0, channel, *place)
    return WrongWeight(
        channel, float(one.y[at]), float(two.y[at]), others=int(np.sum(channels > 1)) - 1
    )


def _ratio(error: Array, bound: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, error / bound, 0.0)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def description(cone: Cone, verdict: Verdict, weight: WrongWeight | None) -> str:
    """Such as "conv3, bn4 and conv3.conv differ by 292 u*M (allowed 5.05), most in ..."."""
    image_channel = verdict.gap.place[:2]
    position = verdict.gap.place[2:]
    text = f"{node_names(cone.before)} and {node_names(cone.after)} differ by"
    text += f" {verdict.gap.ratio:.3g} u*M (allowed {MARGIN * ROUNDINGS:.3g})"

    if len(image_channel) == 2:
        text += f", most in output channel {image_channel[1]}"
        text += f" at {position}" if position else ""
    return f"{text}; {weight}" if weight is not None else text


def find_wrong_weight(
    cone: Cone,
    shapes: Mapping[ir.Value, Shape],
    as_it_is: bool = False,
    bias_only: bool = False,
) -> WrongWeight | None:
    """The wrong weight of a linear cone; None where none is wrong, or the cone cannot be run.

    At the smallest size that has every kind of border or, `as_it_is`, at the sizes in `shapes`.
    `bias_only`: the bias is known to be wrong most.
    """
    own = {v: shapes[v] for v, _ in cone.sources}
    if not cone.is_linear or any(len(shape) < 2 for shape in own.values()):
        return None
    axes = max((len(shape) - 2 for shape in own.values()), default=0)
    reach = larger_reach(reach_of(cone.before, cone.a, axes), reach_of(cone.after, cone.b, axes))
    free = axes > 0 and is_any_size((*cone.before, *cone.after), axes)
    small = own if free and as_it_is else small_shapes(own, reach) if free else None
    bias: WrongWeight | None = None
    for source in own:
        try:
            sizes = small or own
            weight = _compare_from(cone, source, sizes, reach, small is not None, bias_only)
        except (Unsupported, ValueError, LookupError, TypeError):
            return bias
        if weight is not None and weight.input is not None:
            name = (source.name or "") if len(own) > 1 else ""
            return replace(weight, source=name)
        bias = bias or weight
    return bias


def _compare_from(
    cone: Cone,
    source: ir.Value,
    shapes: Mapping[ir.Value, Shape],
    reach: Reach,
    stacked: bool,
    bias_only: bool,
) -> WrongWeight | None:
    """The wrong weight with impulses in one source, the others zero."""

    def side(nodes: tuple[ir.Node, ...], output: ir.Value, second: bool) -> Side:
        def response(x: Array) -> Pair:
            feeds = {}
            for value, shape in shapes.items():
                count = len(x) if stacked else shape[0]
                array = np.zeros((count, *shape[1:]))
                if value is source:
                    array[:] = x
                feeds[cone.partner(value) if second else value] = Pair(array, np.abs(array))
            return evaluate_output(nodes, output, feeds)

        return response

    dtype = cone.a.dtype.name if cone.a.dtype is not None else "FLOAT"
    bound = MARGIN * ROUNDINGS * ROUNDOFF[dtype]
    before, after = side(cone.before, cone.a, False), side(cone.after, cone.b, True)
    shape, window = shapes[source][1:], _window(cone, reach)
    return compare_responses(before, after, shape, window, bound, stacked, bias_only)


def _window(cone: Cone, reach: Reach) -> Window:
    """Taps are those of the second side's kernel, where it is one convolution."""
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
