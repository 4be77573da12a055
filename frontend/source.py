"""`resolve`: a module, file, name or proto as a `Source`, the model that the pipeline takes."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.frontend.loading.external_data import MAX_WEIGHTS, Allowed
from flatfold.frontend.loading.load import from_proto, read_model
from flatfold.frontend.loading.tensors import own_tensors
from flatfold.frontend.pytorch.export import export_module, export_program
from flatfold.frontend.pytorch.weights import load_weights
from flatfold.frontend.pytorch.wrapper import copy_of, is_exported_program, unwrapped

if TYPE_CHECKING:
    from torch import nn

InputShape = Sequence[Any] | Mapping[str, Sequence[Any]]

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FORMS = (
    "expected an nn.Module, an ExportedProgram, an .onnx file, 'timm:NAME', "
    "'package.module:factory' or a proto"
)


@dataclass(frozen=True)
class Source:
    """A model to compile: its graph as exported, and the module behind it if there is one.

    `shapes` are those of inputs that the caller asked to be run with, None where a size is left
    open: axes that are open in the graph have these sizes in the proof and when it is timed.
    """

    name: str
    model: ir.Model
    module: nn.Module | None = None
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def resolve(
    model: Any,
    *,
    name: str = "",
    input_shape: InputShape | None = None,
    example_inputs: Any = None,
    dynamic_batch: bool = False,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    renames: Sequence[tuple[str, str | None]] = (),
    max_weights: float = MAX_WEIGHTS,
    links_inside: str | os.PathLike[str] | None = None,
    constant_defaults: bool = False,
) -> Source:
    """Read, build or export `model`; the caller's object is never modified.

    `model` is an nn.Module, a torch.export.ExportedProgram, the path of an ``.onnx`` file, an
    onnx.ModelProto, an onnx_ir.Model, ``timm:NAME`` or ``package.module:factory`` (a callable that
    returns a module; the current folder is importable). `name` replaces the name derived from it. A
    file may have `max_weights` GiB of weights, and keep them behind symbolic links to files below
    `links_inside`; with `constant_defaults` its inputs that have default values become constants,
    which no caller can set any more. For a module the other options are those of `export_module`
    and `load_weights`; it is copied before weights are loaded. For a graph, `input_shape` and
    `example_inputs` say with which sizes it is run, see `shapes_asked_for`.
    Raises `InputError` or `ExportError`.
    """
    module, default_name = _module_of(model)
    if module is None:
        _refuse_options({"dynamic_batch": dynamic_batch or None, "weights": weights})
        links = None if links_inside is None else Path(links_inside)
        graph, default_name = _graph_of(model, Allowed(max_weights, links))
        if constant_defaults:
            _keep_only_required_inputs(graph)
        shapes = shapes_asked_for(graph, input_shape, example_inputs)
        return Source(name or default_name, graph, shapes=shapes)
    if weights is not None:
        module = module if isinstance(model, str) else copy_of(module)
        load_weights(module, weights, renames)
    if input_shape is None and example_inputs is None:
        input_shape = _preferred_shape(module)
    graph = export_module(
        module,
        example_inputs=example_inputs,
        input_shape=input_shape,
        dynamic_batch=dynamic_batch,
    )
    return Source(name or default_name, graph, module)


def _module_of(model: Any) -> tuple[nn.Module | None, str]:
    torch = sys.modules.get("torch")  # a caller that has a module has imported torch
    if torch is not None and isinstance(model, torch.nn.Module):
        module = unwrapped(model)
        return module, type(module).__name__
    if isinstance(model, str) and model.startswith("timm:"):
        name = model.removeprefix("timm:")
        return _seeded(lambda: _timm_model(name), model), name
    if isinstance(model, str) and _FACTORY.fullmatch(model) and not os.path.exists(model):
        factory = _attribute(model)
        return _seeded(factory, model), model.partition(":")[2]
    return None, ""


def _graph_of(model: Any, allowed: Allowed) -> tuple[ir.Model, str]:
    if isinstance(model, ir.Model):
        clone = model.clone()
        own_tensors(clone)
        return clone, model.graph.name or "model"
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if path.suffix.lower() != ".onnx" and not os.path.exists(path):
            raise InputError(f"{_FORMS}, found {str(model)!r}", hint="check the name or the path")
        return read_model(path, allowed), path.stem
    if is_exported_program(model):
        return export_program(model), "program"
    import onnx

    if isinstance(model, onnx.ModelProto):
        return from_proto(model), model.graph.name or "model"
    raise InputError(f"{_FORMS}, found {type(model).__name__}", hint="pass one of these")


def _keep_only_required_inputs(model: ir.Model) -> None:
    required = [value for value in model.graph.inputs if not value.is_initializer()]
    model.graph.inputs.clear()
    model.graph.inputs.extend(required)


def shapes_asked_for(
    model: ir.Model, input_shape: InputShape | None, example_inputs: Any = None
) -> dict[str, tuple[int | None, ...]]:
    """The shape of each input of a graph that the caller asks for, by name.

    `input_shape` is a mapping by name, or the shape of every input that has open axes. A size that
    is None stays open, and an ellipsis stands for any number of those. A shape with one size less
    than the input has lacks the batch. `example_inputs`: arrays by name or position, whose shapes
    are taken. Raises InputError for a name or a shape that the graph does not have.
    """
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if example_inputs is not None:
        if not isinstance(example_inputs, Mapping | list | tuple):
            example_inputs = (example_inputs,)
        if not isinstance(example_inputs, Mapping):
            names = (value.name for value in inputs)
            example_inputs = dict(zip(names, example_inputs, strict=False))
        input_shape = {name: np.shape(array) for name, array in example_inputs.items()}
    if input_shape is None:
        return {}
    if not isinstance(input_shape, Mapping):
        asked = tuple(input_shape)
        several = [v for v in inputs if len(inputs) == 1 or _has_open_axes(v, asked)]
        return {str(value.name): _aligned(value, asked) for value in several}
    by_name = {str(value.name): value for value in inputs}
    for name in input_shape:
        if name not in by_name:
            raise InputError(f"the model has no input {name!r}", hint=_suggestion(name, [*by_name]))
    return {name: _aligned(by_name[name], tuple(shape)) for name, shape in input_shape.items()}


def _has_open_axes(value: ir.Value, asked: Sequence[Any]) -> bool:
    """Whether `value` has open axes, and enough of them all for what is asked for."""
    dims = value.shape.dims if value.shape is not None else (None,) * len(asked)
    return any(not isinstance(dim, int) for dim in dims) and len(dims) >= len(asked) - 1


def _aligned(value: ir.Value, asked: tuple[Any, ...]) -> tuple[int | None, ...]:
    """`asked` with a size or None for each axis. Raises InputError if it does not fit."""
    rank = value.shape.rank() if value.shape is not None else len(asked)
    if ... in asked:
        at = asked.index(...)
        asked = (*asked[:at], *(None,) * (rank - len(asked) + 1), *asked[at + 1 :])
    elif len(asked) == rank - 1:
        asked = (None, *asked)
    if len(asked) != rank:
        raise InputError(
            f"input {value.name!r} has {rank} axes, not {len(asked)}: its shape is {value.shape}",
            hint="give a size for each axis, as in --shape NAME:1x3x320x320",
        )
    dims = value.shape.dims if value.shape is not None else asked
    for axis, (wanted, size) in enumerate(zip(asked, dims, strict=True)):
        if isinstance(size, int) and wanted not in (None, size):
            raise InputError(
                f"input {value.name!r} has a fixed size of {size} on axis {axis}, not {wanted}",
                hint="leave batch and size out, or export the model again",
            )
    return tuple(None if size is None else int(size) for size in asked)


def _refuse_options(options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if value is not None:
            raise InputError(
                f"{option} applies to PyTorch modules; an ONNX model has its own",
                hint=f"leave {option} out, or pass the module",
            )


def _seeded(factory: Callable[[], Any], where: str) -> nn.Module:
    """Call `factory` with torch's random state fixed, so that two runs give the same weights."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]), _importable_here():
            torch.manual_seed(0)
            module = factory if isinstance(factory, torch.nn.Module) else factory()
    except InputError:
        raise
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise InputError(
            f"cannot build: {type(error).__name__}: {text}",
            where=where,
            hint="call it in Python to see the whole error",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"expected an nn.Module, found {type(module).__name__}",
            where=where,
            hint="name a function that takes no arguments and returns a module",
        )
    return module


