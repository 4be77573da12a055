"""`resolve`: a module, file, name or proto as a `Source`, the model that the pipeline takes."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.frontend.loading.external_data import MAX_WEIGHTS, Allowed
from flatfold.frontend.loading.load import from_proto, read_model
from flatfold.frontend.loading.tensors import own_tensors
from flatfold.frontend.pytorch.export import export_module
from flatfold.frontend.pytorch.weights import load_weights

if TYPE_CHECKING:
    from torch import nn

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FORMS = "expected an nn.Module, an .onnx file, 'timm:NAME', 'package.module:factory' or a proto"


@dataclass(frozen=True)
class Source:
    """A model to compile: its graph as exported, and the module behind it if there is one."""

    name: str
    model: ir.Model
    module: nn.Module | None = None


def resolve(
    model: Any,
    *,
    name: str = "",
    input_shape: Sequence[int] | None = None,
    example_inputs: Any = None,
    dynamic_batch: bool = False,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    renames: Sequence[tuple[str, str | None]] = (),
    max_weights: float = MAX_WEIGHTS,
    links_inside: str | os.PathLike[str] | None = None,
) -> Source:
    """Read, build or export `model`; the caller's object is never modified.

    `model` is an nn.Module, the path of an ``.onnx`` file, an onnx.ModelProto, an onnx_ir.Model,
    ``timm:NAME`` or ``package.module:factory`` (a callable that returns a module; the current
    folder is importable). `name` replaces the name derived from it. A file may have `max_weights`
    GiB of weights, and keep them behind symbolic links to files below `links_inside`. The other
    options apply to modules only and are those of `export_module` and `load_weights`. A module
    given by the caller is copied before weights are loaded. Raises `InputError` or `ExportError`.
    """
    module, default_name = _module_of(model)
    if module is None:
        options = {"input_shape": input_shape, "example_inputs": example_inputs}
        options |= {"dynamic_batch": dynamic_batch or None, "weights": weights}
        _refuse_options(options)
        links = None if links_inside is None else Path(links_inside)
        graph, default_name = _graph_of(model, Allowed(max_weights, links))
        return Source(name or default_name, graph)
    if weights is not None:
        module = copy.deepcopy(module) if module is model else module
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
        return model, type(model).__name__
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
    import onnx

    if isinstance(model, onnx.ModelProto):
        return from_proto(model), model.graph.name or "model"
    raise InputError(f"{_FORMS}, found {type(model).__name__}", hint="pass one of these")


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
