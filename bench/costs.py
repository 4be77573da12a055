"""How often the cost model takes the slower of two exact forms of one function.

    make costs                     every target that can be timed here
    make costs TARGET=openvino     one target
    make costs MATCH=roll          the kinds with "roll" in their name, each pair by itself
    make costs SECONDS=300         a limit for each target

The kinds of functions are those of bench/operator_forms.py. The forms of a graph are the ways in
which it is written and what flatfold's rewrites make of each, by the prices of the target, by the
number of nodes alone and by the number of multiply-accumulates alone. All compute the same.
Of each two forms the model takes the one that it prices lower (within its margin, that with fewer
nodes). Both are timed in turn between two layers, on one thread, by the processor time that they
take beyond these layers. The model is wrong where its choice surely takes more than 3 % longer:
where the 95 % interval of the median ratio lies above 1.03. Where it includes 1.03 the pair is
undecided.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import onnx
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from bench.operator_forms import KINDS, Kind
from bench.operator_graphs import Chain, Timer
from flatfold.backends import TARGETS, load_backend
from flatfold.passes import PIPELINE, Pipeline, Profile, Rewrite
from flatfold.passes.collapse_activations import ACTIVATIONS
from flatfold.passes.cost.model import MARGIN, Cost, CostModel
from flatfold.passes.cost.profiles import PROFILES
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.lifter import Lifter
from flatfold.passes.lowering.plan import node_cost
from flatfold.passes.reading.activations import activation_at
from flatfold.passes.reading.composites import mark_composites
from flatfold.passes.reading.meaning import Applied, Transparent
from flatfold.passes.reading.norms import norm_at
from flatfold.timing import median_interval

TIMED = ("ort-cpu", "openvino")  # by processor time, which no GPU counts in
SLOWER = 1.03  # a ratio of times that counts as slower
GRAPHS, MOST_PAIRS = 8, 16  # of a kind, at most
LEAST_S, MOST_S = 3e-6, 6e-3  # of a graph, as estimated: below, a timer sees noise
MOST_WEIGHTS = 1_500_000
ROUNDS, MOST_ROUNDS = 9, 33
ROUND_S = 1e-3  # each form runs for about as long before the next one does
NOTHING = 1e-7  # seconds, for what takes no time that can be measured
MOST_TIMES = 8  # as expensive as the cheapest form: beyond, no model is in doubt
INPUTS = 8  # channels that the layer in front reads, and the one behind writes
MOST_DRAWN = 60  # graphs of a kind, of which those are timed that have a fitting size

FREE = float("inf")
FREED = {f.name: FREE for f in fields(Profile) if f.type == "float"}
UNIT = {"dilated": 1.0, "dilated_depthwise": 1.0, "offset": 1.0, "hard_sigmoid": 1.0}
NODES_ALONE = Profile(
    **{**FREED, **UNIT, "name": "nodes alone", "depthwise": ((1, FREE),), "node": 1.0}
)
WORK_ALONE = replace(
    NODES_ALONE,
    **{"name": "work alone", "dense": 1e9, "pointwise": 1e9, "product": 1e9, "thin": 1e9},
    **{"depthwise": ((1, 1e9),), "transposed": 1e9, "transposed_grouped": 1e9, "node": 1e-9},
)


@dataclass(frozen=True)
class Form:
    """A graph that reads "x", with what the model says that it costs."""

    name: str
    model: onnx.ModelProto
    cost: Cost

    def __str__(self) -> str:
        """The operators of the nodes, and where they are from."""
        counts = Counter(node.op_type for node in self.model.graph.node)
        nodes = ", ".join(op if n == 1 else f"{op} x{n}" for op, n in counts.items())
        return f"{nodes or 'nothing'} ({self.name})"

    @property
    def signature(self) -> tuple[object, ...]:
        """The operators with the shapes of their constants: forms that differ in it are two."""
        shapes = {tensor.name: tuple(tensor.dims) for tensor in self.model.graph.initializer}
        return tuple(
            (node.op_type, *(shapes.get(value) for value in node.input))
            for node in self.model.graph.node
        )


@dataclass(frozen=True)
class Drawn:
    """A function on a map of this shape, in its forms."""

    kind: str
    shape: tuple[int, ...]
    forms: tuple[Form, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Each two forms: the one that the model takes, and the other."""
        return [self._ordered(*two) for two in itertools.combinations(range(len(self.forms)), 2)]

    def _ordered(self, one: int, two: int) -> tuple[int, int]:
        """The lower price is taken; within the margin, fewer nodes, which is surer."""
        low, high = sorted((one, two), key=lambda n: self.forms[n].cost.seconds)
        costs = self.forms[low].cost, self.forms[high].cost
        near = costs[0].seconds > costs[1].seconds * (1 - MARGIN)
        return (high, low) if near and costs[1].nodes < costs[0].nodes else (low, high)


