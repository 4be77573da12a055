"""Export of modules: the graph, its names, the module left unchanged, and errors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from flatfold.errors import ExportError, InputError
from flatfold.frontend.pytorch.export import SCOPE_KEY, export_module
from tests.frontend.execution import counts, run


class Net(nn.Module):
    """Conv, BN and dropout, with a hook, a frozen weight and a layer kept in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.frozen = nn.BatchNorm2d(4).eval()
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.conv.weight.requires_grad_(False)
        self.register_forward_hook(lambda module, args, result: result * 2)

    def train(self, mode: bool = True) -> Net:
        raise AssertionError("export must not call train()")

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.drop(self.norm(self.frozen(self.conv(image))))
        return y


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Pair(nn.Module):
    def forward(self, x: Tensor, output_0: Tensor, scale: Tensor | None = None) -> Any:
        total = x - output_0
        return total, [total, x], x * scale if scale is not None else x + 1


def state(module: nn.Module) -> Any:
    bits = {key: value.clone() for key, value in module.state_dict().items()}
    layers = {
        name: (layer.training, sorted(layer.__dict__), len(layer._forward_hooks))
        for name, layer in module.named_modules()
    }
    grads = {name: p.requires_grad for name, p in module.named_parameters()}
    return bits, layers, grads


def assert_same_state(before: Any, after: Any) -> None:
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(value, after[0][key]) for key, value in before[0].items())


def names(values: Any) -> list[str]:
    return [value.name for value in values]


def test_module_in_train_mode_is_exported_in_eval_mode_and_not_changed() -> None:
    module = Net()
    before = state(module)
    model = export_module(module, input_shape=(3, 8, 8))
    assert_same_state(before, state(module))
    x = torch.randn(1, 3, 8, 8)
    for layer in module.modules():
        layer.training = False
    assert names(model.graph.inputs) == ["image"] and names(model.graph.outputs) == ["output"]
    found, expected = run(model, {"image": x.numpy()})[0], module(x).detach().numpy()
    bound = (3 * 9 + 2 * 4) * 2.0**-24 * np.abs(expected).max()  # 27 products and two norms
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def test_module_is_not_changed_when_the_export_fails() -> None:
    module = Net()
    before = state(module)
    with pytest.raises(ExportError):
        export_module(module, input_shape=(5, 8, 8))
    assert_same_state(before, state(module))


def test_exporter_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_module(nn.Conv2d(3, 4, 1), input_shape=(3, 8, 8))
    with pytest.raises(ExportError):
        export_module(Lambda(lambda x: x if x.sum() > 0 else -x), input_shape=(3, 8, 8))
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == level


def test_later_changes_of_the_module_do_not_reach_the_model() -> None:
    module = nn.Linear(3, 2)
    model = export_module(module, example_inputs=torch.ones(1, 3))
    before = run(model, {"input": np.ones((1, 3), np.float32)})[0]
    with torch.no_grad():
        module.weight.zero_()
    np.testing.assert_array_equal(run(model, {"input": np.ones((1, 3), np.float32)})[0], before)


def test_training_form_counts(exported_a0: ir.Model) -> None:
    operators = counts(exported_a0)
    assert {key: operators[key] for key in ("Conv", "BatchNormalization", "Add", "Relu")} == {
        "Conv": 44,
        "BatchNormalization": 61,
        "Add": 44,
        "Relu": 22,
    }


def test_dynamic_batch_runs_at_any_batch(a0: nn.Module, exported_a0: ir.Model) -> None:
    assert str(exported_a0.graph.inputs[0].shape) == "[batch,3,64,64]"
    assert str(exported_a0.graph.outputs[0].shape) == "[batch,1000]"
    for batch in (1, 3):
        x = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = a0(x).numpy()
        np.testing.assert_allclose(
            # Logits of order 1, and some twenty roundings of that size in each of 22 blocks.
            run(exported_a0, {"x": x.numpy()})[0],
            expected,
            rtol=0,
            atol=22 * 22 * 2.0**-24,
        )


@pytest.mark.parametrize(("shape", "batch"), [((3, 8, 8), 1), ((2, 3, 8, 8), 2)])
def test_batch_is_the_one_given(shape: tuple[int, ...], batch: int) -> None:
    model = export_module(nn.Conv2d(3, 4, 1), input_shape=shape)
    assert model.graph.inputs[0].shape == ir.Shape([batch, 3, 8, 8])


