"""The time of a run by kind of layer, before and after the rewrites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flatfold.benchmark.html.charts import Axis, Canvas
from flatfold.benchmark.report import FLATFOLD, TRAINING, LayerChange, ModelReport, Profile
from flatfold.text import duration, time_unit

WIDTH, LEFT, RIGHT, STEP = 780, 120, 96, 38
KINDS = 7  # kinds with a separate colour; the rest share one


@dataclass(frozen=True)
class Kind:
    """Layers of one kind in a profile: how many, and their seconds."""

    count: int = 0
    seconds: float = 0.0


def profiles_on(model: ModelReport, target: str) -> list[Profile]:
    """The profiles of a target: that of the training graph, then flatfold's."""
    by_row = {profile.row: profile for profile in model.profiles}
    rows = sorted(
        (row for row in model.rows if row.target == target and row.name in by_row),
        key=lambda row: (row.variant != TRAINING, row.variant == FLATFOLD),
    )
    return [by_row[row.name] for row in rows]


def kinds(profiles: Sequence[Profile]) -> dict[str, list[Kind]]:
    """For each kind of layer its `Kind` in each profile; the kind that takes longest first."""
    names: Counter[str] = Counter()
    for profile in profiles:
        for layer in profile.layers:
            names[layer.kind] += layer.seconds  # type: ignore[assignment]  # seconds, not counts
    return {name: [_of(profile, name) for profile in profiles] for name, _ in names.most_common()}


def _of(profile: Profile, kind: str) -> Kind:
    seconds = [layer.seconds for layer in profile.layers if layer.kind == kind]
    return Kind(len(seconds), sum(seconds))


def total(profile: Profile) -> float:
    return sum(layer.seconds for layer in profile.layers)


def stacks(model: ModelReport, target: str) -> Markup:
    """A stacked bar for each profile: its time by kind, on a common axis."""
    profiles = profiles_on(model, target)
    longest = max(map(total, profiles), default=0.0)
    if not longest:
        return Markup()
    table = kinds(profiles)
    bottom = 6 + STEP * len(profiles)
    title = f"Seconds of one profiled run on {target}, by kind of layer"
    totals = "; ".join(f"{profile.row}: {duration(total(profile))}" for profile in profiles)
    canvas = Canvas(WIDTH, bottom + 42, title, totals)
    axis = Axis(0, longest, LEFT, WIDTH - RIGHT)
    size, unit = time_unit(longest)
    for tick in axis.ticks():
        canvas.line("grid", (axis.at(tick), 6), (axis.at(tick), bottom))
        canvas.text("tick middle", (axis.at(tick), bottom + 18), f"{tick / size:.4g}")
    middle = (axis.start + axis.end) / 2
    canvas.text("axis middle", (middle, bottom + 36), f"{unit} in the layers of a profiled run")
    for number, profile in enumerate(profiles):
        y, at = 6 + STEP * number, 0.0
        canvas.text("label end", (LEFT - 14, y + 22), profile.row.partition(" ")[0], 16)
        for place, (kind, layers) in enumerate(table.items()):
            seconds = layers[number].seconds
            left, right = axis.at(at), axis.at(at + seconds)
            width = max(right - left, 0.4)
            piece = canvas.add(
                "rect", f"kind {look(place)}", x=left, y=y + 5, width=width, height=26
            )
            canvas.note(piece, f"{kind}: {duration(seconds)}, {layers[number].count} layers")
            at += seconds
        canvas.text("value", (axis.at(at) + 10, y + 22), duration(total(profile)))
    return canvas.markup()


def look(place: int) -> str:
    """The style class of the kind at this place, 0 for the one that takes longest."""
    return f"kind{place + 1}" if place < KINDS else "kind-rest"


def moves_on(model: ModelReport, target: str) -> list[LayerChange]:
    """The layer changes of a target, the largest first."""
    moves = [move for move in model.moves if move.target == target]
    return sorted(moves, key=lambda move: -abs(move.after_s - move.before_s))
