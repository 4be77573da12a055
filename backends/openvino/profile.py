"""How long OpenVINO takes for each layer of a compiled model, and which nodes of ours those are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from flatfold.backends.attribution import (
    INPUTS,
    WARMUP,
    EngineStep,
    LayerTime,
    RunProfile,
    attribute_nodes,
    run_seconds,
)

_MOVES = "Reorder"
_PRODUCT = "/WithoutBiases"  # of the node of that name, which also adds a bias


def profiled(
    model: ir.Model, compiled: Any, request: Any, run: Callable[[], object], runs: int
) -> RunProfile:
    """The layers of `runs` runs of `request`, which `run` does; `compiled` has PERF_COUNT on.

    Means, because OpenVINO tells the mean of all runs so far, those of the warm-up among them.
    """
    run_seconds(run, WARMUP)
    cold = _sums(request, WARMUP)
    seconds = sum(run_seconds(run, runs)) / runs
    warm = _sums(request, WARMUP + runs)
    computed = _nodes(model.graph, compiled.get_runtime_model().get_ordered_ops())
    layers = []
    for layer in request.profiling_info:
        name = layer.node_name
        if name in cold or name in warm:
            spent = max(0.0, warm.get(name, 0.0) - cold.get(name, 0.0)) / runs
            layers.append(LayerTime(name, layer.node_type, spent, computed.get(name, ())))
    return RunProfile(seconds, tuple(layers))


def _sums(request: Any, runs: int) -> dict[str, float]:
    """The seconds that each layer took in all runs so far; nothing of those that take no time.

    It is told in whole microseconds for one run, rounded down: half of one is what that loses.
    """
    return {
        layer.node_name: (layer.real_time.total_seconds() + 0.5e-6) * runs
        for layer in request.profiling_info
        if layer.status.name == "EXECUTED"
    }


def _nodes(graph: ir.Graph, operators: list[Any]) -> dict[str, tuple[str, ...]]:
    """The names of the nodes of each layer."""
    ends = {node.name: node for node in graph if node.name}
    # The last operator is called after the output, not after its node.
    ends |= {value.name: node for node in graph for value in node.outputs if value.name}
    names: list[str] = []
    places: dict[str, int] = {}
    steps: list[EngineStep] = []
    for operator in operators:
        name, facts = operator.get_friendly_name(), operator.get_rt_info()
        reads = _reads(operator, places)
        if facts["layerType"].astype(str) == "Input":
            places[name] = INPUTS
        elif reads:  # else it is computed once, before any run
            known = facts["originalLayersNames"].astype(str).split(",")
            places[name] = len(steps)
            names.append(name)
            steps.append(_step(facts["layerType"].astype(str), known, ends, reads))
    found = attribute_nodes(graph, steps)
    return {
        name: tuple(node.name for node in nodes if node.name)
        for name, nodes in zip(names, found, strict=True)
    }


def _reads(operator: Any, places: dict[str, int]) -> tuple[int, ...]:
    sources = (value.get_node().get_friendly_name() for value in operator.input_values())
    return tuple(sorted({places[name] for name in sources if name in places}))


def _step(
    kind: str, known: list[str], ends: dict[str, ir.Node], reads: tuple[int, ...]
) -> EngineStep:
    found = (ends.get(name.removesuffix(_PRODUCT)) for name in known)
    nodes = tuple(dict.fromkeys(node for node in found if node is not None))
    return EngineStep(kind, nodes, reads, moves=kind == _MOVES)