def test_nodes_have_their_module_path_and_no_stack_trace(exported_a0: ir.Model) -> None:
    convs = [node for node in exported_a0.graph if node.op_type == "Conv"]
    scopes = {node.metadata_props[SCOPE_KEY] for node in convs}
    assert len(scopes) == 44 and "stage3.13.rbr_1x1.conv" in scopes
    keys = {key for node in exported_a0.graph for key in node.metadata_props}
    assert keys == {SCOPE_KEY}
    assert (
        b"site-packages"
        not in ir.serde.serialize_model(exported_a0).graph.node[0].SerializeToString()
    )
    assert not exported_a0.metadata_props and not exported_a0.graph.metadata_props


@pytest.mark.parametrize("dynamic", [False, True])
def test_outputs_are_distinct_values_with_plain_names(dynamic: bool) -> None:
    x = torch.ones(1, 3)
    model = export_module(Pair(), example_inputs=(x, x), dynamic_batch=dynamic)
    assert names(model.graph.inputs) == ["x", "output_0"]
    assert names(model.graph.outputs) == ["output_0_", "output_1_", "output_2_", "output_3_"]
    a, b = np.float32([[1, 2, 3]]), np.float32([[5, 5, 5]])
    results = run(model, {"x": a, "output_0": b})
    for result, expected in zip(results, (a - b, a - b, a, a + 1), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_keyword_inputs_and_numpy() -> None:
    inputs = {key: np.ones((2, 3), np.float32) for key in ("x", "output_0", "scale")}
    model = export_module(Pair(), example_inputs=inputs)
    assert names(model.graph.inputs) == ["x", "output_0", "scale"]


def test_half_precision_module() -> None:
    model = export_module(nn.Conv2d(3, 4, 1).half(), input_shape=(3, 8, 8))
    assert model.graph.inputs[0].dtype == ir.DataType.FLOAT16


def test_opset_is_the_requested_one() -> None:
    module = nn.Conv2d(3, 4, 1)
    assert export_module(module, input_shape=(3, 8, 8), opset=17).opset_imports[""] == 17
    with pytest.raises(ExportError, match="expected opset 99"):
        export_module(module, input_shape=(3, 8, 8), opset=99)


def raise_chained(x: Tensor) -> Tensor:
    raise ValueError("expected an even size\nand more") from KeyError("inner")


@pytest.mark.parametrize(
    ("module", "cause", "hint"),
    [
        (Lambda(lambda x: x if x.sum() > 0 else -x), "data-dependent", "torch.where"),
        (Lambda(raise_chained), r"Lambda: expected an even size\n", "PyTorch"),
        (nn.Conv2d(4, 4, 1), "to have 4 channels, but got 3", "input_shape"),
        (Lambda(lambda x: torch.linalg.eig(x)[0].real), "linalg_eig", "no ONNX form"),
        (Lambda(lambda x: {"a": x, "b": "text"}), "Lambda", "PyTorch"),
    ],
)
def test_failures_name_the_cause_in_one_line(module: nn.Module, cause: str, hint: str) -> None:
    with pytest.raises(ExportError, match=cause) as raised:
        export_module(module, input_shape=(3, 8, 8))
    assert "\n" not in raised.value.cause and hint in raised.value.hint


def test_fixed_batch_is_refused_when_a_dynamic_one_is_requested() -> None:
    with pytest.raises(ExportError, match="fixes the batch size of input 'x'"):
        export_module(
            Lambda(lambda x: x.reshape(2, 3)), example_inputs=torch.ones(2, 3), dynamic_batch=True
        )


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({}, "found neither"),
        ({"input_shape": (3, 8, 8), "example_inputs": torch.ones(1, 3)}, "found both"),
        ({"input_shape": (3, 0, 8)}, r"found \(3, 0, 8\)"),
        ({"input_shape": (3, 8, 8)}, "missing a required argument: 'output_0'"),
        ({"example_inputs": {"y": torch.ones(1)}}, "do not fit Pair.forward"),
    ],
)
def test_unusable_inputs(options: dict[str, Any], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        export_module(Pair(), **options)
