"""From a model to an engine, or to the one that was built of the same before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flatfold.building import backend_for, build
from flatfold.errors import InputError
from flatfold.optimizing import Progress, Results, silent
from flatfold.result import Optimized
from flatfold.rewriting import Choice

if TYPE_CHECKING:
    from flatfold.backends.base import Engine
    from flatfold.frontend.source import Source

AUTO = "auto"
Settings = Mapping[str, object]


@dataclass(frozen=True)
class Compiled:
    """An engine, and how it came about. `made` is None if it came from the cache."""

    engine: Engine
    source: Source
    made: Optimized | None

    @property
    def cached(self) -> bool:
        return self.made is None

    @cached_property
    def result(self) -> Optimized:
        """What `optimize` gave when the engine was built."""
        from flatfold.rewriting import training_form

        if self.made is not None:
            return self.made
        original, engine = self.source.model, self.engine
        graphs = original, training_form(original), engine.model
        return Optimized.from_record(engine.manifest, engine.certificate, *graphs)


def compiled(
    model: Any,
    target: str = AUTO,
    *,
    engine_options: Settings | Callable[[str], Settings] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    passes: Iterable[str] | None = None,
    verify: str = "certify",
    simplify: bool = False,
    progress: Progress = silent,
    **reading: Any,
) -> Compiled:
    """`flatfold.compile`, with what there is to say about the engine.

    `engine_options` may be a function that gives those of each target.
    """
    from flatfold.caching import through_cache
    from flatfold.resolve import resolve

    wanted = targets_of(target)
    settings = _settings(wanted, engine_options)
    names = None if passes is None else tuple(passes)
    choices = {name: Choice.of(name, names, verify, simplify) for name in wanted}
    progress("exporting")
    making = _Making(resolve(model, **reading), choices, settings, progress)
    make = making.fastest if target == AUTO else making.only
    engine, cached = through_cache(cache_dir, making.key, make, progress)
    return Compiled(engine, making.source, None if cached else making.result(engine.target))


def targets_of(target: str) -> list[str]:
    """What may be built for: `target` itself, or with "auto" all that run here.

    Raises TargetUnavailable, with what is missing.
    """
    from flatfold.backends import running_targets

    return running_targets() if target == AUTO else [backend_for(target).name]


def _settings(
    targets: list[str], given: Settings | Callable[[str], Settings] | None
) -> dict[str, Settings]:
    if given and not callable(given) and len(targets) > 1:
        raise InputError(
            f"options of an engine are those of one target, and {' and '.join(targets)} run here",
            hint=f"name one of them as the target, such as {targets[0]!r}",
        )
    return {name: given(name) if callable(given) else given or {} for name in targets}


class _Making:
    """An engine for one of some targets."""

    def __init__(
        self,
        source: Source,
        choices: Mapping[str, Choice],
        settings: Mapping[str, Settings],
        progress: Progress,
    ) -> None:
        self.source, self.choices, self.settings = source, choices, settings
        self.progress = progress
        self._results = Results(source, progress)

    def key(self) -> str:
        """What identifies the engine: every target that could have been it has a part in that."""
        from flatfold.keys import key_of

        keys = [
            key_of(self.source, choice, backend_for(name), self.settings[name])
            for name, choice in self.choices.items()
        ]
        return keys[0] if len(keys) == 1 else hashlib.sha256("".join(keys).encode()).hexdigest()

    def result(self, target: str) -> Optimized:
        return self._results.of(self.choices[target])

    def only(self) -> Engine:
        """The engine of the one target there is."""
        (target,) = self.choices
        return build(self.result(target), target, self.settings[target], self.progress)

    def fastest(self) -> Engine:
        """The engine that target "auto" chooses, which its manifest gives reasons for."""
        from flatfold.auto import Choice as Auto
        from flatfold.auto import choose
        from flatfold.backends import load_backend

        def beside(target: str) -> Engine:
            settings = {**self.settings[target], **load_backend(target).beside}
            return build(self.result(target), target, settings, self.progress)

        targets = list(self.choices)
        if len(targets) == 1:
            found, engine = Auto(targets[0], "it is the only target that runs here"), self.only()
        else:
            needs = {name: len(load_backend(name).needs) for name in targets}
            found, engine = choose(targets, beside, needs, self.progress)
            if load_backend(found.target).beside:  # alone it is better built another way
                engine.close()
                settings = self.settings[found.target]
                engine = build(self.result(found.target), found.target, settings, self.progress)
        engine.manifest[AUTO] = found.to_dict()
        return engine
