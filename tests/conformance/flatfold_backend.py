"""`flatfold.optimize` and ONNX Runtime behind the backend interface of ONNX (onnx.backend.base)."""

from __future__ import annotations

from typing import Any

import onnx

import flatfold
from flatfold.result import Optimized
from tests.conformance.ort_backend import OrtBackend, Prepared


class FlatfoldBackend(OrtBackend):
    """`flatfold.optimize`, then ONNX Runtime."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> Prepared:
        """As `OrtBackend.prepare`; raises what `flatfold.optimize` raises, too."""
        cls._require(device)
        result = cls.optimized(model)
        return Prepared(result.model, result)

    @classmethod
    def optimized(cls, model: onnx.ModelProto) -> Optimized:
        """`model` rewritten, without the proof; `prepare` runs the model in the result."""
        return flatfold.optimize(model, verify="off", target="ort-cpu")
