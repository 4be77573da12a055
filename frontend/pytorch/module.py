"""The module itself in float64: what every graph made from it is measured against."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flatfold.errors import InputError

if TYPE_CHECKING:
    from torch import nn


Arrays = Mapping[str, npt.NDArray[Any]]


def float64_reference(
    module: nn.Module, inputs: Sequence[str]
) -> Callable[[Arrays], list[npt.NDArray[Any]]]:
    """A function from feeds to outputs, in the order of the exported graph; float64 throughout.

    `inputs` are the graph's input names in order. The caller's module is copied, never touched.
    """
    import torch
    from torch.utils import _pytree

    double = copy.deepcopy(module).to("cpu").double().eval()
    named = set(inputs) <= set(inspect.signature(double.forward).parameters)

    def run(feeds: Arrays) -> list[npt.NDArray[Any]]:
        tensors = {name: _tensor(feeds[name]) for name in inputs}
        with torch.no_grad():
            out = double(**tensors) if named else double(*tensors.values())
        return [np.asarray(y.detach()) for y in _pytree.tree_leaves(out)]

    def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        array = array.astype(np.float64) if array.dtype.kind == "f" else array
        return torch.from_numpy(np.ascontiguousarray(array))

    return run


Array = npt.NDArray[Any]
_WARMUP = 5  # runs before those that are profiled


def store_module(module: nn.Module, path: Path) -> None:
    """Writes `module` for another process of this user. Raises InputError where it cannot be."""
    import torch

    try:
        torch.save(module, path)
    except Exception as error:  # whatever a pickle of the caller's own classes raises
        text = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the module cannot be handed to another process: {text}",
            hint="define its classes in a module of their own",
        ) from error


class RunningModule:
    """The module stored at `path` as something that runs on arrays, in inference mode.

    `inputs` and `outputs` are names of the exported graph, in order. With `compiled`, the first run
    of each size compiles. `precision` is that of the graph, which torch keeps on a CPU unless told
    otherwise.
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

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name."""
        from torch.utils import _pytree

        leaves = _pytree.tree_leaves(self.bind(feeds)())
        return {name: np.asarray(y) for name, y in zip(self.outputs, leaves, strict=True)}

    def operators(self, feeds: Mapping[str, Array], runs: int) -> tuple[float, dict[str, float]]:
        """The seconds of a run with torch's profiler on, and those inside each operator, by name.

        Means. What operators of one name take is added up.
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
        found: dict[str, float] = {}
        for event in sorted(profiler.events(), key=lambda event: event.time_range.start):
            spent = event.self_cpu_time_total * 1e-6 / runs
            found[event.name] = found.get(event.name, 0.0) + spent
        return seconds, found

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], Any]:
        """A call that runs on these feeds, as tensors made once."""
        import torch

        tensors = {n: torch.from_numpy(np.ascontiguousarray(feeds[n])) for n in self.inputs}
        given: dict[str, Any] = tensors if self.named else {}
        ordered = () if self.named else tuple(tensors.values())

        def run() -> Any:
            with torch.inference_mode():
                return self.call(*ordered, **given)

        return run
