"""One canonical form for the graphs of every exporter, so that the rewrites meet only that.

Afterwards the graph of a model has these properties, the entry invariants of the rewrites:

- constants are initializers; nothing that depends on constants alone is left to compute;
- integers computed from known sizes are constants; sizes known only in a run are read from the
  graph's inputs;
- a write of a box (ScatterND, ScatterElements) is a Concat of Slices of the old and the new
  values, or a Pad of the new ones;
- channels are selected by Gather, and parts of known size by Split;
- tensors stacked along an axis that is then merged are a Concat and a channel shuffle;
- no view of a view, such as a Squeeze behind an Unsqueeze, and no mean of single elements;
- no operator that changes nothing; no Identity, except where an output is an input, a constant or
  another output; no Dropout;
- a Conv has no bias of zeros, which one exporter adds to every bias-free layer;
- no small constant twice, and no node that computes the same as another one;
- nothing unused; every node and value has a unique name, and a shape and type if these follow
  from the inputs and the weights: what the file declares of computed values is dropped;
- calls of model-local functions are inlined where their opsets allow it.

The bodies of If, Loop and Scan have them too, but that they may use the values around them. An If
with a constant condition is replaced by the branch it takes.

Inputs and outputs keep names, types and declared shapes, except for an output that cannot have
its shape. An initializer that is also an input
may be overridden by the caller, so it is never taken for a constant. A
BatchNormalization in training mode is left alone. A model of an opset before 7 is left as it is:
Add and Mul broadcast by other rules there.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.chains import canonicalize_chains
from flatfold.frontend.canonicalization.control_flow import (
    drop_unread_results,
    graphs_of,
    inline_constant_if,
    remove_unused,
)
from flatfold.frontend.canonicalization.duplicates import merge_constants, merge_nodes
from flatfold.frontend.canonicalization.gather import (
    canonicalize_gathers,
    canonicalize_sequences,
    canonicalize_stacks,
)
from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes
from flatfold.frontend.canonicalization.identities import (
    canonicalize_casts,
    canonicalize_empty_parts,
    canonicalize_identities,
)
from flatfold.frontend.canonicalization.inlining import inline_functions
from flatfold.frontend.canonicalization.interface import Interface, name_uniquely
from flatfold.frontend.canonicalization.scatter import canonicalize_scatters
from flatfold.frontend.canonicalization.shape_constants import (
    canonicalize_constants,
    canonicalize_reshapes,
    canonicalize_shape_operands,
    canonicalize_slices,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, constant_of
from flatfold.frontend.canonicalization.views import (
    canonicalize_reductions,
    canonicalize_views,
)

_OLDEST_OPSET = 7
_SPLIT_HAS_SIZES = 13  # the opset from which on the sizes of Split are an input
_SHAPE_HAS_START = 15  # the opset from which on Shape has a start and an end
_MAX_ROUNDS = 32  # each uses what the one before made


def canonicalize(model: ir.Model) -> None:
    """Bring `model` into the canonical form, in place; a second time changes nothing more.

    Never folds a BatchNormalization into a convolution. Weights are shared, not copied.
    """
    imports = model.opset_imports
    if "ai.onnx" in imports:  # the other spelling of the same domain
        imports[""] = imports.pop("ai.onnx")
    if 0 < imports.get("", 0) < _OLDEST_OPSET:
        return
    interface = Interface.of(model.graph)
    with _quiet():
        inline_functions(model)
        _lift_constants(model)
        remove_unused(model)
        for _ in range(_MAX_ROUNDS):
            if not _canonicalize_once(model, interface):
                break
    interface.restore(model.graph)


def _merge_duplicates(graph: ir.Graph) -> bool:
    """Merge the constants of each graph, and the nodes of all; return whether any was."""
    changed = False
    for part in graphs_of(graph):
        changed |= merge_constants(part)
    return merge_nodes(graph) | changed


def _canonicalize_once(model: ir.Model, interface: Interface) -> bool:
    """Do one round; return whether another may change more."""
    graph = model.graph
    for part in graphs_of(graph):
        _drop_dropouts(part)
        _drop_identities(part)
    changed = _apply_rules(model)
    for part in graphs_of(graph):
        changed |= inline_constant_if(part)
        _drop_identities(part)
        _drop_zero_biases(part)
    changed |= _merge_duplicates(graph) | drop_unread_results(graph)
    remove_unused(model)
    name_uniquely(graph)
    interface.restore_names(graph)
    return changed


def _apply_rules(model: ir.Model) -> bool:
    """Apply the rules of this package to each graph once; return whether anything changed.

    The results are equal to the bit; what cannot be shown to have one of the forms is left alone.
    """
    graph, version = model.graph, model.opset_imports.get("", 1)
    shapes = evaluate_shapes(graph, dict(model.opset_imports))
    changed = any([canonicalize_casts(part) for part in graphs_of(graph)])
    if changed:  # a constant that was cast is now one
        shapes = evaluate_shapes(graph, dict(model.opset_imports))
    rules: list[Callable[[ir.Graph, Shapes], bool]] = [
        canonicalize_constants,
        canonicalize_reshapes,
        canonicalize_slices,
        canonicalize_empty_parts,
        canonicalize_scatters,
        canonicalize_gathers,
        canonicalize_stacks,
        canonicalize_identities,
        canonicalize_chains,
        functools.partial(canonicalize_reductions, version=version),
        canonicalize_views,
    ]
    if version >= _SPLIT_HAS_SIZES:
        rules.append(canonicalize_sequences)
    for part in graphs_of(graph):
        for rule in rules:
            changed |= rule(part, shapes)
    if version >= _SHAPE_HAS_START:
        changed |= canonicalize_shape_operands(graph, shapes)
    return changed


def _lift_constants(model: ir.Model) -> None:
    """Make initializers of the Constants of each graph."""
    from onnx_ir.passes import common

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _drop_dropouts(graph: ir.Graph) -> None:
    """Replace each Dropout that drops nothing, and whose mask is not read, by an Identity."""
    for node in graph:
        if (node.op_type, node.domain) != ("Dropout", "") or _is_training(node):
            continue
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            continue
        identity = ir.node("Identity", [node.inputs[0]], name=node.name)
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], [identity], node.outputs[:1], identity.outputs
        )


def _is_training(node: ir.Node) -> bool:
    """Whether a Dropout may drop something: from opset 12 on in training, by a ratio."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    training = constant_of(node.inputs[2])
    if training is not None and not training.any():
        return False
    if node.inputs[1] is None:
        return True
    ratio = constant_of(node.inputs[1])
    return ratio is None or bool(ratio.any())


def _drop_identities(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type != "Identity" or node.domain != "" or node.inputs[0] is None:
            continue
        source, result = node.inputs[0], node.outputs[0]
        if result.is_graph_output() and not _can_be_output(source, result, graph):
            continue
        if source.type is None:
            source.type = result.type
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
