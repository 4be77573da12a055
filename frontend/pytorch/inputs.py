"""Example inputs, with which a module is traced for export."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flatfold.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


BATCH = "batch"
"""Name of the symbolic batch size."""


@dataclass(frozen=True)
class Example:
    """Arguments of ``forward``, and which of their axes have symbolic sizes (None: none has)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None


STRUCTURE = "flatfold.structure"
"""Key in the `meta` of an exported graph: the `Structure` of its inputs, where they have one."""


@dataclass(frozen=True)
class Structure:
    """Arguments of ``forward`` with containers in them; the leaves are tensors, or fixed."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example: Example) -> Structure | None:
        """The structure of an example; None where every argument is a tensor or a number."""
        arguments = (*example.args, *example.kwargs.values())
        nested = any(isinstance(value, Mapping | list | tuple) for value in arguments)
        return cls(example.args, example.kwargs) if nested else None

    def names(self) -> list[str]:
        """A name for each tensor, of the keys and positions on the way to it.

        The name of an argument comes first where its keys alone would not tell two tensors apart.
        """
        paths = [path for path, _ in self._tensors()]
        short = ["_".join(path[1:]) for path in paths]
        full = ["_".join(path) for path in paths]
        keyed = [isinstance(self.kwargs.get(path[0]), Mapping) for path in paths]
        names = [s if use and s else f for s, f, use in zip(short, full, keyed, strict=True)]
        return names if len(set(names)) == len(names) else full

    def filled(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with other tensors, in the order of the graph's inputs.

        Raises ValueError where their number differs.
        """
        import torch

        old = [leaf for _, leaf in self._tensors()]
        new = {id(a): b for a, b in zip(old, tensors, strict=True)}
        filled: tuple[tuple[Any, ...], dict[str, Any]] = torch.utils._pytree.tree_map(
            lambda leaf: new.get(id(leaf), leaf), (self.args, self.kwargs)
        )
        return filled

    def _tensors(self) -> list[tuple[list[str], Any]]:
        import torch

        leaves, _ = torch.utils._pytree.tree_flatten_with_path((self.args, self.kwargs))
        return [
            ([key_text(key) for key in path[1:]], leaf)
            for path, leaf in leaves
            if isinstance(leaf, torch.Tensor)
        ]


def key_text(key: Any) -> str:
    """The key, position or attribute that one step into a container is."""
    for field in ("key", "idx", "name"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)


def full_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """(C, H, W) -> (1, C, H, W); any other shape as it is. Raises `InputError`."""
    shape = tuple(input_shape)
    whole = all(isinstance(size, int | np.integer) and size > 0 for size in shape)
    if not shape or not whole:
        raise InputError(
            f"expected input_shape (C, H, W) or a whole shape of positive integers, found {shape}",
            hint="input_shape=(3, 224, 224), or a shape for each argument by its name",
        )
    return tuple(int(size) for size in ((1, *shape) if len(shape) == 3 else shape))


def example_of(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any] | None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None,
    dynamic_batch: bool,
) -> Example:
    """Example inputs on the module's device, copied; of batch size 2 or more if it is dynamic.

    Raises `InputError` unless exactly one of `example_inputs` and `input_shape` is given and fits.
    """
    import torch

    if (example_inputs is None) == (input_shape is None):
        raise InputError(
            "expected either input_shape or example_inputs, found "
            + ("neither" if input_shape is None else "both"),
            where=type(module).__name__,
            hint="input_shape=(3, 224, 224), or --size 224 on the command line",
        )
    device, dtype = _placement(module)
    if example_inputs is None:
        assert input_shape is not None
        generator = torch.Generator().manual_seed(0)

        def drawn(shape: Sequence[int]) -> Tensor:
            return torch.randn(tuple(shape), generator=generator).to(device, dtype)

        if isinstance(input_shape, Mapping):
            example_inputs = {name: drawn(shape) for name, shape in input_shape.items()}
        else:
            example_inputs = (drawn(full_shape(input_shape)),)
    if isinstance(example_inputs, torch.Tensor | np.ndarray):
        example_inputs = (example_inputs,)
    kwargs = dict(example_inputs) if isinstance(example_inputs, Mapping) else {}
    args = () if kwargs else tuple(example_inputs)

    def prepare(value: Any) -> Any:
        return _prepare(value, device, dynamic_batch)

    args, kwargs = torch.utils._pytree.tree_map(prepare, (args, kwargs))
    arguments = _bind(module, args, kwargs)
    if any(isinstance(value, Mapping) for value in args):
        args, kwargs = _by_name(module, arguments)
    return Example(args, kwargs, _dynamic_shapes(arguments) if dynamic_batch else None)


def _by_name(
    module: nn.Module, arguments: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments by keyword: the exporter takes a last positional mapping for keywords."""
    kinds = {p.kind for p in inspect.signature(module.forward).parameters.values()}
    if kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
        return (), arguments
    raise InputError(
        f"a mapping cannot be passed to {type(module).__name__}.forward, which names no arguments",
        hint="name the arguments of forward",
    )


def _bind(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise InputError(
            f"the inputs do not fit {type(module).__name__}.forward: {error}",
            hint="pass example_inputs with one tensor per argument of forward",
        ) from error


def _placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    import torch

    tensors = [*module.parameters(), *module.buffers()]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return torch.device("cpu"), torch.float32
    return floating[0].device, floating[0].dtype


def _prepare(value: Any, device: torch.device, dynamic_batch: bool) -> Any:
    """A copy of `value` on `device`; the exporter makes one input of a tensor passed twice."""
    import torch

    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().clone().to(device)
    if dynamic_batch and value.ndim > 0 and value.shape[0] == 1:
        value = torch.cat([value, value])  # torch.export fixes a size of 1
    return value


def _dynamic_shapes(arguments: dict[str, Any]) -> dict[str, Any]:
    import torch

    batch = torch.export.Dim(BATCH)

    def axes(value: Any) -> dict[int, Any] | None:
        return {0: batch} if isinstance(value, torch.Tensor) and value.ndim > 0 else None

    shapes: dict[str, Any] = torch.utils._pytree.tree_map(axes, arguments)
    return shapes
