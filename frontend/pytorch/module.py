"""Running a PyTorch module itself: in float64 as a reference, and in another process for timing.

float64_reference   the function that every graph made from the module is compared with
store_module        write a module for another process
RunningModule       the module that was stored, run on arrays and profiled
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flatfold.errors import InputError
from flatfold.frontend.pytorch.inputs import Structure
from flatfold.frontend.pytorch.wrapper import copy_of

if TYPE_CHECKING:
    from torch import nn


Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

_WARMUP = 5  # runs before those that are profiled


def float64_reference(
    module: nn.Module, inputs: Sequence[str], structure: Structure | None = None
) -> Callable[[Arrays], list[Array]]:
    """`module` in float64 and eval mode, as a function from feeds to the outputs in their order.

    `inputs` are the exported graph's input names in order, and `structure` says how the tensors
    lie in the arguments of ``forward``; None: each is one. The caller's module is copied.
    """
    import torch
    from torch.utils import _pytree

    double = copy_of(module).to("cpu").double().eval()
    named = set(inputs) <= set(inspect.signature(double.forward).parameters)

    def run(feeds: Arrays) -> list[Array]:
        tensors = {name: _tensor(feeds[name]) for name in inputs}
        with torch.no_grad():
            if structure is not None:
                args, kwargs = structure.filled(list(tensors.values()))
                out = double(*args, **kwargs)
            else:
                out = double(**tensors) if named else double(*tensors.values())
        return [np.asarray(y.detach()) for y in _pytree.tree_leaves(out)]

    def _tensor(array: Array) -> torch.Tensor:
        array = array.astype(np.float64) if array.dtype.kind == "f" else array
        return torch.from_numpy(np.ascontiguousarray(array))

    return run


def store_module(module: nn.Module, path: Path) -> None:
    """Write `module` to `path` for `RunningModule`. Raises `InputError` if it cannot be pickled."""
    import torch

    try:
        torch.save(module, path)
    except Exception as error:  # pickling the caller's classes may raise anything
        text = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the module cannot be handed to another process: {text}",
            hint="define its classes at the top level of an importable module",
        ) from error


class RunningModule:
    """The module stored at `path`, run on arrays in inference mode on `threads` CPU threads.

    `inputs` and `outputs` are names of the exported graph, in order. With `compiled`,
    torch.compile compiles it in the first run of each input size. `precision` is that of the
    graph, which torch keeps on a CPU by default.
    """

    layers = None

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        precision: str,
        compiled: bool,
        threads: int,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        # Written by `store_module` into a folder that only this user may write.
        module = torch.load(path, weights_only=False).eval()
        self.named = set(inputs) <= set(inspect.signature(module.forward).parameters)
        self.call = torch.compile(module) if compiled else module
        self.precision = precision
        self.inputs, self.outputs = list(inputs), list(outputs)

    def run(self, feeds: Arrays) -> dict[str, Array]:
        """The outputs by name."""
        from torch.utils import _pytree

        leaves = _pytree.tree_leaves(self.bind(feeds)())
        return {name: np.asarray(y) for name, y in zip(self.outputs, leaves, strict=True)}

    def operators(self, feeds: Arrays, runs: int) -> tuple[float, dict[str, float]]:
        """Mean seconds of a run under torch's profiler, and mean seconds in each operator, by name.

        Times of operators of one name are added up.
        """
        from torch.profiler import ProfilerActivity, profile

        run = self.bind(feeds)
        for _ in range(_WARMUP):
            run()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            begin = time.perf_counter()
            for _ in range(runs):
                run()
            seconds = (time.perf_counter() - begin) / runs
        by_name: dict[str, float] = {}
        for event in sorted(profiler.events(), key=lambda event: event.time_range.start):
            mean = event.self_cpu_time_total * 1e-6 / runs
            by_name[event.name] = by_name.get(event.name, 0.0) + mean
        return seconds, by_name

    def bind(self, feeds: Arrays) -> Callable[[], Any]:
        """A function that runs the module on `feeds`, which become tensors now, once."""
        import torch

        tensors = {n: torch.from_numpy(np.ascontiguousarray(feeds[n])) for n in self.inputs}
        args = () if self.named else tuple(tensors.values())
        kwargs: dict[str, Any] = tensors if self.named else {}

        def run() -> Any:
            with torch.inference_mode():
                return self.call(*args, **kwargs)

        return run
