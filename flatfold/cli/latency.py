"""How long the training form and the rewritten graph take on one target, run in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flatfold.errors import FlatfoldError

if TYPE_CHECKING:
    from flatfold.backends.timing import Ratio, Timing
    from flatfold.result import Optimized

BUDGET_S = 4.0


@dataclass(frozen=True)
class Latency:
    """Both timings; `ratio` is before over after, so above 1 the rewritten graph is faster."""

    before: Timing
    after: Timing
    ratio: Ratio
    shapes: Mapping[str, Sequence[int]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": _timing(self.before),
            "after": _timing(self.after),
            "ratio": {"value": self.ratio.value, "interval": self.ratio.interval},
            "rounds": self.ratio.rounds,
            "inputs": {name: list(shape) for name, shape in self.shapes.items()},
            "environment": self.before.environment,
        }

    def verdict(self) -> str:
        """In words; no claim where the interval of the ratio includes 1."""
        value, (low, high) = self.ratio.value, self.ratio.interval
        if low <= 1 <= high:
            return f"no difference measured [{low:.2f}, {high:.2f}]"
        if value > 1:
            return f"{value:.2f}x faster [{low:.2f}, {high:.2f}]"
        return f"{1 / value:.2f}x slower [{1 / high:.2f}, {1 / low:.2f}]"


def measure_both(
    result: Optimized,
    target: str,
    batch: int | None,
    image: Sequence[int] | None,
    options: Mapping[str, object],
) -> Latency | str:
    """Times both graphs on the same seeded inputs, or says why that could not be done."""
    from flatfold.backends import load_backend
    from flatfold.backends.sizes import drawn, shapes_of
    from flatfold.backends.timing import measure, ratio

    backend = load_backend(target)
    settings = {**options, **backend.beside}
    state = backend.availability()
    if not state.runs:
        return state.reason
    try:
        with (
            backend.build(result.training, settings) as before,
            backend.build(result.graph, settings) as after,
        ):
            shapes = shapes_of(after.inputs, batch, image)
            feeds = drawn(after.inputs, shapes)
            runs = {"before": before.bind(feeds), "after": after.bind(feeds)}
            timings = measure(runs, budget_s=BUDGET_S)
    except FlatfoldError as error:
        return error.cause
    pair = timings["before"], timings["after"]
    return Latency(*pair, ratio(*pair), shapes)


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "median_s": timing.median,
        "interval_s": timing.interval,
        "p90_s": timing.percentile(90),
        "first_call_s": timing.warmup[0] if timing.warmup else None,
        "samples_s": timing.samples,
    }
