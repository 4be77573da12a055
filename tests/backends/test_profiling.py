"""Profiles of the engines of every target that runs here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.backends.attribution import RunProfile
from flatfold.backends.base import Engine
from flatfold.backends.tensorrt.engine import trt_rtx
from flatfold.backends.tensorrt.options import EDITIONS
from flatfold.backends.tensors import TensorSpec
from flatfold.errors import InputError, TargetError
from tests.backends.small_nets import Array
from tests.backends.suite import HEAD, build, needed, targets

TEXT = HEAD + (
    "g (float[n, 16, 32, 32] image) => (float[n, 16, 32, 32] y) "
    "{ a = Conv <pads = [1, 1, 1, 1]> (image, wide)  b = BatchNormalization (a, s, s, s, s) "
    "c = Conv (image, narrow)  d = Add (b, c)  e = Relu (d) "
    "f = Conv <pads = [1, 1, 1, 1]> (e, wide)  h = HardSwish (f)  y = Add (h, e) }"
)


def block() -> ir.Model:
    """Two parallel branches, and a Conv with a residual connection."""
    rng = np.random.default_rng(0)
    drawn = {"wide": (16, 16, 3, 3), "narrow": (16, 16, 1, 1), "s": (16,)}
    weights = {name: np.abs(rng.standard_normal(shape)) for name, shape in drawn.items()}
    model = ir.from_onnx_text(
        TEXT,
        initializers=[ir.tensor(w.astype(np.float32), name=name) for name, w in weights.items()],
    )
    for node in model.graph:
        node.name = f"node_{node.outputs[0].name}"
    return model


def image(batch: int = 2) -> dict[str, Array]:
    drawn = np.random.default_rng(1).standard_normal((batch, 16, 32, 32))
    return {"image": drawn.astype(np.float32)}


@pytest.fixture(scope="module", params=targets("run"))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with build(needed(request.param, "run"), block()) as engine:
        yield engine


@pytest.fixture(scope="module")
def profile(engine: Engine) -> RunProfile:
    found = engine.profile(image(), runs=20)
    if found is None:
        pytest.skip(f"{engine.target}: its SDK has no profiler")
    return found


def test_layers_take_time_and_together_no_more_than_a_run(profile: RunProfile) -> None:
    assert profile.layers and all(layer.seconds >= 0 for layer in profile.layers)
    assert all(layer.name and layer.kind for layer in profile.layers)
    assert 0 < sum(layer.seconds for layer in profile.layers) < 1.5 * profile.seconds


def test_on_a_device_its_own_events_tell_the_time(engine: Engine, profile: RunProfile) -> None:
    if engine.target.startswith("trt"):
        assert profile.device_s is not None and 0 < profile.device_s < profile.seconds
    else:
        assert profile.device_s is None


def test_every_conv_is_in_one_layer_which_takes_its_time(
    engine: Engine, profile: RunProfile
) -> None:
    named = [name for layer in profile.layers for name in layer.nodes]
    assert set(named) <= {node.name for node in engine.model.graph}
    for conv in ("node_a", "node_c", "node_f"):
        (layer,) = (layer for layer in profile.layers if conv in layer.nodes)
        assert layer.seconds > 0


def test_everything_is_in_some_layer(profile: RunProfile) -> None:
    named = {name for layer in profile.layers for name in layer.nodes}
    assert named == {f"node_{end}" for end in "abcdefhy"}


def test_the_engine_is_left_as_it_was(engine: Engine) -> None:
    before = engine.run(image())
    engine.profile(image(), runs=1)
    np.testing.assert_array_equal(engine.run(image())["y"], before["y"])


def test_what_cannot_be_profiled_is_told(engine: Engine) -> None:
    with pytest.raises(InputError, match="at least one run"):
        engine.profile(image(), runs=0)
    with pytest.raises(InputError, match="no input 'x'"):
        engine.profile({"x": image()["image"]})


def test_a_closed_engine_is_not_profiled(engine: Engine) -> None:
    with build(engine.target, block()) as closed:
        pass
    with pytest.raises(TargetError, match="is closed"):
        closed.profile(image())


def test_without_a_profiler_there_is_none() -> None:
    class Plain(Engine):
        """An engine of an SDK that tells nothing."""

        execute = describe = write_files = release = None  # type: ignore[assignment]

    spec = TensorSpec("image", "float32", ("n", 16, 32, 32))
    plain = Plain(target="t", precision="fp32", inputs=(spec,), outputs=(), model=block)
    assert plain.profile(image()) is None


@pytest.mark.skipif(not EDITIONS["trt-rtx"].installed, reason="TensorRT for RTX is not installed")
def test_tensorrt_says_when_it_builds_which_nodes_a_layer_has() -> None:
    with trt_rtx().build(block(), {"compute_capabilities": "89"}) as built:
        nodes = [name for layer in built.facts["layers"] for name in layer["nodes"]]
        assert {"node_a", "node_c", "node_f"} <= set(nodes)
        assert set(nodes) <= {node.name for node in built.model.graph}
