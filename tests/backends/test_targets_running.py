"""What holds for the engines of every target that runs here, compared with float64.

What needs an NVIDIA GPU has the mark `gpu`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.backends.base import Engine
from flatfold.errors import TargetError
from flatfold.proof.network.session import PlainSession
from tests.backends.small_nets import assert_right, image, make_model
from tests.backends.suite import HEAD, OPTIONS, build, needed, targets

KINDS = HEAD + (
    "g (float[n, 3] x, float s, int64[n] i, bool[n] b, float[n] unread) => "
    "(float[n, 3] x, float[n, 3] y, float total, int64[n] j, bool[n] c) "
    "{ y = Mul (x, s)  total = ReduceSum <keepdims = 0> (x)  j = Add (i, i)  c = Not (b) }"
)


@pytest.fixture(scope="module", params=targets("run"))
def running(request: pytest.FixtureRequest) -> str:
    return needed(request.param, "run")


@pytest.fixture(scope="module")
def engine(running: str) -> Iterator[Engine]:
    with build(running) as engine:
        yield engine


@pytest.mark.parametrize("batch", [1, 8, 3])
def test_it_computes_what_float64_does(engine: Engine, batch: int) -> None:
    assert_right(engine, image(batch))


def test_every_kind_of_input_and_output(running: str) -> None:
    model = ir.from_onnx_text(KINDS)
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((2, 3)).astype(np.float32),
        "s": np.array(3, np.float32),
        "i": np.array([2**29, -5], np.int64),
        "b": np.array([True, False]),
        "unread": np.zeros(2, np.float32),
    }
    expected = PlainSession(model)(feeds)
    with build(running, model) as engine:
        found = engine.run(feeds)
    assert list(found) == ["x", "y", "total", "j", "c"]
    for name, y in zip(found, expected, strict=True):
        assert found[name].dtype == y.dtype and found[name].shape == y.shape, name
        bound = 6 * 2.0**-24 * np.abs(y).max() if y.dtype.kind == "f" else 0  # six terms in total
        assert np.abs(found[name] - y).max() <= bound if bound else (found[name] == y).all(), name


def test_outputs_are_the_callers_own(engine: Engine) -> None:
    x = image(2)
    x.flags.writeable = False
    first = engine.run({"image": x})
    kept = {name: y.copy() for name, y in first.items()}
    engine.run({"image": image(2, seed=7)})
    for name, y in first.items():
        np.testing.assert_array_equal(y, kept[name])
        y[:] = 9
    for name, y in engine.run({"image": x}).items():
        np.testing.assert_array_equal(y, kept[name])


def test_a_bound_call_reads_what_is_fed_each_time(engine: Engine) -> None:
    x = image(4)
    run = engine.bind({"image": x})
    run()
    x[:] = image(4, seed=5)
    expected = engine.run({"image": x})
    for name, y in run().items():
        np.testing.assert_array_equal(y, expected[name])


def test_two_threads_share_an_engine(engine: Engine) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for batch in (1, 8, 3) * 10:
                assert_right(engine, image(batch, seed))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def fresh(code: str, *args: object) -> str:
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
import sys, flatfold, numpy as np
from tests.backends.small_nets import image
with flatfold.load(sys.argv[1]) as engine:
    np.savez(sys.argv[2], **engine.run({"image": image(2)}))
"""


def test_a_fresh_process_computes_the_same(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "net")
    fresh(LOADED, tmp_path / "net", tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    for name, y in engine.run({"image": image(2)}).items():
        np.testing.assert_array_equal(found[name], y)


# Closed engines are kept, so that only what closing frees is gone.
CLOSED = """
import gc, sys, flatfold, numpy as np
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096
kept, sizes = [], []
for _ in range(8):
    with flatfold.load(sys.argv[1]) as engine:
        engine(np.ones((1, 2048), np.float32))
    kept.append(engine)
    sizes.append(resident())
print(sizes[-1] - sizes[2])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the memory")
def test_closing_frees_the_memory(running: str, tmp_path: Path) -> None:
    weight = ir.tensor(np.ones((2048, 4096), np.float32), name="w")
    text = HEAD + "g (float[n, 2048] x) => (float[n, 4096] y) { y = MatMul(x, w) }"
    with build(running, ir.from_onnx_text(text, initializers=[weight])) as engine:
        engine.save(tmp_path / "net")
    assert int(fresh(CLOSED, tmp_path / "net")) < 2 * weight.nbytes  # of five engines


def test_a_closed_engine_says_so(running: str) -> None:
    with build(running) as engine:
        outputs = engine.run({"image": image(1)})
    kept = {name: y.copy() for name, y in outputs.items()}
    engine.close()
    with pytest.raises(TargetError, match="engine is closed"):
        engine.run({"image": image(1)})
    for name, y in outputs.items():
        np.testing.assert_array_equal(y, kept[name])


def test_compile_says_what_the_engine_itself_computes(running: str) -> None:
    with flatfold.compile(make_model(), target=running, engine_options=OPTIONS.get(running)) as e:
        assert e.manifest["engine_equivalence"]["verdict"] == "sampled"
        assert not e.manifest["engine_equivalence"]["reason"]
