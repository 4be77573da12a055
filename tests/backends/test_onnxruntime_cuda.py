"""Target ort-cuda, where it differs from ort-cpu, as far as that can be tested without a GPU.

The engines themselves are in test_targets.py and test_targets_running.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.backends import load_backend
from flatfold.backends.onnxruntime import cuda
from flatfold.backends.onnxruntime.cuda import CudaOptions, OrtCuda
from flatfold.backends.onnxruntime.session import OrtOptions, open_session
from flatfold.backends.store.model_file import serialized
from flatfold.errors import BuildError, InputError, TargetUnavailable
from tests.backends.small_nets import image, make_model, reference
from tests.backends.suite import needed

UNUSED = {"onnxruntime": "", "onnxruntime-gpu": ""}


def state(monkeypatch: pytest.MonkeyPatch, gpu: str = "", **installed: str) -> tuple[bool, str]:
    found = {**UNUSED, **{name.replace("_", "-"): version for name, version in installed.items()}}
    monkeypatch.setattr(cuda, "versions", lambda packages: found)
    monkeypatch.setattr(cuda, "nvidia_gpu", lambda: gpu)
    available = OrtCuda().availability()
    return available.available, f"{available.reason}; {available.hint}"


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    available, says = state(monkeypatch)
    assert not available
    assert says == "onnxruntime-gpu is not installed; pip install 'onnxruntime-gpu>=1.23'"
    available, says = state(monkeypatch, onnxruntime="1.31.1")
    assert not available and "pip uninstall onnxruntime, which has the same module" in says
    available, says = state(monkeypatch, onnxruntime_gpu="1.31.1")
    assert not available and "no NVIDIA GPU was found" in says
    assert state(monkeypatch, "NVIDIA H200", onnxruntime_gpu="1.31.1")[0]


def test_where_it_is_missing_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    state(monkeypatch)
    with pytest.raises(TargetUnavailable, match="onnxruntime-gpu is not installed"):
        OrtCuda().build(make_model(), {})


def test_falling_back_to_the_cpu_is_a_build_error() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BuildError, match="did not start CUDAExecutionProvider") as caught:
        open_session(serialized(make_model()), CudaOptions())
    assert caught.value.where == "target ort-cuda" and "uninstall onnxruntime" in caught.value.hint


def test_a_provider_that_fails_to_start_is_seen_in_the_session() -> None:
    class Silent(OrtOptions):
        """Asks for a provider that is there, and is given the CPU."""

        def providers(self) -> list[tuple[str, dict[str, str]]]:
            return [("AzureExecutionProvider", {}), *super().providers()]

    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no second provider")
    real = onnxruntime.InferenceSession
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            onnxruntime,
            "InferenceSession",
            lambda source, settings, providers: real(source, settings, providers=providers[1:]),
        )
        with pytest.raises(BuildError, match="did not start AzureExecutionProvider"):
            open_session(serialized(make_model()), Silent())


def test_options_in_the_words_of_onnx_runtime() -> None:
    assert CudaOptions().providers() == [
        ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": "0"}),
        ("CPUExecutionProvider", {}),
    ]
    cuda, _ = CudaOptions(device_id=1, tf32=True, cuda_graph=True).providers()
    assert cuda[1] == {"device_id": "1", "use_tf32": "1", "enable_cuda_graph": "1"}


def test_tf32_is_told_in_the_precision() -> None:
    assert CudaOptions().runs_in("fp16+fp32") == "fp16+fp32"
    assert CudaOptions(tf32=True).runs_in("fp16+fp32") == "fp16+tf32"
    assert OrtOptions().runs_in("fp32") == "fp32"


@pytest.mark.parametrize("options", [{"device_id": -1}, {"graph_optimization": "most"}])
def test_option_values_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        OrtCuda().build(make_model(), options)
    assert caught.value.where == "target ort-cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{"cuda_graph": True}, {"tf32": True}])
def test_every_option_keeps_the_result(options: dict[str, object]) -> None:
    needed("ort-cuda", "run")
    x = image(4)
    y, mean, bound = reference(x)
    bound *= 2**13 if "tf32" in options else 1
    with load_backend("ort-cuda").build(make_model(), options) as engine:
        run = engine.bind({"image": x})
        for found in (engine.run({"image": x}), run(), run()):  # captured, then replayed
            assert np.abs(found["y"] - y).max() <= bound
            assert np.abs(found["mean"] - mean).max() <= bound
        x[:] = image(4, seed=5)
        y, _, _ = reference(x)
        assert np.abs(run()["y"] - y).max() <= bound
        assert ("tf32" in engine.precision) == ("tf32" in options)