@dataclass(frozen=True)
class Result:
    """The seconds of two forms, and their ratio, chosen over other, with its 95 % interval."""

    drawn: Drawn
    chosen: int
    other: int
    seconds: tuple[float, float]
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > SLOWER:
            return "wrong"
        return "right" if self.high <= SLOWER else "undecided"

    def __str__(self) -> str:
        one, two = (self.drawn.forms[n] for n in (self.chosen, self.other))
        shape, batch = "x".join(map(str, self.drawn.shape)), self.drawn.shape[0]
        priced = [f"{form.cost.seconds * batch * 1e6:.1f}" for form in (one, two)]
        taken = [f"{seconds * 1e6:.1f}" for seconds in self.seconds]
        return (
            f"{self.verdict:9} {self.drawn.kind}, {shape}: {one} over {two}: "
            f"priced {' / '.join(priced)} us, takes {' / '.join(taken)} us, "
            f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"
        )


def price(model: ir.Model, cost: CostModel) -> Cost:
    """What the model says that the nodes cost; an operator that is not linear is one pass."""
    lifter = Lifter([r() for r in PIPELINE if issubclass(r, Rewrite)], cost)
    mark_composites(model.graph, (activation_at, norm_at))
    total, inside = Cost(), set()
    for node in reversed(model.graph):
        if node in inside:
            continue
        try:
            if node.op_type in ACTIVATIONS:
                raise Decline("NONLINEAR", "priced as one pass")
            meaning = lifter.read(node)
            total += node_cost(meaning, node, cost)
            if isinstance(meaning, Applied | Transparent):
                inside |= {value.producer() for value in meaning.through}
        except Decline:
            total += cost.operator(node.op_type, node.inputs[0])
    return total


def rewritten(model: ir.Model, profile: Profile) -> ir.Model:
    """The graph as the passes leave it by these prices."""
    copy = model.clone()
    Pipeline([rewrite() for rewrite in PIPELINE], profile).run(copy)
    return copy


def forms(ways: Mapping[str, ir.Model], profile: Profile) -> list[Form]:
    """The different forms of a function that is written in these ways."""
    found: dict[tuple[object, ...], Form] = {}
    rewrites = {f"by {p.name}": p for p in (profile, NODES_ALONE, WORK_ALONE)}
    named = [(way, model) for way, model in ways.items()]
    named += [(how, rewritten(m, p)) for m in ways.values() for how, p in rewrites.items()]
    for name, model in named:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
        form = Form(name, proto, price(ir.from_proto(proto), CostModel(profile)))
        found.setdefault(form.signature, form)
    return list(found.values())


def drawn(kind: Kind, number: int, seed: int) -> tuple[tuple[int, ...], dict[str, ir.Model]]:
    """(shape, each way to write it) of graph `number` of a kind."""
    entropy = [seed, number, *kind.name.encode()]
    random = np.random.default_rng(entropy)
    channels = int(random.choice(kind.channels))
    sizes = [int(n) for n in kind.sizes[random.integers(len(kind.sizes))]]
    shape = (int(random.choice((1, 1, 1, 4))), channels, *sizes)
    graphs = {}
    for way, step in kind.ways.items():
        chain = Chain(shape, seed=int(random.bit_generator.seed_seq.generate_state(1)[0]))
        graphs[way] = chain.model(step(chain, "x"))
    return shape, graphs


def graphs_of(kind: Kind, profile: Profile, seed: int) -> Iterator[Drawn]:
    """Graphs of a kind that have two forms, and a size that can be timed."""
    for number in range(MOST_DRAWN):
        shape, ways = drawn(kind, number, seed)
        costs = [price(model, CostModel(profile)) for model in ways.values()]
        seconds = [cost.seconds * shape[0] for cost in costs]
        if min(seconds) < LEAST_S or max(seconds) > MOST_S:
            continue
        if max(cost.parameters for cost in costs) > MOST_WEIGHTS:
            continue
        known = forms(ways, profile)
        least = min(form.cost.seconds for form in known)
        found = [form for form in known if form.cost.seconds < MOST_TIMES * least]
        if len(found) > 1:
            yield Drawn(kind.name, shape, tuple(found))


def all_graphs(kinds: Sequence[Kind], profile: Profile, seed: int) -> Iterator[Drawn]:
    """`GRAPHS` of each kind, fewer if they have many pairs; the first of every kind comes first."""
    sources = [_some(graphs_of(kind, profile, seed)) for kind in kinds]
    for row in itertools.zip_longest(*sources):
        yield from (graph for graph in row if graph is not None)


def _some(graphs: Iterator[Drawn]) -> Iterator[Drawn]:
    count = 0
    for graph in itertools.islice(graphs, GRAPHS):
        yield graph
        count += len(graph.pairs)
        if count >= MOST_PAIRS:
            return