def _timm_model(name: str) -> Any:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise InputError(f"timm is not installed: {error}", hint="pip install timm") from error
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise InputError(f"timm has no model {name!r}", hint=_suggestion(name, known))
    return timm.create_model(name, pretrained=False)


def _attribute(reference: str) -> Any:
    """The object that ``package.module:attribute`` names."""
    module_name, _, attribute = reference.partition(":")
    try:
        with _importable_here():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parent = (error.name or module_name).rpartition(".")[0]
        hint = _suggestion(error.name or module_name, _modules_below(parent))
        raise InputError(f"cannot import: {error}", where=reference, hint=hint) from error
    except Exception as error:
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(
            f"cannot import {module_name}: {text}",
            where=reference,
            hint="import it in Python to see the whole error",
        ) from error
    if not hasattr(module, attribute):
        raise InputError(
            f"module {module_name} has no {attribute!r}",
            where=reference,
            hint=_suggestion(attribute, dir(module)),
        )
    return getattr(module, attribute)


@contextlib.contextmanager
def _importable_here() -> Iterator[None]:
    """The current folder comes first on the import path, as it does for ``python -m``."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _modules_below(package: str) -> list[str]:
    if not package:
        with _importable_here():
            return [module.name for module in pkgutil.iter_modules()]
    path = getattr(sys.modules.get(package), "__path__", [])
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]


def _suggestion(name: str, known: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(similar)}?" if similar else "check the spelling"


def _preferred_shape(module: nn.Module) -> Sequence[int] | None:
    """The input size in the configuration of a timm model."""
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, Mapping) else None
    return tuple(size) if size else None
