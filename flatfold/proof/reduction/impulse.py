"""Find the weight in which two affine functions differ: their answers to zero and to impulses.

f(0) is the bias, and f(e) - f(0) for an impulse e holds every weight that looks at its pixel. Any
two callables can be compared, whatever computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.cut_points.check import ROUNDINGS, Verdict, run
from flatfold.proof.cut_points.cones import Cone, named
from flatfold.proof.cut_points.data import Reach, Shape, farther, is_free, reach_of, small_shapes
from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.pair import Pair, Unsupported, attribute
from flatfold.proof.network.judge import MARGIN, ROUNDOFF

IMAGES = 32  # run at a time
RUNS = 4096  # at most, of one function
LOUD = 2.0**20  # an impulse beside which constants are small, as M counts them too

Side = Callable[[Array], Pair]


@dataclass(frozen=True)
class Finding:
    """The weight that is most wrong: y[output] takes `found` of x[input], not `expected`.

    `tap` counts from the first of the kernel, or, where `is_offset`, from the output's own pixel.
    Without an input channel it is the bias. `others`: how many more weights are wrong.
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
            of = f" of {self.source}" if self.source else ""
            where = f"output channel {self.output}, input channel {self.input}{of}"
            where += f", {place} {self.tap}" if self.tap else ""
        more = f" (and {self.others} more)" if self.others else ""
        return f"{where}: expected {self.expected:.6g}, found {self.found:.6g}{more}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Window:
    """How positions of the output and the input go together: input = stride * output + offset.

    Where the second function is one kernel, `pads` and `dilations` say which of its taps that is.
    """

    stride: Shape
    span: Shape
    pads: Shape | None = None
    dilations: Shape | None = None

    def tap(self, at: Sequence[int], out: Sequence[int]) -> Shape:
        offset = tuple(int(p - s * o) for p, o, s in zip(at, out, self.stride, strict=True))
        if self.pads is None or self.dilations is None:
            return offset
        steps = zip(offset, self.pads, self.dilations, strict=True)
        return tuple((o + pad) // d for o, pad, d in steps)

    def inside(self, sizes: Shape) -> list[Shape]:
        """Pixels whose weights see no border, one for each phase: together every tap once."""
        axes = zip(sizes, self.span, self.stride, strict=True)
        pixels = [dict.fromkeys(min(a + i, n - 1) for i in range(s)) for n, a, s in axes]
        return list(product(*pixels))

    def rim(self, sizes: Shape) -> list[Shape]:
        """Pixels at and beside the border."""
        return list(product(*(sorted({0, min(1, n - 1), n // 2, n - 1}) for n in sizes)))


def probe(
    before: Side, after: Side, shape: Shape, window: Window, bound: float, stacked: bool = True
) -> Finding | None:
    """The weight that is farthest beyond `bound` * M, M that of its own product; None if all hold.

    before, after: [n, *shape] -> a value and its M; n > 1 only where `stacked`. What shows inside
    is looked for first, then the bias, then what shows at the border only.
    """
    zero = np.zeros((1, *shape))
    ends = before(zero), after(zero)
    for places in (window.inside(shape[1:]), window.rim(shape[1:])):
        best: tuple[float, Finding | None] = (1.0, None)
        wrong = 0
        runs = islice(product(places, range(shape[0])), RUNS)
        for part in _parts(runs, IMAGES if stacked else 1):
            x = np.zeros((len(part), *shape))
            for image, (place, channel) in enumerate(part):
                at: Any = (image, channel, *place)
                x[at] = LOUD
            answers = _answers((before(x), after(x)), ends, bound)
            wrong += int(np.sum(answers[0] > 1))
            best = _better(best, answers, part, window)
        found = best[1] if best[1] is not None else _of_bias(*ends, bound)
        if found is not None:
            return replace(found, others=wrong - 1) if best[1] is not None else found
    return None


def _better(
    best: tuple[float, Finding | None],
    answers: tuple[Array, Array, Array],
    part: Any,
    window: Window,
) -> tuple[float, Finding | None]:
    """The worst so far; `part` says the place and the channel of each image's impulse."""
    ratio, one, two = answers
    if ratio.size == 0:
        return best
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    if not ratio[at] > best[0]:
        return best
    place, channel = part[at[0]]
    tap = window.tap(place, at[2:])
    weights = float(one[at]), float(two[at])
    return float(ratio[at]), Finding(at[1], *weights, channel, tap, window.pads is None)


def _answers(
    sides: tuple[Pair, Pair], ends: tuple[Pair, Pair], bound: float
) -> tuple[Array, Array, Array]:
    """How far beyond its bound every output is, and what both sides make of an impulse of 1."""
    one, two = (side.y - end.y for side, end in zip(sides, ends, strict=True))
    return _ratio(np.abs(two - one), bound * sides[0].m), one / LOUD, two / LOUD


def _of_bias(one: Pair, two: Pair, bound: float) -> Finding | None:
    ratio = _ratio(np.abs(two.y - one.y), bound * one.m)
    over = tuple(range(2, ratio.ndim))
    channels = ratio.max(axis=(0, *over))
    if not np.max(channels, initial=0.0) > 1:
        return None
    channel = int(np.argmax(channels))
    place = np.unravel_index(int(np.argmax(ratio[0, channel])), ratio.shape[2:])
    at: Any = (0, channel, *place)
    return Finding(
        channel, float(one.y[at]), float(two.y[at]), others=int(np.sum(channels > 1)) - 1
    )


def _ratio(error: Array, bound: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, error / bound, 0.0)


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


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
