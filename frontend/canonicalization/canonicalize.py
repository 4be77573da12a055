"""One canonical form for the graphs of every exporter, so that the rewrites meet only that.

Afterwards the main graph of a model has these properties, the entry invariants of the rewrites:

- constants are initializers; nothing that depends on constants alone is left to compute;
- integers computed from known sizes are constants; sizes known only in a run are read from the
  graph's inputs;
- a write of a box (ScatterND, ScatterElements) is a Concat of Slices of the old and the new
  values, or a Pad of the new ones;
- channels are selected by Gather, and parts of known size by Split;
- tensors stacked along an axis that is then merged are a Concat and a channel shuffle;
- no operator that changes nothing; no Identity, except where an output is an input, a constant or
  another output; no Dropout;
- a Conv has no bias of zeros, which one exporter adds to every bias-free layer;
- nothing unused; every node and value has a unique name, and a shape and type if inferable;
- calls of model-local functions are inlined where their opsets allow it.

Inputs and outputs keep names, types and declared shapes. An initializer that is also an input
may be overridden by the caller, so it is never taken for a constant. An If with a constant
condition is replaced by the branch it takes; other subgraphs only have their shapes inferred. A
BatchNormalization in training mode is left alone. A model of an opset before 7 is left as it is:
Add and Mul broadcast by other rules there.
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
from flatfold.frontend.canonicalization.control_flow import inline_constant_if
from flatfold.frontend.canonicalization.gather import (
    canonicalize_gathers,
    canonicalize_sequences,
    canonicalize_stacks,
)
from flatfold.frontend.canonicalization.guards import (
    detach_subgraphs,
    hide_overridable_defaults,
    protect_castlike,
)
from flatfold.frontend.canonicalization.identities import canonicalize_identities
from flatfold.frontend.canonicalization.interface import Interface
from flatfold.frontend.canonicalization.scatter import canonicalize_scatters
from flatfold.frontend.canonicalization.shape_constants import (
    canonicalize_integers,
    canonicalize_reshapes,
    canonicalize_shape_operands,
    canonicalize_shapes,
)
from flatfold.frontend.canonicalization.shape_rules import RULES
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, evaluate_shapes

_OLDEST_OPSET = 7
_AXES_ARE_INPUTS = 13  # the opset from which on axes and sizes are inputs of their operators
_SHAPE_HAS_START = 15  # the opset from which on Shape has a start and an end
_SEQUENCES = ("ConcatFromSequence", "Optional", "Sequence", "SplitToSequence")
_UNLIMITED = 2**62  # elements; a weight of any size may be computed from constants
_MAX_FOLDED = 2**26  # elements of a constant that folding may compute
_MAX_GROWTH = 512 * 512  # elements by which folding one node may make the model larger
_MAX_ROUNDS = 32  # each uses the shapes that became known in the one before


def canonicalize(model: ir.Model) -> None:
    """Bring `model` into the canonical form, in place; a second time changes nothing more.

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
        changed = _canonicalize_once(model, interface)
        for _ in range(_MAX_ROUNDS):
            if not changed and not _lacks_shapes(model.graph):
                break
            if not _has_sequences(model.graph):
                _infer_shapes(model)
            changed = _canonicalize_once(model, interface)  # inferred shapes may enable more rules
            if not changed:
                break


