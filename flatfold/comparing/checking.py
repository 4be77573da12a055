"""Whether each variant computes what the training graph does: its own process is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold.comparing.process import Process
from flatfold.comparing.variants import Variant
from flatfold.errors import FlatfoldError, InputError

if TYPE_CHECKING:
    from flatfold.comparing.measuring import Runner
    from flatfold.frontend.source import Source
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.reference import Reference

BY_ONNX = "the ONNX reference in float64"


class Checks:
    """Compares outputs by the limits of `proof.engine_check`, against one float64 reference."""

    def __init__(
        self, source: Source, variants: Mapping[str, Variant], progress: Callable[[str], None]
    ) -> None:
        self.source, self.variants, self.progress = source, variants, progress
        self.found: dict[str, Equivalence] = {}
        self._reference: tuple[Reference | None, str] | None = None

    def inspect(self, name: str, runner: Runner) -> None:
        """The verdict on the variant `name`. Raises what its process fails with, if it fails."""
        from flatfold.proof.engine_check import check_engine

        variant = self.variants.get(name)
        if variant is None or variant.graph is None or not isinstance(runner, Process):
            return  # the second of the A/A pair
        failures: list[FlatfoldError] = []

        def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
            try:
                return runner.run(feeds)
            except InputError:
                raise  # of this size it takes none
            except FlatfoldError as error:
                failures.append(error)
                raise

        reference, judge = self._judge()
        found = check_engine(
            run,
            runner.precision or "fp32",
            self.source.model,
            variant.graph,
            reference=reference,
            progress=lambda label: self.progress(f"round 1 on {name}: {label}"),
        )
        if failures and not runner.alive:
            raise failures[-1]
        self.found[name] = replace(found, reference=judge) if found.reference and judge else found

    def _judge(self) -> tuple[Reference | None, str]:
        """What all variants are compared with, worked out once; its name where it is no module."""
        from flatfold.proof.reference import NoReference, onnx_reference
        from flatfold.resolve import reference_of

        if self._reference is None:
            own = reference_of(self.source)
            try:
                exact, name = (own, "") if own else (onnx_reference(self.source.model), BY_ONNX)
                self._reference = _remembered(exact), name
            except NoReference:
                self._reference = None, ""
        return self._reference


def _remembered(reference: Reference) -> Reference:
    """`reference`, which answers the same question once only."""
    known: dict[tuple[tuple[str, tuple[int, ...], bytes], ...], Any] = {}

    def run(feeds: Mapping[str, Any]) -> Any:
        import hashlib

        key = tuple(
            (name, x.shape, hashlib.sha256(x.tobytes()).digest()) for name, x in feeds.items()
        )
        if key not in known:
            known[key] = reference(feeds)
        return known[key]

    return run
