"""The time of each node of ONNX Runtime's optimised graph, and the nodes that it was made from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import onnx_ir as ir

from flatfold.backends.attribution import INPUTS, EngineStep, LayerTime, attribute_nodes

if TYPE_CHECKING:
    import onnxruntime


OPTIMIZED, WEIGHTS, EVENTS = "optimized.onnx", "optimized.weights", "events"
_TIME = "_kernel_time"
_RUN = "model_run"  # the event that ends a run
_COPIES = ("ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost")
_INLINED = "_inlfunc_"  # prefix of the names of values inside a function without a kernel
_BLOCKED = re.compile(r"_nchwc(_token_\d+)?$")  # suffix of nodes in the blocked layout


def recording(folder: Path) -> Callable[[onnxruntime.SessionOptions], None]:
    """Changes session options so that events and the optimised graph's weights go to `folder`."""

    def adjust(settings: onnxruntime.SessionOptions) -> None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(folder / EVENTS)
        # In a separate file: together with them the graph may be too large to be written.
        entry = "session.optimized_model_external_initializers"
        settings.add_session_config_entry(f"{entry}_file_name", WEIGHTS)
        settings.add_session_config_entry(f"{entry}_min_size_in_bytes", "1024")

    return adjust


def layer_times(model: ir.Model, folder: Path, events: Path, runs: int) -> list[LayerTime]:
    """The layers of the last `runs` runs recorded in `events`, in the order in which they ran.

    `folder` has the optimised graph of the session, as OPTIMIZED.
    """
    recorded = _runs(json.loads(events.read_text(encoding="utf-8")))[-runs:]
    optimized = ir.load(folder / OPTIMIZED)
    nodes, originals = list(optimized.graph), _Originals(model.graph)
    places = {node: index for index, node in enumerate(nodes)}
    fed = {value for value in optimized.graph.inputs if not value.is_initializer()}
    steps = [_step(node, places, fed, originals) for node in nodes]
    attributed = dict(zip(nodes, attribute_nodes(model.graph, steps), strict=True))
    layers = []
    for name, node in _named(nodes, recorded[-1]):
        seconds = median(run.get(name, 0.0) for run in recorded)
        computed = tuple(n.name for n in attributed[node] if n.name)
        layers.append(LayerTime(node.name or name, node.op_type, seconds, computed))
    return layers


def _runs(events: list[dict[str, object]]) -> list[dict[str, float]]:
    """For each run the seconds of each node by name, in the order in which they ran."""
    runs: list[dict[str, float]] = []
    times: dict[str, float] = {}
    for event in events:
        name = str(event["name"])
        if event["cat"] == "Node" and name.endswith(_TIME):
            node = name.removesuffix(_TIME)
            times[node] = times.get(node, 0.0) + float(str(event["dur"])) * 1e-6
        elif name == _RUN:
            runs.append(times)
            times = {}
    return runs


def _named(nodes: list[ir.Node], names: Mapping[str, float]) -> Iterator[tuple[str, ir.Node]]:
    """The node of each name in a profile, where a node without a name is Operator_17 or so."""
    named = {node.name: node for node in reversed(nodes) if node.name}
    unnamed = [node for node in nodes if not node.name]
    for name in names:
        if name in named:
            yield name, named[name]
            continue
        kind = name.rpartition("_")[0]
        same = next((node for node in unnamed if node.op_type == kind), None)
        if same is not None:  # else it is in a graph inside another node
            unnamed.remove(same)
            yield name, same


class _Originals:
    """The nodes of the original graph, found by the names of nodes of the optimised graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.by_name = {node.name: node for node in graph if node.name}
        self.by_output = {
            value.name: node for node in graph for value in node.outputs if value.name
        }

    def known(self, node: ir.Node) -> tuple[ir.Node, ...]:
        """The original node that computes the output of `node`; () if there is none.

        A fused node has the output of the last node in it, or its name. In the blocked layout,
        nodes y_nchwc, y_bn_nchwc and y_mul_nchwc compute the value y; n/Fusion was node n.
        """
        blocked = _BLOCKED.sub("", node.name or "")
        ends = [value.name for value in node.outputs]
        if blocked != node.name:
            ends += [blocked, blocked.removesuffix("_bn"), blocked.removesuffix("_mul")]
        matches = [self.by_output[name] for name in ends if name in self.by_output]
        if not matches:
            parts = (node.name or "").split("/")
            names = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
            matches = [self.by_name[name] for name in names if name in self.by_name]
        return tuple(matches[:1])


def _step(
    node: ir.Node, places: Mapping[ir.Node, int], fed: set[ir.Value], originals: _Originals
) -> EngineStep:
    reads = {places[p] for v in node.inputs if v and (p := v.producer()) and p in places}
    if fed.intersection(node.inputs):
        reads.add(INPUTS)
    known = () if node.op_type in _COPIES else originals.known(node)
    inlined = any((value.name or "").startswith(_INLINED) for value in node.outputs)
    moves = node.op_type in _COPIES or (node.op_type == "Transpose" and not known)
    return EngineStep(node.op_type, known, tuple(sorted(reads)), moves=moves, part=inlined)
