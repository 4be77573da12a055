"""Which nodes of a graph can compute in half the bits, by what its values are on data.

A value in float16 has 11 bits between 6e-5 and 65504, fewer below and none above; in bfloat16 it
has 8 bits and the range of float32. So a node keeps float32 where one of its values may leave the
range, or where rounding what it reads loses more than a budget. What a linear layer with weights W
loses is predicted channel by channel: with mean squares x_c^2 of what it reads and e_c^2 of what
rounding changes in it, and in the same way dW for the weights, the share of noise in its output y
is sum_c (e_c^2 |W_c|^2 + x_c^2 |dW_c|^2) / sum y^2.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from flatfold.errors import InputError
from flatfold.precision import Precision
from flatfold.result import Optimized, Rounded

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.passes.narrow_types import Kept
    from flatfold.proof.network.reference import Outputs

Item = TypeVar("Item")
HEADROOM = {True: 2.0, False: 16.0}  # times the largest value seen, with data given and without
MOST_ELEMENTS = 1 << 26  # of values that are kept at one time: 256 MiB
SAME = 300.0  # decibels that stand for no difference at all; with a minus, for what is no number
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def in_precision(
    result: Optimized,
    precision: Precision,
    feeds: Sequence[Mapping[str, Any]],
    *,
    given: bool,
) -> Optimized:
    """`result` with a graph of the types that `precision` asks for, and what they change.

    `feeds` are inputs to run it on, `given` by the caller or drawn. Raises InputError for a name to
    keep that nothing has.
    """
    from flatfold.passes.narrow_types import NARROW, narrow_types, raise_opset

    dtype = NARROW[precision.kind]
    graph = result.graph.clone()
    raise_opset(graph, dtype)
    seen = observe(graph, feeds, dtype)
    kept = kept_nodes(graph, precision, seen, given=given)
    layers = {
        node.name or "": found
        for node in graph.graph
        if (found := decibels_kept(node, seen, precision)) is not None
    }
    done = narrow_types(graph, dtype, kept, narrow_io=precision.narrow_io)
    decibels, agreement = measured(result.graph, graph, feeds)
    return replace(
        result,
        graph=graph,
        float_graph=result.graph,
        remarks=(*result.remarks, *done.remarks()),
        rounded=Rounded(
            *(precision.kind, done.narrow, done.total, done.casts, len(feeds), given, decibels),
            agreement=agreement if given else None,  # on random data it means nothing
            layers=layers,
        ),
    )


def measured(
    exact: ir.Model, typed: ir.Model, feeds: Sequence[Mapping[str, Any]]
) -> tuple[float | None, float | None]:
    """Decibels of signal over difference in the worst output, and the share of rows of scores whose
    largest entry is the same, None without such rows. Two None for a graph that cannot be run."""
    from flatfold.proof.network.arithmetic import TypedSession, UnsupportedTypes
    from flatfold.proof.network.session import PlainSession

    try:
        one, two = PlainSession(exact), TypedSession(typed)
    except UnsupportedTypes:
        return None, None
    return difference((one(feed), two(feed)) for feed in feeds)


def difference(runs: Iterable[tuple[Outputs, Outputs]]) -> tuple[float, float | None]:
    """Of the second outputs of all runs beside the first ones: decibels of signal over difference
    in the worst output, and the share of rows of scores with the same largest entry, if any."""
    signal: dict[int, float] = {}
    noise: dict[int, float] = {}
    same: list[bool] = []
    for exact, other in runs:
        for index, (x, y) in enumerate(zip(exact, other, strict=True)):
            if x.dtype.kind != "f":
                continue
            x, y = x.astype(np.float64), np.asarray(y).astype(np.float64)
            signal[index] = signal.get(index, 0.0) + float(np.square(x).sum())
            noise[index] = noise.get(index, 0.0) + float(np.square(y - x).sum())
            if x.ndim == 2 and x.shape[1] > 1:
                same += list(x.argmax(axis=1) == y.argmax(axis=1))
    ratios = [decibels_of(signal[n], noise[n]) for n in signal]
    return min(ratios, default=SAME), float(np.mean(same)) if same else None


def decibels_of(signal: float, noise: float) -> float:
    """10 log10 of their ratio, SAME at most; -SAME where the noise is no number."""
    if not math.isfinite(noise):
        return -SAME
    if noise == 0:
        return SAME
    return max(-SAME, min(10 * math.log10(signal / noise), SAME)) if signal else -SAME


@dataclass
class Observed:
    """A value on data: the largest number, and mean squares by channel of it and of its rounding.

    The channels are on `axis`.
    """

    axis: int
    largest: float = 0.0
    power: Any = 0.0
    noise: Any = 0.0
    count: int = 0

    def add(self, array: np.ndarray, dtype: np.dtype[Any]) -> None:
        if not array.size:
            return
        wide = array.astype(np.float64)
        largest = float(np.abs(wide).max())
        if not largest <= self.largest:  # also where it is no number
            self.largest = largest
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.nan_to_num(array.astype(dtype).astype(np.float64) - wide, posinf=0, neginf=0)
        axes = tuple(n for n in range(array.ndim) if n != self.axis % max(array.ndim, 1))
        self.power = self.power + np.square(wide).sum(axis=axes)
        self.noise = self.noise + np.square(lost).sum(axis=axes)
        self.count += array.size


def kept_nodes(
    model: ir.Model,
    precision: Precision,
    seen: Mapping[ir.Value, Observed],
    *,
    given: bool,
) -> dict[ir.Node, Kept]:
    """The nodes of `model` that have to keep float32, each with the reason.

    `seen` has what its values are on inputs `given` by the caller or drawn.
    """
    from flatfold.passes.narrow_types import Kept

    kept = dict(asked_for(model, precision.keep_float))
    for node in model.graph:
        if node in kept:
            continue
        if why := _out_of_range(node, seen, precision, HEADROOM[given]):
            kept[node] = Kept("RANGE", why)
        elif why := _too_noisy(node, seen, precision):
            kept[node] = Kept("ROUNDING", why)
    return kept


def asked_for(model: ir.Model, patterns: Sequence[str]) -> Iterator[tuple[ir.Node, Kept]]:
    """The nodes that the patterns name. Raises InputError for a pattern that names none."""
    from flatfold.passes.narrow_types import Kept
    from flatfold.passes.remark import origins

    unused = set(patterns)
    for node in model.graph:
        names = {node.name or "", node.op_type, *(v.name or "" for v in node.outputs)}
        names |= set(origins([node]))
        for pattern in patterns:
            if any(fnmatch.fnmatchcase(name, pattern) for name in names):
                unused.discard(pattern)
                yield node, Kept("ASKED", f"keep_float={pattern!r}")
                break
    if unused:
        raise InputError(
            f"no node, value or operator is called {sorted(unused)[0]!r}",
            hint="name a node, a value or an operator, such as Softmax, or a pattern of them",
        )


def observe(
    model: ir.Model, feeds: Iterable[Mapping[str, Any]], dtype: ir.DataType
) -> dict[ir.Value, Observed]:
    """What the float32 values of the main graph are on these inputs."""
    import onnx_ir as ir

    values = [
        value
        for value in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))
        if value.dtype == ir.DataType.FLOAT and value.name
    ]
    seen = {value: Observed(_channel_axis(value)) for value in values}
    feeds = list(feeds)
    given = [value for value in values if value.is_graph_input()]
    for feed in feeds:
        for value in given:
            if (name := value.name or "") in feed:
                seen[value].add(np.asarray(feed[name]), dtype.numpy())
    for chunk in chunks([v for v in values if not v.is_graph_input()], elements_of):
        run = run_to(model, chunk)
        for feed in feeds:
            for value, array in zip(chunk, run(feed), strict=True):
                seen[value].add(array, dtype.numpy())
    return seen


def _channel_axis(value: ir.Value) -> int:
    """The axis that a linear layer reads channels from: the last one of a product of matrices."""
    readers = [node.op_type for node, index in value.uses() if index == 0]
    producer = value.producer()
    readers += [producer.op_type] if producer is not None else []
    return -1 if any(op in ("Gemm", "MatMul") for op in readers) else 1


def chunks(items: Iterable[Item], elements: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in groups that have few enough elements to be kept at one time."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        count = elements(item)
        if chunk and size + count > MOST_ELEMENTS:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += count
    if chunk:
        yield chunk


def elements_of(value: ir.Value) -> int:
    """How many numbers a value has; an open size counts as 64."""
    dims = value.shape.dims if value.shape is not None else ()
    return math.prod(dim if isinstance(dim, int) else 64 for dim in dims)


def run_to(model: ir.Model, values: Sequence[ir.Value]) -> Any:
    """A function that computes these values of the graph."""
    from flatfold.proof.network.session import PlainSession

    copy = model.clone()
    named = {v.name: v for node in copy.graph for v in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(named[value.name] for value in values)
    return PlainSession(copy)


def _out_of_range(
    node: ir.Node, seen: Mapping[ir.Value, Observed], precision: Precision, headroom: float
) -> str:
    """Why a value of the node may be too large for the type; "" if none is."""
    from flatfold.passes.lowering.rounding import LARGEST
    from flatfold.passes.narrow_types import NARROW
    from flatfold.proof.network.output_range import range_of

    dtype = NARROW[precision.kind]
    limit = LARGEST[dtype]
    for value in (*node.inputs, *node.outputs):
        if value is None or value not in seen:
            continue
        ends = range_of(value, {})
        if ends is not None and max(map(abs, ends)) <= limit:
            continue
        largest = seen[value].largest
        if not largest * headroom <= limit:  # also where it is no number
            return (
                f"{value.name} reaches {largest:.3g} on data, and {headroom:g} times that is above "
                f"{limit:.3g}, the largest {dtype.name}"
            )
    return ""


def _too_noisy(node: ir.Node, seen: Mapping[ir.Value, Observed], precision: Precision) -> str:
    """Why rounding what the node reads loses too much; "" if it does not."""
    kept = decibels_kept(node, seen, precision)
    if kept is None or kept >= precision.least:
        return ""
    return (
        f"rounding what {node.op_type} reads leaves {kept:.0f} dB of {node.outputs[0].name}, less "
        f"than the {precision.least:g} dB asked for"
    )


def decibels_kept(
    node: ir.Node, seen: Mapping[ir.Value, Observed], precision: Precision
) -> float | None:
    """10 log10 of signal over noise in the first output, if only this node's inputs are rounded.

    None where that is not known: for operators that are neither linear nor sums.
    """
    from flatfold.passes.narrow_types import NARROW

    output, dtype = node.outputs[0], NARROW[precision.kind].numpy()
    if output not in seen or not seen[output].count:
        return None
    signal = float(np.sum(seen[output].power)) / seen[output].count
    if node.op_type in LINEAR:
        noise = _noise_of_layer(node, seen, dtype)
    elif node.op_type in ("Add", "Sub", "Sum"):
        noise = sum(_noise_of(value, seen) for value in node.inputs)
    else:
        return None
    if noise is None or not noise:
        return None
    return 10 * math.log10(signal / noise) if signal > 0 else None


def _noise_of(value: ir.Value | None, seen: Mapping[ir.Value, Observed]) -> float:
    if value is None or value not in seen or not seen[value].count:
        return 0.0
    return float(np.sum(seen[value].noise)) / seen[value].count


def _noise_of_layer(
    node: ir.Node, seen: Mapping[ir.Value, Observed], dtype: np.dtype[Any]
) -> float | None:
    """The mean square of what rounding changes in each output of a layer with constant weights."""
    data, weight = node.inputs[:2]
    if data is None or data not in seen or weight is None or weight.const_value is None:
        return None
    array = weight.const_value.numpy().astype(np.float64)
    rows = _input_channels(node, array)
    observed = seen[data]
    power, noise = (np.atleast_1d(n) for n in (observed.power, observed.noise))
    if rows is None or len(power) != len(rows):
        return None
    per_channel = observed.count / len(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.nan_to_num(rows.astype(dtype).astype(np.float64) - rows, posinf=0, neginf=0)
    squares = np.square(rows).sum(axis=1), np.square(lost).sum(axis=1)
    transposed = node.op_type == "ConvTranspose"  # whose weights for one output are a part of all
    total = (noise * squares[0] + power * squares[1]).sum() / per_channel
    spread = math.prod(node.attributes.get_ints("strides", (1,))) if transposed else 1
    return float(total / (_output_channels(node, array) * spread))


def _input_channels(node: ir.Node, weight: np.ndarray) -> np.ndarray | None:
    """The weights by input channel, one a row."""
    if node.op_type == "MatMul":
        return weight if weight.ndim == 2 else None
    if node.op_type == "Gemm":
        transposed = node.attributes.get_int("transB", 0)
        return weight.T if transposed else weight
    if node.op_type == "ConvTranspose":
        return weight.reshape(len(weight), -1)
    groups = node.attributes.get_int("group", 1)
    split = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    rows = split.transpose(0, 2, 1, 3).reshape(groups * weight.shape[1], -1)
    return np.asarray(rows)


def _output_channels(node: ir.Node, weight: np.ndarray) -> int:
    if node.op_type == "Conv":
        return len(weight)
    if node.op_type == "Gemm":
        return len(weight) if node.attributes.get_int("transB", 0) else weight.shape[1]
    groups = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
    return int(weight.shape[1]) * groups
