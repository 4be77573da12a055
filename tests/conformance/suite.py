"""The backend test suite of ONNX, case by case, through flatfold and past it."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx.backend.base import BackendRep
from onnx.backend.test.runner import Runner

from flatfold.errors import TargetError
from flatfold.passes.pipeline import OLDEST_OPSET
from flatfold.result import Optimized
from tests.conformance.between import TOLERANCE, between_layers, difference
from tests.conformance.flatfold_backend import FlatfoldBackend
from tests.conformance.ort_backend import OrtBackend

PLAIN, THROUGH, BETWEEN = "onnxruntime", "flatfold", "between"
PASS, ERROR, WRONG = "pass", "error", "wrong"

_DOWNLOADED = "OnnxBackendRealModelTest"  # models that are not in the package
_DEVICE = "_cpu"


@dataclass(frozen=True)
class Outcome:
    """What became of one case; all but the first two are of the run through flatfold.

    `read`: `optimize` took the model. `rewritten`: a rewrite applied. `changed`: it has other
    operators than before, for whatever reason. `old`: it is left alone because of its opset.
    """

    verdict: str
    detail: str = ""
    read: bool = False
    rewritten: bool = False
    changed: bool = False
    old: bool = False


class Wrong(AssertionError):
    """The outputs are not those that the case expects."""


class _Runner(Runner):
    @classmethod
    def assert_similar_outputs(cls, *args: Any, **options: Any) -> None:
        try:
            super().assert_similar_outputs(*args, **options)
        except AssertionError as error:
            raise Wrong(str(error)) from error


class _Watched(FlatfoldBackend):
    """Remembers what was made of the last model."""

    result: Optimized | None = None

    @classmethod
    def optimized(cls, model: onnx.ModelProto) -> Optimized:
        cls.result = None
        cls.result = super().optimized(model)
        return cls.result


class _Between(OrtBackend):
    """Runs a model between layers too, with and without flatfold, which must not differ."""

    draws = 1

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> Any:
        return _BetweenLayers(model, cls.draws)


class _BetweenLayers(BackendRep):
    def __init__(self, model: onnx.ModelProto, draws: int) -> None:
        self.model, self.draws = model, draws
        self.alone = OrtBackend.prepare(model)

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        """What the model gives alone. Raises Wrong where flatfold changes it between layers."""
        outputs = self.alone.run(inputs)
        seed = zlib.crc32(self.model.graph.name.encode())
        for draw in range(self.draws):
            made = between_layers(self.model, inputs, outputs, [seed, draw])
            if made is not None:
                _compare(*made)
        return outputs


def _compare(model: onnx.ModelProto, inputs: Sequence[Any]) -> None:
    try:
        expected = OrtBackend.prepare(model).run(inputs)
    except TargetError:
        return  # with a constant there, ONNX Runtime does not take it
    found = _Watched.prepare(model).run(inputs)
    worst = max(map(difference, expected, found), default=0.0)
    if worst > TOLERANCE:
        raise Wrong(f"between layers it differs by {worst:.2g}")


class _Switch(OrtBackend):
    """The suite is loaded once, for a backend; this one is whichever is on."""

    on: type[OrtBackend] = OrtBackend

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> Any:
        return cls.on.prepare(model, device, **options)


class Suite:
    """The cases for the CPU whose names have `pattern` in them; each `draws` times between layers,
    of which the last one tells what was done."""

    def __init__(self, pattern: str = "", draws: int = 1) -> None:
        _Between.draws = draws
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of overflows, while the expected outputs are made
            groups = _Runner(_Switch).test_cases
        self._cases: dict[str, Callable[[], None]] = {}
        for group, kind in groups.items():
            for name in sorted(vars(kind)):
                short = name.removesuffix(_DEVICE)
                if group == _DOWNLOADED or short == name or not re.search(pattern, short):
                    continue
                self._cases[short] = getattr(kind(name), name)
        self.names = tuple(self._cases)

    def run(self, task: tuple[str, str]) -> Outcome:
        """The outcome of a case (its name), on PLAIN, THROUGH or BETWEEN."""
        name, backend = task
        _Switch.on = {PLAIN: OrtBackend, THROUGH: _Watched, BETWEEN: _Between}[backend]
        _Watched.result = None
        verdict, detail = PASS, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._cases[name]()
        except Wrong as error:
            verdict, detail = WRONG, _line(error)
        except Exception as error:
            verdict, detail = ERROR, f"{type(error).__name__}: {_line(error)}"
        return _with_result(verdict, detail, _Watched.result)


def _with_result(verdict: str, detail: str, result: Optimized | None) -> Outcome:
    if result is None:
        return Outcome(verdict, detail)
    models = (result.original, result.graph)
    before, after = ([(node.domain, node.op_type) for node in m.graph] for m in models)
    return Outcome(
        verdict,
        detail,
        read=True,
        rewritten=any(remark.applied for remark in result.remarks),
        changed=before != after,
        old=0 < result.original.opset_imports.get("", 0) < OLDEST_OPSET,
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
