"""How long the training form and the rewritten graph take on one target, run in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flatfold.cli.engine_options import quiet
from flatfold.errors import FlatfoldError, InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flatfold.backends.base import TensorSpec
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


def check_sizes(
    inputs: Sequence[TensorSpec], batch: int | None, image: Sequence[int] | None
) -> None:
    """Raises InputError where a size asked for is not the one that the model has."""
    for spec in inputs:
        for axis, (size, wanted) in enumerate(_sizes(spec, batch, image)):
            if isinstance(size, int) and wanted not in (None, size):
                raise InputError(
                    f"input {spec.name!r} has a fixed size of {size} on axis {axis}, not {wanted}",
                    hint="leave --batch and --size out, or export the model again",
                )


def shapes_of(
    inputs: Sequence[TensorSpec], batch: int | None, image: Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """What is asked for where the model leaves a size open, and a batch of 1 at least.

    Raises InputError where a size stays open.
    """
    shapes = {}
    for spec in inputs:
        sizes = [
            size if isinstance(size, int) else wanted for size, wanted in _sizes(spec, batch, image)
        ]
        if sizes and sizes[0] is None:
            sizes[0] = 1
        if None in sizes:
            cause = f"input {spec.name!r} leaves axis {sizes.index(None)} open"
            raise InputError(cause, hint="give --size")
        shapes[spec.name] = tuple(size for size in sizes if size is not None)
    return shapes


def _sizes(
    spec: TensorSpec, batch: int | None, image: Sequence[int] | None
) -> list[tuple[int | str | None, int | None]]:
    """Each axis of `spec`, with what is asked for there if anything is."""
    asked: list[int | None] = [None] * len(spec.shape)
    if spec.shape:
        asked[0] = batch
    if image and len(spec.shape) > len(image):
        asked[-len(image) :] = image
    return list(zip(spec.shape, asked, strict=True))


def measure_both(
    result: Optimized,
    target: str,
    batch: int | None,
    image: Sequence[int] | None,
    options: Mapping[str, object],
) -> Latency | str:
    """Times both graphs on the same seeded inputs, or says why that could not be done."""
    from flatfold.backends import load_backend
    from flatfold.backends.timing import measure, ratio

    backend, settings = load_backend(target), quiet(target, options)
    try:
        with (
            backend.build(result.training, settings) as before,
            backend.build(result.graph, settings) as after,
        ):
            shapes = shapes_of(after.inputs, batch, image)
            feeds = _feeds(after.inputs, shapes)
            runs = {"before": before.bind(feeds), "after": after.bind(feeds)}
            timings = measure(runs, budget_s=BUDGET_S)
    except FlatfoldError as error:
        return error.cause
    pair = timings["before"], timings["after"]
    return Latency(*pair, ratio(*pair), shapes)


def _feeds(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]
) -> dict[str, npt.NDArray[np.generic]]:
    import numpy as np

    rng = np.random.default_rng(0)
    feeds = {}
    for spec in inputs:
        drawn = rng.standard_normal(tuple(shapes[spec.name]))
        floating = np.dtype(spec.dtype).kind == "f"
        feeds[spec.name] = (drawn if floating else drawn > 0).astype(spec.dtype)
    return feeds


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "median_s": timing.median,
        "interval_s": timing.interval,
        "p90_s": timing.percentile(90),
        "first_call_s": timing.warmup[0] if timing.warmup else None,
        "samples_s": timing.samples,
    }
