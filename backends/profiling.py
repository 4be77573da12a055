"""What an engine's own profiler tells: how long each of its layers takes.

found = engine.profile({"image": image}, runs=50)
slowest = max(found.layers, key=lambda layer: layer.seconds)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

WARMUP = 5  # runs before those that count; the first ones make kernels and fill caches


@dataclass(frozen=True)
class LayerTime:
    """What an engine runs as one: its name and kind in the engine's words, seconds of one run.

    `nodes` are the names of those of the engine's model that it computes, as far as the engine
    tells. A node that the engine runs in several steps is in each of them; a layer that only lays
    data out anew has none.
    """

    name: str
    kind: str
    seconds: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunProfile:
    """The layers in the order in which they run, and the seconds of a whole run.

    Both were taken while the profiler was on, with which a run takes longer. Medians, but means
    where the SDK adds up what it measures. `device_s`: the seconds of a run without the profiler,
    copies to and from the device included, by the events of the device's own stream; None for the
    processor, where the clock of the host is all there is.
    """

    seconds: float
    layers: tuple[LayerTime, ...]
    device_s: float | None = None


def timed(run: Callable[[], object], runs: int) -> list[float]:
    """The seconds of each of `runs` runs."""
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return found
