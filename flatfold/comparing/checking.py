"""Whether each variant computes what the training graph does: its own process is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
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
        self._original: Reference | None = None

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
            before=self._before(),
            progress=lambda label: self.progress(f"round 1 on {name}: {label}"),
        )
        if failures and not runner.alive:
            raise failures[-1]
        self.found[name] = replace(found, reference=judge) if found.reference and judge else found

    def _before(self) -> Reference | None:
        """The training graph as exported, which all variants are compared with, too."""
        from flatfold.proof.engine_check import original_session

        if self._original is None:
            with suppress(InputError):  # then the check says why
                # Twice, because an original that gives other outputs each time has to be told.
                self._original = _remembered(original_session(self.source.model), times=2)
        return self._original

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


def _remembered(reference: Reference, times: int = 1) -> Reference:
    """`reference`, which is asked the same question so many times, and no more."""
    known: dict[tuple[tuple[str, tuple[int, ...], bytes], ...], list[Any]] = {}

    def run(feeds: Mapping[str, Any]) -> Any:
        import hashlib

        key = tuple(
            (name, x.shape, hashlib.sha256(x.tobytes()).digest()) for name, x in feeds.items()
        )
        answers = known.setdefault(key, [])
        if len(answers) < times:
            answers.append(reference(feeds))
        return answers[-1]

    return run
