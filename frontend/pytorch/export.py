"""`export_module`: from an nn.Module to ONNX IR, in the form it was trained in.

The dynamo exporter runs with ``optimize=False``: its optimizer would fold BatchNorms into
convolutions before the rewrites and the proof see them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import os
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from flatfold.errors import ExportError
from flatfold.frontend.canonicalization.interface import name_outputs
from flatfold.frontend.loading.tensors import own_tensors
from flatfold.frontend.pytorch.inputs import STRUCTURE, Example, Structure, example_of, key_text
from flatfold.frontend.pytorch.wrapper import unwrapped

if TYPE_CHECKING:
    from torch import Tensor, nn


SCOPE_KEY = "flatfold.scope"
"""Key in a node's metadata_props: the path of the submodule that it was exported from."""

_HINTS = {
    "data-dependent": "the network branches on values of a tensor; use torch.where or torch.cond",
    "specialized": "the network fixes this size; export with dynamic_batch=False",
    "No ONNX function found": "replace this operator in the module; it has no ONNX form",
    "to have": "check input_shape or example_inputs against what forward expects",
}


def export_module(
    module: nn.Module,
    *,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    dynamic_batch: bool = False,
    opset: int | None = None,
) -> ir.Model:
    """The inference graph of `module`, unoptimized, with a private copy of its weights.

    Give either `example_inputs` (a tensor, the positional arguments of ``forward``, or a mapping
    of its keyword arguments) or `input_shape`, (C, H, W), a whole shape, or a mapping of those.
    Without `dynamic_batch` the graph has the batch size given, or 1; with it, axis 0 of every input
    is the symbol ``batch``. `opset` defaults to that of the exporter.

    The graph is that of eval mode, even for a module in train mode; the module is not changed.
    Inputs are named after the parameters of ``forward``, the outputs ``output``, or ``output_0``,
    ``output_1``, ... when there are several; those of a mapping are named after
    its keys, and so are inputs in one. A node's ``metadata_props["flatfold.scope"]`` is the
    path of the submodule that it was exported from.

    Raises `InputError` for unusable inputs and `ExportError` when the module cannot be captured.
    """
    module = unwrapped(module)
    example = example_of(module, example_inputs, input_shape, dynamic_batch)
    with _eval_mode(module), _silence():
        try:
            program = _export(module, example, opset)
        except Exception as error:
            raise _as_export_error(module, error) from error
    _check_promises(program.model, type(module).__name__, dynamic_batch, opset)
    model = _finished(program)
    structure = Structure.of(example)
    if structure is not None:
        model.graph.meta[STRUCTURE] = structure
        _name_inputs(model.graph, structure.names())
    return model


def export_program(exported: Any) -> ir.Model:
    """The graph of what torch.export.export returned, as `export_module` would give it.

    Sizes that are open there stay open. Raises `ExportError` when it has no ONNX form.
    """
    import torch

    with _silence():
        try:
            program = torch.onnx.export(exported, dynamo=True, optimize=False, verbose=False)
        except Exception as error:
            raise _as_export_error(exported, error) from error
    return _finished(program)


def _finished(program: Any) -> ir.Model:
    """The model in what the exporter returned, with its own weights and plain names."""
    model: ir.Model = program.model
    own_tensors(model, copy=True)  # until here they are views of the module's memory
    name_outputs(model.graph, _output_names(model.graph, _output_keys(program)))
    _strip_metadata(model)
    return model


