"""One form for the graphs of every exporter, so that the rewrites meet only that.

Afterwards the main graph of a model has these properties, the entry invariants of the rewrites:

- constants are initializers; nothing that depends on constants alone is left to compute;
- no Identity, except where an output is an input, a constant or another output; no Dropout;
- shapes are computed, and tensors are written in place, picked from, stacked and split, as
  `settle` says, which the rewrites know as Slice, Split, Gather, Concat, Pad and Reshape;
- a Conv has no bias of zeros, which one exporter adds to every bias-free layer;
- nothing unused; every node and value has a name of its own, and a shape and type if inferable;
- calls of model-local functions are inlined where their opsets allow it.

Inputs and outputs keep names, types and declared shapes. An initializer that is also an input
may be overridden by the caller, so it is never taken for a constant. An If by a constant is the
branch taken; other bodies are left as they are, but for the shapes, and so is a
BatchNormalization in training mode. A model of an opset before 7 stays as it is: Add and Mul
broadcast by other rules there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from flatfold.errors import ExportError
from flatfold.frontend.canonicalize.control_flow import take_branches
from flatfold.frontend.canonicalize.gather import settle_picks, settle_sequences, settle_stacks
from flatfold.frontend.canonicalize.guards import (
    bodies_detached,
    casts_set_apart,
    overridable_hidden,
)
from flatfold.frontend.canonicalize.identities import settle_no_ops
from flatfold.frontend.canonicalize.interface import Interface
from flatfold.frontend.canonicalize.scatter import settle_writes
from flatfold.frontend.canonicalize.shape_constants import (
    settle_integers,
    settle_reshapes,
    settle_shapes,
    settle_targets,
)
from flatfold.frontend.canonicalize.shape_rules import RULES
from flatfold.frontend.canonicalize.symbolic_dims import Facts, facts_of

_OLDEST_OPSET = 7
_SEQUENCES = ("ConcatFromSequence", "Optional", "Sequence", "SplitToSequence")
_UNLIMITED = 2**62  # elements; a weight of any size may be computed from constants
_LARGEST = 2**26  # elements of a constant that folding may compute
_ROUNDS = 32  # each settles what the one before made known
_OUTPUT_LIMIT = 512 * 512  # elements by which folding one node may make the model larger


def canonicalise(model: ir.Model) -> None:
    """Bring `model` into the form above, in place; doing it twice changes nothing more.

    Never folds a BatchNormalization into a convolution. Weights are shared, not copied. Raises
    `ExportError` when the graph is so malformed that its constants cannot be evaluated.
    """
    imports = model.opset_imports
    if "ai.onnx" in imports:  # the other spelling of the same domain
        imports[""] = imports.pop("ai.onnx")
    if 0 < imports.get("", 0) < _OLDEST_OPSET:
        return
    interface = Interface.of(model.graph)
    with _quiet():
        _inline_functions(model)
        changed = _clean(model, interface)
        for _ in range(_ROUNDS):
            if not changed and not _lacks_shapes(model.graph):
                break
            if not _has_sequences(model.graph):
                _infer_shapes(model)
            changed = _clean(model, interface)  # shapes newly known may settle more of the graph
            if not changed:
                break


def _clean(model: ir.Model, interface: Interface) -> bool:
    """One round; whether another may find more."""
    from onnx_ir.passes import common

    graph = model.graph
    _drop_dropouts(model)
    with overridable_hidden(graph), bodies_detached(graph), casts_set_apart(graph):
        _fold_constants(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    taken = take_branches(graph)
    if taken:
        common.NameFixPass(_Names())(model)
    _drop_identities(graph)
    changed = settle(model) or taken
    _drop_identities(graph)
    _drop_zero_biases(graph)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass(_Names())(model)
    interface.restore(graph)
    for value in [*graph.initializers.values(), *_results(graph)]:
        value.metadata_props.pop("pkg.onnxscript.optimizer.folded_from", None)
    return changed


def _fold_constants(model: ir.Model) -> None:
    from onnxscript import optimizer

    graph = model.graph
    if _has_sequences(graph):
        return

    def should_fold(node: ir.Node) -> bool | None:
        if node.graph is not graph or any(value.is_graph_output() for value in node.outputs):
            return False
        if any(_elements(value) > _LARGEST for value in node.outputs):
            return False  # it would be computed, only to be found too large to keep
        return True if node.op_type == "ConstantOfShape" and node.domain == "" else None

    try:
        with np.errstate(all="ignore"):
            optimizer.fold_constants(
                model,
                onnx_shape_inference=True,
                input_size_limit=_UNLIMITED,
                output_size_limit=_OUTPUT_LIMIT,
                should_fold=should_fold,
            )
    except Exception as error:
        cause = error.__cause__ or error
        raise ExportError(
            f"cannot evaluate the constants of the graph: {type(cause).__name__}: {cause}",
            where=str(error).splitlines()[0],
            hint="check the model with onnx.checker.check_model(..., full_check=True)",
        ) from error


def _elements(value: ir.Value) -> int:
    """How many it has, as far as its sizes are known."""
    return math.prod(dim for dim in value.shape or () if isinstance(dim, int))


def _has_sequences(graph: ir.Graph) -> bool:
    """Values that are no tensors: folding and shape inference take them for tensors."""
    return any(node.op_type.startswith(_SEQUENCES) for node in graph.all_nodes())


def _inline_functions(model: ir.Model) -> None:
    from onnx_ir.passes import PreconditionError, common

    def compatible(function: ir.Function) -> bool:
        imports = model.opset_imports
        opsets = function.opset_imports.items()
        return all(imports.get(domain, version) == version for domain, version in opsets)

    if not model.functions:
        return
    with contextlib.suppress(PreconditionError):  # functions that call each other in a circle
        common.InlinePass(criteria=compatible)(model)


def _drop_dropouts(model: ir.Model) -> None:
    """Before opset 12 Dropout has no training mode; later ones are for constant folding."""
    if model.opset_imports.get("", 0) >= 12:
        return
    for node in model.graph:
        if node.op_type == "Dropout" and node.domain == "" and len(node.outputs) == 1:
            identity = ir.node("Identity", [node.inputs[0]], name=node.name)
            identity.outputs[0].shape = node.outputs[0].shape
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [identity], node.outputs, identity.outputs
            )


def _drop_identities(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type != "Identity" or node.domain != "" or node.inputs[0] is None:
            continue
        source, result = node.inputs[0], node.outputs[0]
        if result.is_graph_output() and not _can_be_output(source, result, graph):
            continue
        if source.type is None:
            source.type = result.type
        if source.shape is None:
            source.shape = result.shape
        ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _can_be_output(source: ir.Value, result: ir.Value, graph: ir.Graph) -> bool:
    producer = source.producer()
    made_here = producer is not None and producer.graph is graph
    return made_here and not source.is_graph_output() and result in graph.outputs


def _drop_zero_biases(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain != "":
            continue
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None or bias.is_graph_input() or not bias.is_initializer():
            continue
        if bias.const_value is not None and not np.any(bias.const_value.numpy()):
            node.resize_inputs(2)


def _results(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs)


def _lacks_shapes(graph: ir.Graph) -> bool:
    values = (value for node in graph.all_nodes() for value in node.outputs)
    return any(value.shape is None or value.type is None for value in values)


def _infer_shapes(model: ir.Model) -> None:
    from onnx_ir.passes import common

    # The pass sets weights above 1 KB aside while it runs, and puts them back. No size may follow
    # from the default of an input.
    with overridable_hidden(model.graph):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


class _Names:
    """Names for what has none: the operator's own."""

    def generate_node_name(self, node: ir.Node) -> str:
        return node.name or node.op_type

    def generate_value_name(self, value: ir.Value) -> str:
        producer = value.producer()
        return value.name or (f"{producer.name or producer.op_type}_out" if producer else "value")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the folding library logs about nodes that it leaves alone."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_INPUTS = 13  # the opset from which on axes and sizes are inputs of their operators
_SHAPE_OF_AXES = 15  # the opset from which on Shape has a start and an end


def settle(model: ir.Model) -> bool:
    """One round over the main graph of `model`; whether anything changed.

    - integers computed from known sizes are constants, and so are target shapes;
    - sizes that only a run knows are taken from the inputs of the graph;
    - a write of a box is a Concat of Slices of the old and the new, or a Pad of the new;
    - a list of channels is taken by Gather, parts of a known size by Split;
    - stacked and merged axes are a Concat and a channel shuffle;
    - what changes nothing is an Identity.

    The results are equal to the bit; what cannot be shown to have these forms stays as it is.
    """
    graph, version = model.graph, model.opset_imports.get("", 0)
    if version < _INPUTS:
        return settle_reshapes(graph, Facts())
    facts = facts_of(graph, RULES)
    changed = settle_shapes(facts)
    for step in (
        settle_integers,
        settle_reshapes,
        settle_writes,
        settle_sequences,
        settle_picks,
        settle_stacks,
        settle_no_ops,
    ):
        changed |= step(graph, facts)
    if version >= _SHAPE_OF_AXES:
        changed |= settle_targets(graph, facts)
    return changed
