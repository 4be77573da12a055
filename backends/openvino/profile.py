"""The time of each layer of an OpenVINO engine, and the nodes of the graph that it computes."""

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

_COPY = "Reorder"
_WITHOUT_BIAS = "/WithoutBiases"  # suffix of the product in a node that also adds a bias


def profiled(
    model: ir.Model, compiled: Any, request: Any, run: Callable[[], object], runs: int
) -> RunProfile:
    """The profile of `runs` runs of `request` by `run`; `compiled` has PERF_COUNT on.

    Times of layers are means: OpenVINO reports the mean over all runs so far, warm-up included.
    """
    run_seconds(run, WARMUP)
    before = _total_seconds(request, WARMUP)
    seconds = sum(run_seconds(run, runs)) / runs
    after = _total_seconds(request, WARMUP + runs)
    computed = _nodes(model.graph, compiled.get_runtime_model().get_ordered_ops())
    layers = []
    for layer in request.profiling_info:
        name = layer.node_name
        if name in before or name in after:
            mean = max(0.0, after.get(name, 0.0) - before.get(name, 0.0)) / runs
            layers.append(LayerTime(name, layer.node_type, mean, computed.get(name, ())))
    return RunProfile(seconds, tuple(layers))


def _total_seconds(request: Any, runs: int) -> dict[str, float]:
    """The seconds that each layer took in all runs so far, for the layers that are executed.

    The mean is rounded down to whole microseconds, which loses half of one on average.
    """
    return {
        layer.node_name: (layer.real_time.total_seconds() + 0.5e-6) * runs
        for layer in request.profiling_info
        if layer.status.name == "EXECUTED"
    }


def _nodes(graph: ir.Graph, operators: list[Any]) -> dict[str, tuple[str, ...]]:
    """The names of the nodes of each layer."""
    ends = {node.name: node for node in graph if node.name}
    # The last operator has the name of the output, not that of its node.
    ends |= {value.name: node for node in graph for value in node.outputs if value.name}
    names: list[str] = []
    places: dict[str, int] = {}
    steps: list[EngineStep] = []
    for operator in operators:
        name, facts = operator.get_friendly_name(), operator.get_rt_info()
        reads = _reads(operator, places)
        if facts["layerType"].astype(str) == "Input":
            places[name] = INPUTS
        elif reads:  # otherwise it is computed once, when the engine is built
            known = facts["originalLayersNames"].astype(str).split(",")
            places[name] = len(steps)
            names.append(name)
            steps.append(_step(facts["layerType"].astype(str), known, ends, reads))
    attributed = attribute_nodes(graph, steps)
    return {
        name: tuple(node.name for node in nodes if node.name)
        for name, nodes in zip(names, attributed, strict=True)
    }


def _reads(operator: Any, places: dict[str, int]) -> tuple[int, ...]:
    sources = (value.get_node().get_friendly_name() for value in operator.input_values())
    return tuple(sorted({places[name] for name in sources if name in places}))


def _step(
    kind: str, known: list[str], ends: dict[str, ir.Node], reads: tuple[int, ...]
) -> EngineStep:
    candidates = (ends.get(name.removesuffix(_WITHOUT_BIAS)) for name in known)
    nodes = tuple(dict.fromkeys(node for node in candidates if node is not None))
    return EngineStep(kind, nodes, reads, moves=kind == _COPY)
