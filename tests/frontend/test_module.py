"""A stored module computes in another process what it computes here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flatfold.errors import InputError
from flatfold.frontend.pytorch.module import RunningModule, store_module


class TwoIn(nn.Module):
    """Both outputs depend on which input is which."""

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return left - right, (left + 2 * right).relu()


def running(
    module: nn.Module, folder: Path, inputs: list[str], outputs: list[str]
) -> RunningModule:
    store_module(module, folder / "module.pt")
    options = {"precision": "fp32", "compiled": False, "threads": torch.get_num_threads()}
    return RunningModule(folder / "module.pt", inputs, outputs, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [["left", "right"], ["x", "y"]])
def test_inputs_are_matched_by_name_or_position(tmp_path: Path, names: list[str]) -> None:
    module = running(TwoIn(), tmp_path, names, ["a", "b"])
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((2, 3)).astype(np.float32) for _ in range(2))
    outputs = module.run(dict(zip(reversed(names), (right, left), strict=True)))
    assert list(outputs) == ["a", "b"]
    np.testing.assert_array_equal(outputs["a"], left - right)
    np.testing.assert_array_equal(outputs["b"], np.maximum(left + 2 * right, 0))


def test_it_runs_in_eval_mode_and_keeps_its_precision(tmp_path: Path) -> None:
    module = running(nn.Sequential(nn.Dropout(0.5)).train(), tmp_path, ["x"], ["y"])
    x = np.ones((4, 100), np.float32)
    np.testing.assert_array_equal(module.run({"x": x})["y"], x)
    assert (module.precision, module.layers) == ("fp32", None)


def test_a_module_that_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(InputError, match="another process") as caught:
        store_module(Local(), tmp_path / "module.pt")
    assert "importable module" in caught.value.hint
