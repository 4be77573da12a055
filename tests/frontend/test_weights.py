"""Weights of files and state dicts into a module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flatfold.errors import InputError
from flatfold.frontend.pytorch.weights import load_weights

State = dict[str, Any]


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        module[1].running_mean.normal_()
    return module


def assert_equal(module: nn.Module, state: State) -> None:
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        prefixed,
        lambda state: {"state_dict": prefixed(state)},
    ],
    ids=["plain", "state_dict", "model", "prefix", "both"],
)
def test_accepted_forms(tmp_path: Path, wrap: Callable[[State], State]) -> None:
    trained = net(1).state_dict()
    torch.save(wrap(trained), tmp_path / "w.pth")
    for weights in (wrap(trained), tmp_path / "w.pth", str(tmp_path / "w.pth")):
        module = net(2)
        load_weights(module, weights)
        assert_equal(module, trained)


def test_safetensors(tmp_path: Path) -> None:
    trained, module = net(1).state_dict(), net(2)
    save_file(trained, tmp_path / "w.safetensors")
    load_weights(module, tmp_path / "w.safetensors")
    assert_equal(module, trained)


def test_batch_counters_may_be_missing() -> None:
    trained, module = net(1).state_dict(), net(2)
    del trained["1.num_batches_tracked"]
    load_weights(module, trained)
    assert torch.equal(module[0].weight, trained["0.weight"])


def test_what_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    module = net(2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trained = net(1).state_dict()
    trained["extra"] = trained.pop("0.bias")
    trained["1.weight"] = torch.ones(5)
    with pytest.raises(InputError) as raised:
        load_weights(module, trained)
    assert raised.value.cause == (
        "the weights do not fit Sequential: missing: 0.bias; unexpected: extra; "
        "wrong shape: 1.weight (expected [4], found [5])"
    )
    assert_equal(module, before)


def test_long_lists_are_cut() -> None:
    with pytest.raises(InputError, match=r"missing: 0.bias, 0.weight, 1.bias and 3 more\n"):
        load_weights(net(0), {})


class Exploit:
    def __reduce__(self) -> Any:
        return print, ("code from a weights file ran",)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"0.weight": Exploit()}, "expected a state dict saved by torch.save"),
        ([torch.ones(1)], "found list"),
        ({"0.weight": 3}, "found dict with other values"),
        (torch.ones(2), "found Tensor"),
    ],
)
def test_other_objects_are_refused(
    tmp_path: Path, content: Any, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=cause) as raised:
        load_weights(net(0), tmp_path / "w.pth")
    assert raised.value.where == str(tmp_path / "w.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_file_missing_or_damaged(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_weights(net(0), tmp_path / name)
    (tmp_path / name).write_bytes(b"no weights in here")
    with pytest.raises(InputError) as raised:
        load_weights(net(0), tmp_path / name)
    assert "\n" not in raised.value.cause


def test_half_precision_weights_are_converted() -> None:
    trained, module = net(1).half().state_dict(), net(2)
    load_weights(module, trained)
    weight: Tensor = module[0].weight
    assert weight.dtype == torch.float32 and torch.equal(weight, trained["0.weight"].float())


RENAMES = ((r"^old\.", "0."), (r"^aux\.", None))


def test_keys_of_other_code_are_renamed_or_left_out() -> None:
    state = net(1).state_dict()
    file = {key.replace("0.", "old.", 1): value for key, value in state.items()}
    assert "old.weight" in file
    module = net(2)
    load_weights(module, file | {"aux.weight": torch.zeros(3)}, RENAMES)
    assert_equal(module, state)


def test_keys_of_the_module_itself_stay() -> None:
    module, state = net(2), net(1).state_dict()
    load_weights(module, state, ((r"^", "x"),))
    assert_equal(module, state)
