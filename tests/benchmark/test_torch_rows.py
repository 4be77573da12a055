"""PyTorch itself as a row, in processes of its own; and what cannot be handed to one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import flatfold
from flatfold.benchmark.candidates.candidates import Candidate, Candidates
from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.process import Process
from flatfold.sources import resolve
from flatfold.system.progress import silent


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*layers).eval()


def candidates(module: nn.Module, folder: Path) -> list[Candidate]:
    """The training graph, eager, and flatfold's graph."""
    feeds = folder / "feeds.npz"
    arrays.store(feeds, {"input": np.ones((1, 3, 16, 16), np.float32)})
    source, common = resolve(module, input_shape=(3, 16, 16)), Job("", "", 1, (0,), str(feeds))
    return Candidates(source, common, {"ort-cpu": {}}, folder, silent).all(["eager"], "off")


def test_eager_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    module = net()
    _, eager, _ = candidates(module, tmp_path)
    assert eager.job is not None and eager.row.name == "eager torch"
    process = Process(eager.job, tmp_path)
    try:
        assert process.start().precision == "fp32"
        assert len(process.block(3)) == 3
        x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
        (output,) = process.run({"input": x}).values()
    finally:
        process.close()
    np.testing.assert_array_equal(output, module(torch.from_numpy(x)).detach().numpy())


def test_a_module_that_no_other_process_can_read_is_a_row_with_its_reason(tmp_path: Path) -> None:
    class Local(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu()

    training, eager, ours = candidates(Local(), tmp_path)
    assert eager.job is None and "another process" in eager.row.reason
    assert training.job is not None and ours.job is not None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_both_forms_of_pytorch_are_rows_like_any_other() -> None:
    against = ["eager", "torch.compile"]
    report = flatfold.compare(
        net(), "ort-cpu", against=against, rounds=6, budget_s=0, input_shape=(3, 16, 16)
    )
    (model,) = report.models
    assert [row.variant for row in model.rows] == ["training", *against, "flatfold"]
    assert all(row.ranked and row.precision == "fp32" for row in model.rows), model.rows
    assert model.pair("flatfold ort-cpu", "eager torch") is not None
    assert model.rounds == 6
