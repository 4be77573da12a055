"""The trained networks of the examples in 8 bits, and how well they classify pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import flatfold
from examples import digits, photographs
from flatfold.proof.network.session import PlainSession
from flatfold.result import Optimized

PHOTOGRAPHS = "photographs"
RUNS = 64  # pictures of the training that ranges are seen on, as many as flatfold takes

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Pictures that the training has not seen, what they are, and some that it has seen."""

    pictures: Array
    labels: npt.NDArray[np.int64]
    seen: Array


@cache
def data(name: str) -> Data:
    if name == PHOTOGRAPHS:
        pictures, labels = photographs.held_out()
        seen, _ = photographs.pieces(RUNS, held_out=False, seed=2)
        return Data(pictures.numpy(), labels.numpy(), seen.numpy())
    pictures, labels = digits.digits()
    kept = digits.held_out(len(labels))
    return Data(pictures[kept].numpy(), labels[kept].numpy(), pictures[~kept][:RUNS].numpy())


@cache
def in_8_bits(name: str, target: str) -> Optimized:
    """The network quantized for `target`, by what its values are on pictures of the training."""
    module = photographs.stored() if name == PHOTOGRAPHS else digits.stored(name)
    return flatfold.optimize(
        module,
        input_shape=data(name).pictures.shape[1:],
        dynamic_batch=True,
        target=target,
        precision="int8",
        calibration=data(name).seen,
        verify="off",
    )


def feeds_of(model: ir.Model, pictures: Array) -> Mapping[str, Any]:
    return {model.graph.inputs[0].name or "": pictures}


def scores(model: ir.Model, pictures: Array) -> Array:
    """What ONNX Runtime computes with optimisation off: [pictures, classes]."""
    (found,) = PlainSession(model)(feeds_of(model, pictures))
    return found


def accuracy(found: Array, labels: npt.NDArray[np.int64]) -> float:
    """Of 100 pictures, how many are classified right."""
    return 100 * float(np.mean(found.argmax(1) == labels))


def agreement(found: Array, other: Array) -> float:
    """Of 100 pictures, how many have the same largest score."""
    return 100 * float(np.mean(found.argmax(1) == other.argmax(1)))


def decibels(exact: Array, other: Array) -> float:
    """10 log10 of the power of `exact` over that of the difference."""
    exact = exact.astype(np.float64)
    noise = float(np.square(exact - other).sum())
    return 10 * np.log10(float(np.square(exact).sum()) / noise) if noise else np.inf
