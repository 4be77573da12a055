"""A graph through the clean-up and the rewrites that were chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flatfold.errors import FlatfoldError, PassError, UnknownName

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.passes import Exchange, Pipeline, Remark, Rewrite
    from flatfold.passes.cost import Profile
    from flatfold.passes.pipeline import Check


VERIFY = ("off", "sample", "bound", "certify")


@dataclass(frozen=True)
class Choice:
    """How a graph is rewritten and proved. Raises UnknownName for a name that there is not."""

    target: str = "default"
    passes: tuple[str, ...] | None = None
    verify: str = "certify"
    simplify: bool = False

    def __post_init__(self) -> None:
        self.rewrites()
        profile_of(self.target)
        if self.verify not in VERIFY:
            raise UnknownName("verification", self.verify, VERIFY)

    @classmethod
    def of(cls, target: str, passes: Iterable[str] | None, verify: str, simplify: bool) -> Choice:
        """With the names of `passes` as they may be given: any iterable, None for all."""
        return cls(target, None if passes is None else tuple(passes), verify, simplify)

    def rewrites(self) -> list[Rewrite | Exchange]:
        return rewrites_of(self.passes)

    def pipeline(self, check: Check | None = None) -> Pipeline:
        """The rewrites, with the costs of the target; `check` sees every change."""
        from flatfold.passes import Pipeline

        return Pipeline(self.rewrites(), profile_of(self.target), check)


def training_form(original: ir.Model) -> ir.Model:
    """The graph without the exporter's clutter: what the rewrites start from."""
    from flatfold.frontend.canonicalise import canonicalise

    graph = original.clone()
    canonicalise(graph)
    return graph


def rewritten(
    original: ir.Model, pipeline: Pipeline
) -> tuple[ir.Model, ir.Model, Sequence[Remark]]:
    """The rewritten graph, the training form it was made from, and the remarks.

    Raises InputError where the graph makes no sense, and whatever a rewrite raises where it does.
    """
    try:
        graph = training_form(original)
        training = graph.clone()
        return graph, training, pipeline.run(graph)
    except Exception as why:
        if isinstance(why, PassError) or not isinstance(why, FlatfoldError):
            _require_sense(original)  # what is invalid may break every promise
        raise


def _require_sense(original: ir.Model) -> None:
    """Raises InputError for a graph that nobody could run: it is to blame for what went wrong."""
    from flatfold.proof.execute import compare

    compare(original, original)


def rewrites_of(passes: Iterable[str] | None) -> list[Rewrite | Exchange]:
    """Those of these names, in the order of the pipeline; None for all. Raises UnknownName."""
    from flatfold.passes import PIPELINE

    known = {rewrite.name: rewrite for rewrite in PIPELINE}
    wanted = list(known) if passes is None else list(passes)
    for name in wanted:
        if name not in known:
            raise UnknownName("pass", name, known)
    return [known[name]() for name in known if name in wanted]


def profile_of(target: str) -> Profile:
    """What operators cost on `target`; a target without figures of its own has the default ones."""
    from flatfold.backends import TARGETS, best_target
    from flatfold.passes.cost import PROFILES

    name = best_target() if target == "auto" else target
    if name not in PROFILES and name not in TARGETS:
        known = {**PROFILES, **TARGETS}
        raise UnknownName("target", name, known, hint="`flatfold targets` lists them")
    return PROFILES.get(name, PROFILES["default"])
