"""The public functions, end to end on small networks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import flatfold
from flatfold.errors import InputError, NotEquivalent, UnknownName
from flatfold.models.initialise import initialise
from flatfold.passes.cost.profiles import PROFILES
from flatfold.passes.lowering import emit
from tests.nets import Net

SHAPE = (4, 10, 9)


class Block(nn.Module):
    """3x3 - BN + 1x1 - BN + identity, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.small = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.large(x) + self.small(x) + x)
        return self.head(y.mean((2, 3)))


@pytest.fixture(scope="module")
def block() -> nn.Module:
    module = Block().eval()
    initialise(module, seed=1)
    return module


@pytest.fixture
def graph() -> onnx.ModelProto:
    net = Net((1, *SHAPE), dtype=np.float32)
    return net.model(net.op("Relu", net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)))


def test_compile_save_load(block, tmp_path):
    stages: list[str] = []
    engine = flatfold.compile(block, "ort-cpu", input_shape=SHAPE, progress=stages.append)
    x = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    exact = block.double()(torch.from_numpy(x).double()).detach().numpy()
    block.float()
    y = engine(x)
    terms = (4 * 9 + 4 + 1 + 2 * 4) + SHAPE[1] * SHAPE[2] + 4  # the block, the mean, the head
    assert np.max(np.abs(y - exact)) <= terms * 2.0**-24 * np.max(np.abs(exact))
    assert torch.equal(engine(torch.from_numpy(x)), torch.from_numpy(y))
    engine.save(tmp_path / "engine")
    loaded = flatfold.load(tmp_path / "engine")
    assert np.array_equal(loaded(x), y)
    assert loaded.manifest["equivalence"]["verdict"] == "certified"
    assert loaded.manifest["after"]["operators"]["Conv"] == 1
    assert [r["rewrite"] for r in loaded.manifest["remarks"] if r["applied"]] == ["merge-branches"]
    assert [stage.split()[0] for stage in stages][:3] == ["exporting", "rewriting", "proving"]


def test_the_callers_model_is_never_modified(graph):
    before = graph.SerializeToString()
    result = flatfold.optimize(graph)
    assert result.after.nodes == 2
    assert graph.SerializeToString() == before


@pytest.mark.parametrize(("verify", "verdict"), [("off", "unknown"), ("sample", "sampled")])
def test_verification_can_be_less(graph, verify, verdict):
    equivalence = flatfold.optimize(graph, verify=verify).equivalence
    assert equivalence.verdict == verdict
    assert bool(equivalence) == (verdict == "sampled")


@pytest.mark.parametrize(
    ("verify", "verdict", "certified"), [("bound", "bounded", 0), ("certify", "certified", 1)]
)
def test_changes_are_bounded_or_certified_too(graph, verify, verdict, certified):
    equivalence = flatfold.optimize(graph, verify=verify).equivalence
    assert equivalence.verdict == verdict
    assert (equivalence.regions, equivalence.certified, equivalence.doubts) == (1, certified, ())
    assert 0 < equivalence.region_ratio <= 1.01


@pytest.mark.parametrize(
    ("verify", "says"), [("certify", "u\\*M"), ("bound", "u\\*M"), ("sample", "refuted")]
)
def test_a_wrong_rewrite_is_an_error_and_no_result(graph, verify, says, monkeypatch):
    honest = emit.cast
    monkeypatch.setattr(
        emit, "cast", lambda *array, **options: honest(*array, **options) * np.float32(1.001)
    )
    with pytest.raises(NotEquivalent, match=says) as error:
        flatfold.optimize(graph, verify=verify)
    assert error.value.exit_code == 4


def test_onnxsim_afterwards_is_sampled_not_bounded(graph):
    result = flatfold.optimize(graph, simplify=True)
    assert result.after.operators == {"Conv": 1, "Relu": 1}
    assert result.equivalence.verdict == "sampled"


def test_passes_by_name(graph):
    result = flatfold.optimize(graph, passes=["merge-branches"])
    assert result.after.operators["BatchNormalization"] == 1
    with pytest.raises(UnknownName, match="fold-batchnorm"):
        flatfold.optimize(graph, passes=["fold-batchnom"])


def test_unknown_names_and_models():
    with pytest.raises(UnknownName, match="repvgg_a0"):
        flatfold.optimize("repvgg_ao")
    with pytest.raises(UnknownName, match="ort-cpu"):
        flatfold.compile("repvgg_a0", target="ort-cpuu")
    with pytest.raises(UnknownName, match="bound"):
        flatfold.optimize("repvgg_a0", verify="bond")
    with pytest.raises(InputError, match="no such file"):
        flatfold.optimize("nowhere.onnx")


def test_two_runs_give_the_same_bytes(block):
    one, two = (flatfold.optimize(block, input_shape=SHAPE).model for _ in range(2))
    assert one.SerializeToString() == two.SerializeToString()


def test_a_model_without_convolutions_is_left_alone():
    net = Net((1, 4), dtype=np.float32)
    result = flatfold.optimize(net.model(net.op("Relu", net.x)))
    assert not [remark for remark in result.remarks if remark.applied]
    assert result.equivalence.passed


def test_a_model_of_an_old_opset_is_left_alone(graph):
    """ONNX Runtime may have no operators for it; what has the same bytes need not be run."""
    graph.opset_import[0].version = 6
    result = flatfold.optimize(graph)
    assert result.equivalence.verdict == "identical"
    assert [remark.code for remark in result.remarks] == ["OLD-OPSET"]
    assert result.model.graph.node == graph.graph.node


def test_the_other_spelling_of_the_domain_is_the_same(graph):
    graph.opset_import[0].domain = "ai.onnx"
    result = flatfold.optimize(graph)
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Relu"]
    assert result.equivalence.verdict == "certified"


def squeezed() -> onnx.ModelProto:
    """A small layer after a layer: with launches at 5 us, one larger layer costs less than two."""
    net = Net((1, 64, 8, 8), dtype=np.float32)
    return net.model(net.conv(net.conv(net.x, 4, 64, (1, 1)), 64, 4, (1, 1)))


def test_what_is_cheap_depends_on_the_target():
    counts = {}
    for target in ("default", "ort-cpu", "auto", "trt"):
        result = flatfold.optimize(squeezed(), target=target)
        counts[target] = result.after.operators["Conv"]
    assert counts == {"default": 2, "ort-cpu": 2, "auto": 2, "trt": 1}
    with pytest.raises(UnknownName, match="unknown target 'trd'") as caught:
        flatfold.optimize(squeezed(), target="trd")
    assert "trt" in str(caught.value)


def test_compile_rewrites_for_its_target(monkeypatch):
    monkeypatch.setitem(PROFILES, "ort-cpu", PROFILES["trt"])
    engine = flatfold.compile(squeezed(), target="ort-cpu")
    assert engine.manifest["after"]["operators"]["Conv"] == 1
    monkeypatch.delitem(PROFILES, "ort-cpu")  # then it has the default figures
    engine = flatfold.compile(squeezed(), target="ort-cpu")
    assert engine.manifest["after"]["operators"]["Conv"] == 2
