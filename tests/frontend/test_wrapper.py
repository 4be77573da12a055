"""Modules in wrappers, with hooks, traced or exported, and with containers of tensors."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import flatfold
from flatfold.errors import ExportError
from flatfold.frontend import resolve
from flatfold.frontend.pytorch.wrapper import copy_of
from tests.frontend.execution import run

IMAGE = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))


def normed() -> nn.Module:
    """A convolution and a norm with statistics that training could have left."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm).eval()


class Nested(nn.Module):
    """Takes and returns mappings; the difference tells its inputs apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = normed()

    def forward(self, batch: dict[str, Any], scale: Tensor) -> dict[str, Any]:
        first, second = batch["pair"]
        found = self.layers(batch["image"]) + first - 3 * second
        return {"found": found, "more": [found * scale, first.relu()]}


def names(values: Any) -> list[str]:
    return [value.name for value in values]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_the_module_inside_a_wrapper_is_exported(wrap: Any) -> None:
    source = resolve(wrap(normed()), example_inputs=(IMAGE,))
    assert type(source.module) is nn.Sequential and source.name == "Sequential"
    assert names(source.model.graph.inputs) == ["input"]


@pytest.mark.parametrize("form", [lambda m: torch.jit.trace(m, IMAGE), torch.jit.script])
def test_a_traced_or_scripted_module_is_refused_with_what_to_pass(form: Any) -> None:
    with pytest.raises(ExportError, match="traced or scripted") as raised:
        flatfold.optimize(form(normed()), example_inputs=(IMAGE,))
    assert "nn.Module" in raised.value.hint and "ONNX" in raised.value.hint


def hooked() -> nn.Module:
    layers = normed()
    torch.nn.utils.weight_norm(layers[0])
    layers.append(torch.nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)))
    return layers.eval()


def test_hooks_that_compute_weights() -> None:
    module = hooked()
    result = flatfold.optimize(module, example_inputs=(IMAGE,))
    assert result.equivalence.passed
    assert result.equivalence.reference == "the module in float64"
    assert result.after.operators == {"Conv": 1}


def test_a_copy_of_a_module_with_hooks_has_weights_of_its_own() -> None:
    module = hooked()
    with torch.no_grad():
        before, twin = module(IMAGE), copy_of(module)
        module[0].weight_g.mul_(2)
        torch.testing.assert_close(twin(IMAGE), before, rtol=0, atol=0)
        assert not torch.equal(module(IMAGE), before)


def test_mappings_of_inputs_and_outputs_give_their_keys_as_names() -> None:
    arguments = ({"image": IMAGE, "pair": (IMAGE + 1, IMAGE * 2)}, torch.tensor([2.0]))
    module = Nested().eval()
    result = flatfold.optimize(module, example_inputs=arguments)
    assert result.equivalence.passed
    assert result.equivalence.reference == "the module in float64"
    assert names(result.model.graph.input) == ["image", "pair_0", "pair_1", "scale"]
    assert names(result.model.graph.output) == ["found", "more_0", "more_1"]
    assert "BatchNormalization" not in result.after.operators


def test_keys_that_do_not_tell_inputs_apart_follow_the_argument() -> None:
    class Two(nn.Module):
        def forward(self, left: dict[str, Tensor], right: dict[str, Tensor]) -> Tensor:
            return left["x"] - 2 * right["x"]

    source = resolve(Two(), example_inputs=({"x": IMAGE}, {"x": IMAGE}))
    assert names(source.model.graph.inputs) == ["left_x", "right_x"]
    feeds = {"left_x": IMAGE.numpy() + 1, "right_x": IMAGE.numpy()}
    expected = feeds["left_x"] - 2 * feeds["right_x"]
    assert (run(source.model, feeds)[0] == expected).all()


def test_an_exported_program() -> None:
    module = normed()
    batch = torch.export.Dim("batch")
    shapes: Any = ({0: batch},)
    program = torch.export.export(module, (IMAGE,), dynamic_shapes=shapes)
    result = flatfold.optimize(program)
    assert result.after.operators == {"Conv": 1} and result.equivalence.passed
    for size in (1, 5):
        image = torch.randn(size, 4, 6, 5, generator=torch.Generator().manual_seed(size))
        found = run(ir.from_proto(result.model), {"input": image.numpy()})[0]
        expected = module.double()(image.double()).detach().float()
        # 36 products of at most 1: each rounds once, and so do the weights and the norm
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=64 * 2**-22)
        module.float()
