"""The ways of the exporters to write a module, and what flatfold makes of each."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx
import torch
from torch import nn

import flatfold
from flatfold.models.initialise import initialise

EXPORTERS = ("new", "legacy", "legacy folding")
BATCHES = ("static", "dynamic")
WAYS = tuple(f"{exporter}, {batch}" for exporter in EXPORTERS for batch in BATCHES)
SMALL, WIDE = 8, 64


@dataclass(frozen=True)
class Case:
    """A block in its training form, and the operators that are left of it.

    `make` takes the number of channels. `maps` holds the size of the input for each of them.
    `exporters` are those that can write the block, `batches` what they can leave open.
    """

    make: Callable[[int], nn.Module]
    after: Mapping[str, int]  # at WIDE
    maps: Mapping[int, tuple[int, ...]] = field(
        default_factory=lambda: {SMALL: (9, 10), WIDE: (28, 28)}
    )
    exporters: tuple[str, ...] = EXPORTERS
    batches: tuple[str, ...] = BATCHES
    small: Mapping[str, int] | None = None  # at SMALL, where nodes cost more than arithmetic
    verdict: str = "certified"  # "bounded" where the graph holds a number that was rounded

    def shape(self, channels: int) -> tuple[int, ...]:
        return (channels, *self.maps[channels])


def made(case: Case, channels: int) -> nn.Module:
    module = case.make(channels).eval()
    initialise(module, seed=3)
    return module


def legacy(
    module: nn.Module, shape: tuple[int, ...], folding: bool, dynamic: bool, opset: int = 20
) -> onnx.ModelProto:
    """What the exporter by tracing writes."""
    buffer = io.BytesIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)),),
                buffer,
                dynamo=False,
                do_constant_folding=folding,
                input_names=["x"],
                dynamic_axes={"x": {0: "n"}} if dynamic else None,
                opset_version=opset,
            )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load_from_string(buffer.getvalue())


def optimized(case: Case, channels: int, way: str) -> flatfold.Optimized:
    """The block with that many channels, exported in one of WAYS."""
    exporter, batch = way.split(", ")
    module, shape, dynamic = made(case, channels), case.shape(channels), batch == "dynamic"
    if exporter == "new":
        example = torch.zeros(2, *shape)
        return flatfold.optimize(module, example_inputs=example, dynamic_batch=dynamic)
    return flatfold.optimize(legacy(module, shape, exporter == "legacy folding", dynamic))


def operators(done: flatfold.Optimized) -> Counter[str]:
    """Counts by operator; the two names of the mean over a map are one, and of flattening."""
    found = Counter(done.after.operators)
    for name, other in (("GlobalAveragePool", "ReduceMean"), ("Flatten", "Reshape")):
        found[other] += found.pop(name, 0)
    return Counter({name: count for name, count in found.items() if count})