def _canonicalize_once(model: ir.Model, interface: Interface) -> bool:
    """Do one round; return whether another may change more."""
    from onnx_ir.passes import common

    graph = model.graph
    _drop_dropouts(model)
    with hide_overridable_defaults(graph), detach_subgraphs(graph), protect_castlike(graph):
        _fold_constants(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    inlined = inline_constant_if(graph)
    if inlined:
        common.NameFixPass(_Names())(model)
    _drop_identities(graph)
    changed = _apply_rules(model) or inlined
    _drop_identities(graph)
    _drop_zero_biases(graph)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass(_Names())(model)
    interface.restore(graph)
    computed = [value for node in graph for value in node.outputs]
    for value in [*graph.initializers.values(), *computed]:
        value.metadata_props.pop("pkg.onnxscript.optimizer.folded_from", None)
    return changed


def _apply_rules(model: ir.Model) -> bool:
    """Apply the rules of this package to the main graph once; return whether anything changed.

    The results are equal to the bit; what cannot be shown to have one of the forms is left alone.
    """
    graph, version = model.graph, model.opset_imports.get("", 0)
    if version < _AXES_ARE_INPUTS:
        return canonicalize_reshapes(graph, Shapes())
    shapes = evaluate_shapes(graph, RULES)
    changed = canonicalize_shapes(shapes)
    for rule in (
        canonicalize_integers,
        canonicalize_reshapes,
        canonicalize_scatters,
        canonicalize_sequences,
        canonicalize_gathers,
        canonicalize_stacks,
        canonicalize_identities,
    ):
        changed |= rule(graph, shapes)
    if version >= _SHAPE_HAS_START:
        changed |= canonicalize_shape_operands(graph, shapes)
    return changed


def _fold_constants(model: ir.Model) -> None:
    from onnxscript import optimizer

    graph = model.graph
    if _has_sequences(graph):
        return

    def should_fold(node: ir.Node) -> bool | None:
        if node.graph is not graph or any(value.is_graph_output() for value in node.outputs):
            return False
        if any(_elements(value) > _MAX_FOLDED for value in node.outputs):
            return False  # it would be computed and then dropped as too large
        return True if node.op_type == "ConstantOfShape" and node.domain == "" else None

    try:
        with np.errstate(all="ignore"):
            optimizer.fold_constants(
                model,
                onnx_shape_inference=True,
                input_size_limit=_UNLIMITED,
                output_size_limit=_MAX_GROWTH,
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
    """The product of the known sizes of `value`."""
    return math.prod(dim for dim in value.shape or () if isinstance(dim, int))


def _has_sequences(graph: ir.Graph) -> bool:
    """Whether values are sequences, which folding and shape inference take for tensors."""
    return any(node.op_type.startswith(_SEQUENCES) for node in graph.all_nodes())


def _inline_functions(model: ir.Model) -> None:
    from onnx_ir.passes import PreconditionError, common

    def compatible(function: ir.Function) -> bool:
        imports = model.opset_imports
        opsets = function.opset_imports.items()
        return all(imports.get(domain, version) == version for domain, version in opsets)

    if not model.functions:
        return
    with contextlib.suppress(PreconditionError):  # functions that call each other recursively
        common.InlinePass(criteria=compatible)(model)


def _drop_dropouts(model: ir.Model) -> None:
    """Drop each Dropout of an opset before 12; constant folding does the later ones."""
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
    local = producer is not None and producer.graph is graph
    return local and not source.is_graph_output() and result in graph.outputs


def _drop_zero_biases(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain != "":
            continue
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None or bias.is_graph_input() or not bias.is_initializer():
            continue
        if bias.const_value is not None and not np.any(bias.const_value.numpy()):
            node.resize_inputs(2)


def _lacks_shapes(graph: ir.Graph) -> bool:
    values = (value for node in graph.all_nodes() for value in node.outputs)
    return any(value.shape is None or value.type is None for value in values)


def _infer_shapes(model: ir.Model) -> None:
    from onnx_ir.passes import common

    # The pass sets weights above 1 KB aside while it runs, and puts them back. No size may follow
    # from the default of an input.
    with hide_overridable_defaults(model.graph):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


class _Names:
    """Names nodes and values that have none after their operator."""

    def generate_node_name(self, node: ir.Node) -> str:
        return node.name or node.op_type

    def generate_value_name(self, value: ir.Value) -> str:
        producer = value.producer()
        return value.name or (f"{producer.name or producer.op_type}_out" if producer else "value")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the folding library logs and warns about nodes that it leaves alone."""
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
