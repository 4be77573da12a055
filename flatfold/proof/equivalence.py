"""The result of a proof: a verdict on two graphs, and the numbers it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

PASSING = ("identical", "certified", "bounded", "sampled")


@dataclass(frozen=True)
class Fault:
    """A region that the two graphs compute differently.

    `nodes`: of the first graph, `others`: of the second. `ratio`: the largest |y' - y| / (u M), in
    `channel`. `weight`: the wrong weight, where it is one (`WrongWeight`). `text`: all of it in
    words.
    """

    nodes: tuple[str, ...]
    others: tuple[str, ...]
    ratio: float
    channel: int | None
    weight: dict[str, Any] | None
    text: str


@dataclass(frozen=True)
class Equivalence:
    """How a rewritten graph compares with the original.

    verdict: `identical` (same bytes), `certified` (every change is exact by its algebra, and
    `bounded`), `bounded` (every change within its rounding bound, and both graphs run), `sampled`
    (both graphs run on the inputs listed), `refuted`, or `unknown` (not checked). Errors are the
    largest absolute differences from a float64 reference, divided by the largest absolute output;
    `bound` is the most that `error` may be, and `measure` says which of the two limits that is: on
    the `worst` error, or on the `root mean square`. `uncovered` are outputs that no input showed
    anything about, and branches that differ and that no input ran; with one of them the verdict is
    `unknown` at best. For two graphs compared part by part, `structural` is the number of operators
    that are the same, and `faults` are the regions that differ.
    """

    verdict: str
    error: float = 0.0
    original_error: float = 0.0
    bound: float = 0.0
    worst_input: str = ""
    inputs: tuple[str, ...] = ()
    reference: str = ""
    regions: int = 0
    certified: int = 0
    doubts: tuple[str, ...] = ()
    region_ratio: float = 0.0
    reason: str = ""
    structural: int = 0
    faults: tuple[Fault, ...] = ()
    measure: str = "worst"
    uncovered: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the verdict is neither `refuted` nor `unknown`."""
        return self.verdict in PASSING

    def __bool__(self) -> bool:
        return self.passed

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Equivalence:
        """The result from what `to_dict` wrote, also after JSON; unknown fields are left out."""
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in known.items()
        }
        return replace(cls(**values), faults=tuple(map(_fault, known.get("faults", ()))))

    def __str__(self) -> str:
        if self.verdict in ("identical", "unknown"):
            return f"{self.verdict}{': ' + self.reason if self.reason else ''}"
        text = (
            f"{self.verdict}: {self.measure} error {self.error:.2e} of the output's range"
            f" (original {self.original_error:.2e}, allowed {self.bound:.2e})"
            f" on {len(self.inputs)} inputs against {self.reference}"
        )
        if self.structural:
            text += f"; {self.regions} regions, worst {self.region_ratio:.2f} u*M"
            text += f", {self.structural} operators the same"
        elif self.regions:
            text += f"; {self.regions} changes, {self.certified} exact by their algebra"
            text += f", worst {self.region_ratio:.2f} of 1.01 u*M"
        return f"{text}; {self.reason}" if self.reason else text


def _fault(content: Mapping[str, Any]) -> Fault:
    lists = {key: tuple(content[key]) for key in ("nodes", "others")}
    return Fault(**{**content, **lists})
