"""A model as a file with a separate file of weights: both are replaced, or neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flatfold.backends.store import model_file
from flatfold.backends.store.model_file import save_model
from flatfold.errors import OutputError
from flatfold.frontend import read_model
from tests.backends.small_nets import make_model, weights


@pytest.mark.parametrize("large", [False, True])
def test_saved_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr(model_file, "EXTERNAL_ABOVE", 100)
    path = tmp_path / "net.onnx"
    for seed in (0, 1):  # the second one over the first
        save_model(make_model(seed), path)
        names = ["net.onnx", "net.onnx.data"] if large else ["net.onnx"]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == names
        weight = read_model(path).graph.initializers["weight"].const_value
        assert weight is not None
        np.testing.assert_array_equal(weight.numpy(), weights(seed, 16)[0])


def test_what_was_there_stays_when_saving_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    save_model(make_model(0), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(make_model(1), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="No such file"):
        save_model(make_model(1), tmp_path / "nowhere" / "net.onnx")