def _name_inputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Name the inputs, unless another value has one of these names or the numbers differ."""
    computed = (value for node in graph for value in node.outputs)
    taken = {value.name for value in (*graph.initializers.values(), *computed)}
    if len(names) == len(graph.inputs) and not taken & set(names):
        for value in graph.inputs:
            value.name = None
        for value, name in zip(graph.inputs, names, strict=True):
            value.name = name


def _output_keys(program: Any) -> list[str]:
    """The keys of the outputs, if the module returns a mapping; those of nested ones are joined."""
    from torch.utils import _pytree

    exported = getattr(program, "exported_program", None)
    spec = None if exported is None else exported.call_spec.out_spec
    if spec is None:
        return []
    tree = _pytree.tree_unflatten(range(spec.num_leaves), spec)
    if not isinstance(tree, Mapping):
        return []
    return ["_".join(map(key_text, path)) for path, _ in _pytree.tree_flatten_with_path(tree)[0]]


def _export(module: nn.Module, example: Example, opset: int | None) -> Any:
    import torch

    program = torch.onnx.export(
        module,
        example.args,
        kwargs=example.kwargs,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=opset,
        dynamic_shapes=example.dynamic_shapes,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program


def _check_promises(model: ir.Model, name: str, dynamic_batch: bool, opset: int | None) -> None:
    """Raise where the exporter used another opset or a fixed batch size, which it does silently."""
    exported = model.opset_imports.get("")
    if opset is not None and exported != opset:
        raise ExportError(
            f"expected opset {opset}, the exporter returned {exported}",
            where=name,
            hint="leave opset out, or choose one nearer to the exporter's",
        )
    fixed = [
        value for value in model.graph.inputs if value.shape and isinstance(value.shape[0], int)
    ]
    if dynamic_batch and fixed:
        raise ExportError(
            f"the network fixes the batch size of input {fixed[0].name!r}: {fixed[0].shape}",
            where=name,
            hint="export with dynamic_batch=False",
        )


@contextlib.contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Set only the flags of eval mode: an overridden ``train()`` may do more than that."""
    flags = [(layer, layer.training) for layer in module.modules()]
    try:
        for layer, _ in flags:
            layer.training = False
        yield
    finally:
        for layer, training in flags:
            layer.training = training


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide the exporter's progress, log and warnings; exceptions pass through."""
    disabled = logging.root.manager.disable
    sink = io.StringIO()
    try:
        logging.disable(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _as_export_error(module: Any, error: BaseException) -> ExportError:
    cause = error
    while cause.__cause__ is not None and type(cause).__module__.startswith("torch.onnx"):
        cause = cause.__cause__  # the exporter wraps the error that matters
    text = str(cause).strip() or type(cause).__name__
    hint = next((hint for sign, hint in _HINTS.items() if sign in str(cause)), "")
    return ExportError(
        f"cannot export {type(module).__name__}: {text.splitlines()[0]}",
        where=_location(cause),
        hint=hint
        or "run the module on the same inputs in PyTorch; if that works, "
        "see what torch.export supports",
    )


def _location(error: BaseException) -> str:
    """File and line of the innermost frame outside torch and this package."""
    import torch

    internal = (os.path.dirname(torch.__file__), os.path.dirname(__file__), "<")
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(internal)]
    return f"{outside[-1].filename}:{outside[-1].lineno}" if outside else ""


def _output_names(graph: ir.Graph, keys: Sequence[str]) -> list[str]:
    """`keys` if each output has one, else ``output``, or ``output_0`` and so on.

    Underscores are appended if an input is called so.
    """
    count = len(graph.outputs)
    names = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    if len(set(keys)) == count:
        names = list(keys)
    taken = {value.name for value in graph.inputs}
    while any(name in taken for name in names):
        names = [f"{name}_" for name in names]
    return names


def _strip_metadata(model: ir.Model) -> None:
    """Drop the exporter's stack traces and graph dumps; keep the module path of each node."""
    objects: list[Any] = [model, model.graph, *model.functions.values(), *model.graph.inputs]
    objects += model.graph.initializers.values()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        scope = _scope_of(node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        node.metadata_props.clear()
        if scope:
            node.metadata_props[SCOPE_KEY] = scope
        node.doc_string = None
        objects += node.outputs
    for item in objects:
        item.metadata_props.clear()


def _scope_of(name_scopes: str) -> str:
    """``"['', 'stage1.0', 'conv2d']"`` -> ``stage1.0``: all but the operator, innermost."""
    try:
        scopes = ast.literal_eval(name_scopes)
    except (ValueError, SyntaxError):
        return ""
    return str(scopes[-2]) if len(scopes) >= 2 else ""
