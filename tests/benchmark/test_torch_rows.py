"""PyTorch itself as a row, in processes of its own; and what cannot be handed to one."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

import flatfold
from flatfold.benchmark.session import report_on
from flatfold.sources import resolve
from tests.benchmark import made


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*layers).eval()


def test_eager_is_a_row_like_any_other() -> None:
    report = report_on(
        [lambda: resolve(net(), input_shape=(3, 16, 16))],
        ["ort-cpu"],
        against=["eager"],
        threads=1,
        plan=made.QUICK,
    )
    (model,) = report.models
    assert [row.variant for row in model.rows] == ["training", "eager", "flatfold"]
    assert all(row.ranked and row.precision == "fp32" for row in model.rows), model.rows
    assert model.pair("flatfold ort-cpu", "eager torch") is not None
    assert model.rounds == 6


def test_a_module_that_no_other_process_can_read_is_a_row_with_its_reason() -> None:
    class Local(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu()

    report = flatfold.compare(
        Local(), "ort-cpu", against=["eager"], rounds=6, budget_s=0, input_shape=(3, 16, 16)
    )
    row = report.models[0].row("eager torch")
    assert row is not None and "another process" in row.reason and row.latency is None
    assert report.models[0].row("flatfold ort-cpu") in report.models[0].ranking()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_torch_compile_is_a_row_like_any_other() -> None:
    report = flatfold.compare(
        net(), "ort-cpu", against=["torch.compile"], rounds=6, budget_s=0, input_shape=(3, 16, 16)
    )
    row = report.models[0].row("torch.compile torch")
    assert row is not None and row.ranked, row
