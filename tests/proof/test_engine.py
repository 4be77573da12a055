"""An engine is compared with the original graph, within the precision that it runs in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.backends.onnxruntime.cpu import OrtEngine
from flatfold.compiler import Compiler, Options
from flatfold.errors import Inaccurate, InputError, TargetError, TargetUnavailable
from flatfold.proof.network.engine import INPUTS, LESS_ACCURATE, check_engine, roundoff_of
from flatfold.proof.network.session import PlainSession
from tests.backends.small_nets import make_model
from tests.nets import Net


@pytest.fixture
def graph():
    net = Net((1, 4, 10, 9), dtype=np.float32)
    return net.model(net.op("Relu", net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)))


def honest(model):
    session = PlainSession(model)
    names = [value.name for value in model.graph.outputs]
    return lambda feeds: dict(zip(names, session(feeds), strict=True))


def checked(change, precision="fp32", model=None):
    """The verdict on an engine whose outputs are the graph's own, changed."""
    model = model or make_model()
    run = honest(model)
    return check_engine(
        lambda feeds: {n: change(y) for n, y in run(feeds).items()}, precision, model, model
    )


def off_by(share):
    """Every output further off by this share of the largest one."""
    return lambda y: y + np.float32(share) * np.abs(y).max()


def to_bfloat16(y):
    return (y.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def test_an_honest_engine_passes_on_random_inputs_and_the_border():
    found = checked(lambda y: y)
    assert found.verdict == "sampled" and not found.reason
    assert len(found.inputs) == 2 * INPUTS  # an open batch: two sizes
    assert {name.split()[0] for name in found.inputs} == {"normal", "border"}


@pytest.mark.parametrize(
    ("share", "verdict", "reason"),
    [(1e-7, "sampled", ""), (2e-6, "sampled", LESS_ACCURATE), (1e-4, "refuted", "")],
)
def test_how_far_off_decides(share, verdict, reason):
    found = checked(off_by(share))
    assert (found.verdict, found.reason) == (verdict, reason)


@pytest.mark.parametrize(("precision", "verdict"), [("bf16", "sampled"), ("fp32", "refuted")])
def test_a_precision_explains_its_own_roundings_only(precision, verdict):
    assert checked(to_bfloat16, precision).verdict == verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.002, "sampled"), (0.02, "refuted")])
def test_a_coarse_precision_is_no_excuse_for_anything(share, verdict):
    """One rounding to bfloat16 is all there is here: 2^-9 of a number, at most."""
    net = Net((1, 4), dtype=np.float32)
    twice = net.op("Resize", net.x, "", net.const(np.array([1, 2], np.float32)))
    model = ir.from_proto(net.model(twice))
    assert checked(off_by(share), "bf16", model).verdict == verdict


def test_integers_must_be_the_same():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]>'
        "g (float[4, 1] x) => (int64[1, 1] y) { y = ArgMax(x) }"
    )
    assert checked(lambda y: y, model=model).verdict == "sampled"
    found = checked(lambda y: y + 1, "bf16", model)
    assert found.verdict == "refuted" and "no floating-point" in found.reason


def test_a_graph_that_is_coarse_itself_is_no_reason_to_allow_more():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]>'
        "g (float[2] x) => (float[2] y) <float16[2] w = {15360, 16896}>"  # the bits of 1 and 3
        "{ h = Cast <to = 10> (x)  m = Mul (h, w)  y = Cast <to = 1> (m) }"
    )
    assert checked(lambda y: y, "fp16", model).verdict == "sampled"
    assert checked(off_by(0.1), "fp16", model).verdict == "refuted"


def test_the_coarsest_of_mixed_precisions_counts():
    assert roundoff_of("fp16+fp32") == roundoff_of("tf32") == 2.0**-11
    assert roundoff_of("fp32") == 2.0**-24 < roundoff_of("bf16+int8")


@pytest.mark.parametrize(
    ("error", "verdict", "says"),
    [
        (TargetUnavailable("no GPU"), "unknown", "no GPU"),
        (InputError("batch 2 is outside its profile"), "unknown", "none of the sizes"),
        (TargetError("illegal memory access"), "refuted", "illegal memory access"),
    ],
)
def test_an_engine_that_does_not_run(error, verdict, says):
    def run(feeds):
        raise error

    found = check_engine(run, "fp32", make_model(), make_model())
    assert found.verdict == verdict and says in found.reason


def test_the_verdict_is_in_the_manifest(graph, tmp_path):
    with flatfold.compile(graph, target="ort-cpu") as engine:
        assert engine.manifest["engine_equivalence"]["verdict"] == "sampled"
        engine.save(tmp_path / "engine")
    with flatfold.load(tmp_path / "engine") as again:
        assert again.manifest["engine_equivalence"]["inputs"]


def test_no_verdict_without_verification(graph):
    with flatfold.compile(graph, target="ort-cpu", verify="off") as engine:
        assert "engine_equivalence" not in engine.manifest


def test_a_wrong_engine_is_an_error_and_is_closed(graph, monkeypatch):
    right, closed = OrtEngine.execute, []
    monkeypatch.setattr(
        OrtEngine,
        "execute",
        lambda self, feeds: {n: y * np.float32(1.01) for n, y in right(self, feeds).items()},
    )
    monkeypatch.setattr(OrtEngine, "release", lambda self: closed.append(self))
    compiler, options = Compiler.resolve(graph), Options("ort-cpu")
    result = compiler.optimize(options)
    with pytest.raises(
        Inaccurate, match="less accurate than fp32 allows, while the graph"
    ) as error:
        compiler.build(result, options)
    assert error.value.exit_code == 4
    assert len(closed) == 1