def between_layers(shape: Sequence[int], region: onnx.ModelProto | None) -> ir.Model:
    """A layer, the region with an activation behind it, a layer; or the two layers alone.

    They are dense, so they write and read the layout that an engine likes best, and small: one has
    few inputs, the other computes few outputs for one pixel, by a kernel that no engine moves in
    front of the region.
    """
    chain = Chain((shape[0], INPUTS, *shape[2:]))
    value, sizes = chain.op("Relu", chain.conv("x", shape[1], (1, 1))), list(shape[2:])
    if region is not None:
        value = chain.op("Relu", chain.insert(region.graph, value))
        sizes = [n.dim_value for n in region.graph.output[0].type.tensor_type.shape.dim[2:]]
    weight = chain.weight(INPUTS, chain.channels(value), *(min(size, 2) for size in sizes))
    return chain.model(chain.op("Conv", value, weight, strides=sizes, channels=INPUTS))


def timed(graph: Drawn, timer: Timer) -> list[Result]:
    """Each pair of forms with its ratio; more rounds where a pair is undecided."""
    models = [None, *(form.model for form in graph.forms)]
    shape = (graph.shape[0], INPUTS, *graph.shape[2:])
    runs = [timer.prepared(between_layers(graph.shape, model), shape) for model in models]
    repeats = [max(1, round(ROUND_S / seconds(run, 1))) for run in runs]
    times: list[list[float]] = []
    while True:
        order = list(enumerate(zip(runs, repeats, strict=True)))
        row = [0.0] * len(runs)
        for index, (run, repeat) in order if len(times) % 2 else reversed(order):
            row[index] = seconds(run, repeat)
        times.append(row)
        results = [result(graph, *pair, times) for pair in graph.pairs]
        undecided = len(times) < ROUNDS or any(r.verdict == "undecided" for r in results)
        if len(times) == MOST_ROUNDS or not undecided:
            return results


def seconds(run: Callable[[], object], repeat: int) -> float:
    """Of processor time, for one run; the first one only brings the weights into the cache."""
    run()
    start = time.process_time()
    for _ in range(repeat):
        run()
    return (time.process_time() - start) / repeat


def result(graph: Drawn, chosen: int, other: int, times: Sequence[Sequence[float]]) -> Result:
    """From the times of each round: without the forms, then with each of them."""
    alone = [[max(t - row[0], NOTHING) for t in row[1:]] for row in times]
    ratios = [row[chosen] / row[other] for row in alone]
    taken = statistics.median(r[chosen] for r in alone), statistics.median(r[other] for r in alone)
    low, high = median_interval(ratios) or (0.0, FREE)
    return Result(graph, chosen, other, taken, statistics.median(ratios), low, high)


def share(results: Sequence[Result]) -> float:
    """Of the pairs that are decided, the share in which the model took the slower one."""
    verdicts = Counter(result.verdict for result in results)
    known = verdicts["wrong"] + verdicts["right"]
    return verdicts["wrong"] / known if known else 0.0


def table(target: str, results: Sequence[Result]) -> Table:
    """A row for each kind, and one for all."""
    rows = Table(title=f"Forms on {target}", title_justify="left")
    for column in ("kind", "pairs", "undecided", "wrong", "worst"):
        rows.add_column(column, justify="left" if column == "kind" else "right")
    for kind in dict.fromkeys(result.drawn.kind for result in results):
        rows.add_row(kind, *_cells([r for r in results if r.drawn.kind == kind]))
    rows.add_row("all", *_cells(results))
    return rows


def _cells(results: Sequence[Result]) -> Iterator[str]:
    verdicts = Counter(result.verdict for result in results)
    yield from (str(n) for n in (len(results), verdicts["undecided"], verdicts["wrong"]))
    yield f"{max((r.ratio for r in results if r.verdict == 'wrong'), default=1.0):.2f}"


def skipped(target: str) -> str:
    """Why a target cannot be timed here; "" if it can."""
    availability = load_backend(target).availability()
    if not availability.available:
        return availability.reason
    return "" if target in TIMED else "processor time says nothing of what a GPU does"


def measure(target: str, options: argparse.Namespace, console: Console) -> None:
    """Time the pairs of a target and print them."""
    kinds = [kind for kind in KINDS if options.match in kind.name]
    end, results = time.monotonic() + options.seconds, []
    timer, is_whole = Timer(target), True
    for graph in all_graphs(kinds, PROFILES[target], options.seed):
        if time.monotonic() > end:
            is_whole = False
            break
        new = timed(graph, timer)
        results += new
        for one in new:
            if options.match or one.verdict == "wrong":
                console.print(str(one), markup=False, highlight=False, soft_wrap=True)
    console.print(table(target, results))
    decided = sum(result.verdict != "undecided" for result in results)
    console.print(f"{target}: slower by more than 3 % in {share(results):.1%} of {decided} pairs")
    if not is_whole:
        console.print(f"the {options.seconds:g} seconds were over before all graphs were timed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="costs", description=__doc__.partition("\n")[0])
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--match", default="", help="part of the name of a kind")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="other graphs")
    options = parser.parse_args()
    console = Console(width=120)
    for target in (options.target,) if options.target else TARGETS:
        reason = skipped(target)
        if reason:
            console.print(f"{target}: skipped, {reason}")
        else:
            measure(target, options, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
