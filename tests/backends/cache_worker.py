"""Processes that use a cache at the same time, or are killed while they do.

    python -m tests.backends.cache_worker compile CACHE MODEL LOG COUNT
    python -m tests.backends.cache_worker store CACHE SIGNAL TIMES

They are forked from one that has imported everything: what they share is files and locks.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

import flatfold
from flatfold.backends.base import Engine
from flatfold.backends.onnxruntime.cpu import OrtCpu
from flatfold.backends.store.cache import Cache
from tests.backends.small_nets import build

KEYS = [f"{n:02x}" * 32 for n in range(8)]


def compile_at_once(cache: Path, model: Path, log: Path, count: int) -> None:
    """`count` processes that want the same engine; each build is a line of `log`."""
    usual = OrtCpu.build

    def build_and_tell(self: OrtCpu, *arguments: object) -> Engine:
        with log.open("a") as file:
            file.write(f"{os.getpid()} builds\n")
        time.sleep(0.3)  # the others must find it under way
        return usual(self, *arguments)  # type: ignore[arg-type]

    OrtCpu.build = build_and_tell  # type: ignore[assignment, method-assign]
    children = [_forked(_compile, cache, model, log) for _ in range(count)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


def _compile(cache: Path, model: Path, log: Path) -> None:
    def progress(stage: str) -> None:
        if stage.startswith("waiting"):
            with log.open("a") as file:
                file.write(f"{os.getpid()} waits\n")

    engine = flatfold.compile(
        model, "ort-cpu", cache_dir=cache, verify="off", tune=0, progress=progress
    )
    engine.close()


def store_and_die(root: Path, number: int, times: int) -> None:
    """`times` processes that store for ever, each ended by the signal at a random moment."""
    moments, cache = random.Random(0), Cache(root)
    cache.open()
    with build() as engine:
        cache.put("ab" * 32, engine)
        for _ in range(times):
            child = _forked(_store, cache, engine, number == signal.SIGKILL)
            time.sleep(moments.uniform(0.02, 0.2))
            os.kill(child, number)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == number or os.WEXITSTATUS(status) == 130, status


def _store(cache: Cache, engine: Engine, replacing: bool) -> None:
    """Unless `replacing`, nothing is removed: Ctrl-C during that would leave what was removed."""
    fresh = (hashlib.sha256(f"{os.getpid()} {n}".encode()).hexdigest() for n in itertools.count())
    for key in itertools.cycle(KEYS) if replacing else fresh:
        with cache.lock(key, lambda: None):
            if replacing:
                cache.remove(key)
            cache.put(key, engine)


def _forked(work: object, *arguments: object) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child can handle it
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        work(*arguments)  # type: ignore[operator]
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    verb, *given = sys.argv[1:]
    if verb == "compile":
        compile_at_once(Path(given[0]), Path(given[1]), Path(given[2]), int(given[3]))
    else:
        store_and_die(Path(given[0]), int(given[1]), int(given[2]))
