"""A small model, and its outputs in float64, computed by shifted products without flatfold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.backends.base import Engine
from flatfold.backends.onnxruntime.cpu import OrtCpu

Array = npt.NDArray[Any]

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 3, 9, 9] image) => (float[batch, CHANNELS, 9, 9] y, float[batch, CHANNELS] mean) {
  conv = Conv <pads = [1, 1, 1, 1]> (image, weight, bias)
  y = Relu (conv)
  pooled = GlobalAveragePool (y)
  mean = Flatten (pooled)
}"""


def make_model(seed: int = 0, channels: int = 16) -> ir.Model:
    """Conv 3x3, Relu, and the mean of it as a second output; the batch is free."""
    weight, bias = weights(seed, channels)
    return ir.from_onnx_text(
        TEXT.replace("CHANNELS", str(channels)),
        initializers=[ir.tensor(weight, name="weight"), ir.tensor(bias, name="bias")],
    )


def weights(seed: int, channels: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    return weight, rng.standard_normal(channels).astype(np.float32)


def image(batch: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((batch, 3, 9, 9)).astype(np.float32)


def reference(x: Array, seed: int = 0, channels: int = 16) -> tuple[Array, Array, float]:
    """The two outputs in float64, with a bound for the float32 rounding error of each element."""
    weight, bias = (array.astype(np.float64) for array in weights(seed, channels))
    y = np.maximum(_conv(x.astype(np.float64), weight, bias), 0)
    magnitude = _conv(np.abs(x).astype(np.float64), np.abs(weight), np.abs(bias)).max()
    # gamma_n * magnitude: 28 terms per output, 81 more in the mean
    return y, y.mean(axis=(2, 3)), float((28 + 82) * 2.0**-24 * magnitude)


def _conv(x: Array, weight: Array, bias: Array) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((len(x), len(weight), 9, 9)) + bias[:, None, None]
    for i, j in np.ndindex(3, 3):
        y += np.einsum("oc,nchw->nohw", weight[:, :, i, j], padded[:, :, i : i + 9, j : j + 9])
    return y


def assert_right(engine: Engine, x: Array) -> None:
    """Asserts that the outputs for `x` are those in float64, up to float32 rounding."""
    y, mean, bound = reference(x)
    found = engine.run({"image": x})
    assert list(found) == ["y", "mean"]
    assert found["y"].dtype == np.float32 and found["y"].shape == y.shape
    assert np.abs(found["y"] - y).max() <= bound
    assert np.abs(found["mean"] - mean).max() <= bound


def build(seed: int = 0) -> Engine:
    engine = OrtCpu().build(make_model(seed), {"intra_threads": 1})
    engine.manifest.update(model="small", remarks=["ü", 1, None], seed=seed)
    return engine


def content(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in sorted(folder.iterdir())}
