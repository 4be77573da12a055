"""The module itself in float64: what every graph made from it is measured against."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

__all__ = ["float64_reference"]

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
