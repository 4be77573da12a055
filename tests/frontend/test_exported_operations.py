"""In-place writes, shifts, shuffles, indexing and stacks from PyTorch's two exporters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.frontend import canonicalize
from flatfold.frontend.pytorch.export import export_module
from tests.frontend.execution import content, counts, random_feeds, run

EXPORTERS = ("new", "legacy", "legacy folding")


class _Net(nn.Module):
    def __init__(self, function: Callable[[_Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(8, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        nn.init.uniform_(self.bn.bias)
        nn.init.uniform_(self.bn.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def partial(net: _Net, x: Tensor) -> Tensor:
    y: Tensor = net.conv(x)
    y[:, :3] += x[:, :3]
    return y


def bordered(net: _Net, x: Tensor) -> Tensor:
    """A BatchNorm whose border has the value that it gives to zeros."""
    std = torch.sqrt(net.bn.running_var + net.bn.eps)
    edge = (net.bn.bias - net.bn.running_mean * net.bn.weight / std).view(1, -1, 1, 1)
    y = F.pad(net.bn(x), [1] * 4)
    y[:, :, 0:1, :] = edge
    y[:, :, -1:, :] = edge
    y[:, :, :, 0:1] = edge
    y[:, :, :, -1:] = edge
    return y


def shifted(net: _Net, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, 2:, :] = x[:, :, :-2, :]
    return x + y


def shifted_parts(net: _Net, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :3, 2:] = x[:, :3, :-2]
    y[:, 3:6, :, :-1] = x[:, 3:6, :, 1:]
    y[:, 6:] = x[:, 6:]
    return x + y


def rolled(net: _Net, x: Tensor) -> Tensor:
    return torch.roll(x, 1, 2) + x


def shuffled(net: _Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def swapped(net: _Net, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def interleaved(net: _Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.stack([x, net.conv(x)], 2).reshape(n, 2 * c, h, w)


def joined(net: _Net, x: Tensor) -> Tensor:
    return torch.stack([x, net.conv(x)], 1).flatten(1, 2)


def indexed(net: _Net, x: Tensor) -> Tensor:
    return torch.cat([net.conv(x)[:, [1, 3, 5]], x[:, [0, -2]]], 1)


FORMS: dict[Callable[[_Net, Tensor], Tensor], dict[str, int]] = {
    partial: {"Conv": 1, "Slice": 3, "Add": 1, "Concat": 1},
    shifted: {"Slice": 1, "Pad": 1, "Add": 1},
    rolled: {"Slice": 2, "Concat": 1, "Add": 1},
    shuffled: {"Reshape": 2, "Transpose": 1},
    interleaved: {"Conv": 1, "Concat": 1, "Reshape": 2, "Transpose": 1},
    joined: {"Conv": 1, "Concat": 1},
    indexed: {"Conv": 1, "Gather": 2, "Concat": 1},
}


def export(
    function: Callable[[_Net, Tensor], Tensor], exporter: str, batches: Sequence[int]
) -> ir.Model:
    torch.manual_seed(0)
    net, dynamic = _Net(function).eval(), len(batches) > 1
    if exporter == "new":
        return export_module(net, input_shape=(8, 5, 6), dynamic_batch=dynamic)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.ones(batches[0], 8, 5, 6),),
            buffer,
            dynamo=False,
            do_constant_folding=exporter == "legacy folding",
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}} if dynamic else None,
            opset_version=18,
        )
    return ir.serde.deserialize_model(onnx.load_from_string(buffer.getvalue()))


def assert_canonicalizes(model: ir.Model, batches: Sequence[int]) -> None:
    feeds = [random_feeds(model, batch) for batch in batches]
    before = [run(model, feed) for feed in feeds]
    canonicalize(model)
    for old, feed in zip(before, feeds, strict=True):
        np.testing.assert_array_equal(run(model, feed), old)
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    once = content(model)
    canonicalize(model)
    assert content(model) == once


@pytest.mark.parametrize("batches", [(1,), (2, 3)], ids=["static", "dynamic"])
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("function", FORMS)
def test_every_exporter_leads_to_one_form(
    function: Callable[[_Net, Tensor], Tensor], exporter: str, batches: Sequence[int]
) -> None:
    model = export(function, exporter, batches)
    assert_canonicalizes(model, batches)
    assert counts(model) == FORMS[function]


@pytest.mark.parametrize("batches", [(1,), (2, 3)], ids=["static", "dynamic"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_writes_of_several_parts(exporter: str, batches: Sequence[int]) -> None:
    model = export(shifted_parts, exporter, batches)
    assert_canonicalizes(model, batches)
    assert not counts(model).keys() - {"Slice", "Pad", "Concat", "Add"}


@pytest.mark.parametrize("batches", [(1,), (2, 3)], ids=["static", "dynamic"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_halves_are_split_or_sliced(exporter: str, batches: Sequence[int]) -> None:
    model = export(swapped, exporter, batches)
    assert_canonicalizes(model, batches)
    parts = {"Split": 1} if exporter == "new" else {"Slice": 2}
    assert counts(model) == {**parts, "Concat": 1}


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_borders_written_in_place(exporter: str) -> None:
    model = export(bordered, exporter, (1,))
    assert_canonicalizes(model, (1,))
    assert counts(model) == {"BatchNormalization": 1, "Pad": 1, "Slice": 4, "Concat": 4}


def test_borders_of_a_dynamic_batch() -> None:
    """The size of the border depends on the batch; it stays an Expand."""
    model = export(bordered, "new", (2, 3))
    assert_canonicalizes(model, (2, 3))
    # a Shape, and one Concat of sizes for rows and one for columns
    glue = {"Shape": 1, "Expand": 2, "Concat": 4 + 2}
    assert counts(model) == {"BatchNormalization": 1, "Pad": 1, "Slice": 4, **glue}
