"""The variants of a model: each as the job of a worker, and as a graph to count and to check.

All start from the training graph as flatfold cleans it, which is the form that the tools compared
with do best on, and run on one target with the same threads and the same inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.benchmark.candidates.tools import installed_tools, rewritten_by
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.report import FLATFOLD, TORCH, TRAINING, Row
from flatfold.errors import FlatfoldError, UnknownName
from flatfold.system.progress import Progress

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.benchmark.candidates.ablation import Stage
    from flatfold.frontend import Source
    from flatfold.result import Optimized


MODULES = ("eager", "torch.compile")


@dataclass(frozen=True)
class Variant:
    """A row without times: its graph, and what its worker is told; no job where `row.reason`."""

    row: Row
    graph: ir.Model | None = None
    job: Job | None = None


@dataclass(frozen=True)
class Way:
    """How `result` came about on `target`: graphs, the names of their rows, and those to be timed
    besides the first and the last, which have a row anyway."""

    target: str
    result: Optimized
    stages: tuple[Stage, ...]
    rows: tuple[str, ...]
    variants: tuple[Variant, ...]


def chosen(against: Iterable[str] | None, has_module: bool) -> list[str]:
    """What flatfold is compared with, besides the training graph. None: all that can be.

    Raises UnknownName.
    """
    possible = [*installed_tools(), *(MODULES if has_module else ())]
    if against is None:
        return possible
    wanted = list(dict.fromkeys(against))
    for name in wanted:
        if name not in (*possible, TRAINING):
            raise UnknownName("variant", name, (*possible, TRAINING))
    return [name for name in wanted if name != TRAINING]


def rivals_of(source: Source, against: Iterable[str] | None) -> list[str]:
    """Those of `chosen` that this source can be compared with."""
    found = chosen(against, has_module=True)
    return found if source.module is not None else [n for n in found if n not in MODULES]


class Kitchen:
    """Makes the variants of one model; `common` is what every job says, `batch` how many images
    there are in a run."""

    def __init__(
        self,
        source: Source,
        common: Job,
        options: Mapping[str, Mapping[str, object]],
        folder: Path,
        progress: Progress,
        batch: int = 1,
    ) -> None:
        from flatfold.compiler import Compiler

        self.source, self.common, self.options = source, common, options
        self.folder, self.progress, self.batch = folder, progress, batch
        self.compiler = Compiler(source, progress)
        self.training = self.compiler.canonicalize()
        self.results: dict[str, Optimized] = {}

    def variants(self, against: Sequence[str], verify: str) -> list[Variant]:
        """In the order of the report: the training graph first, flatfold last."""
        tools = [name for name in against if name not in MODULES]
        graphs: dict[str, Callable[[], ir.Model]] = {TRAINING: lambda: self.training}
        graphs |= {name: partial(self._by, name) for name in tools}
        found = [v for name, make in graphs.items() for v in self._on_targets(name, make)]
        found += [self._module(name) for name in against if name in MODULES]
        return found + self._ours(verify)

    def _on_targets(self, name: str, make: Callable[[], ir.Model]) -> list[Variant]:
        """The graph that `make` makes, once for all targets."""
        self.progress(f"preparing on {name}")
        begin = time.perf_counter()
        try:
            graph = make()
        except FlatfoldError as error:
            return [Variant(Row(name, target, reason=error.cause)) for target in self.options]
        seconds = time.perf_counter() - begin if name != TRAINING else None
        path = self._stored(name, graph)
        return [self._engine(name, target, graph, path, seconds) for target in self.options]

    def _by(self, tool: str) -> ir.Model:
        """What `tool` makes of the training graph, or if it fails there, of the one as exported.

        Most see more in the first, in which the exporter's constants are folded already.
        """
        try:
            return rewritten_by(tool, self.training)
        except FlatfoldError:
            with suppress(FlatfoldError):
                return rewritten_by(tool, self.source.model)
            raise

    def _ours(self, verify: str) -> list[Variant]:
        """One graph for all targets that it is the same for."""
        from flatfold.compiler import Options

        made = dict[int, tuple[Path, float]]()
        found = []
        for target in self.options:
            begin = time.perf_counter()
            try:
                result = self.compiler.optimize(Options(target, verify=verify))
            except FlatfoldError as error:
                found.append(Variant(Row(FLATFOLD, target, reason=error.cause)))
                continue
            if id(result) not in made:
                path = self._stored(f"{FLATFOLD} {target}", result.graph)
                made[id(result)] = path, time.perf_counter() - begin
            path, seconds = made[id(result)]
            self.results[target] = result
            proof = result.equivalence.verdict
            found.append(self._engine(FLATFOLD, target, result.graph, path, seconds, proof))
        return found

    def ways(self) -> list[Way]:
        """How each graph of flatfold's that `variants` made came about, rewrite by rewrite."""
        from flatfold.benchmark.candidates.ablation import stages
        from flatfold.compiler import Options

        known: dict[int, list[Stage]] = {}  # by result, which targets may share
        found = []
        for target, result in self.results.items():
            if id(result) not in known:
                known[id(result)] = stages(self.source.model, result, target, self.progress)
            path = known[id(result)]
            names = [TRAINING, *(f"+ {stage.rewrite}" for stage in path[1:])]
            if path[-1].graph is result.graph:
                names[-1] = FLATFOLD
            variants = []
            for name, stage in zip(names, path, strict=True):
                if name not in (TRAINING, FLATFOLD):
                    file = self._stored(f"{name} {Options(target).profile().name}", stage.graph)
                    variants.append(self._engine(name, target, stage.graph, file, None))
            rows = tuple(Row(name, target).name for name in names)
            found.append(Way(target, result, tuple(path), rows, tuple(variants)))
        return found

    def _engine(
        self,
        name: str,
        target: str,
        graph: ir.Model,
        path: Path,
        seconds: float | None,
        proof: str = "",
    ) -> Variant:
        job = replace(
            self.common,
            variant=name,
            target=target,
            model=str(path),
            options=dict(self.options[target]),
            saved=str(path.parent / target),
        )
        row = Row(name, target, proof=proof, prepare_s=seconds, **_counts(graph, self.batch))
        return Variant(row, graph, job)

    def _module(self, name: str) -> Variant:
        from flatfold.backends import precision_of
        from flatfold.frontend.pytorch.module import store_module

        graph = self.source.model
        path = self.folder / "module.pt"
        try:
            if not path.exists():
                assert self.source.module is not None
                store_module(self.source.module, path)
        except FlatfoldError as error:
            return Variant(Row(name, TORCH, reason=error.cause))
        job = replace(
            self.common,
            variant=name,
            target=TORCH,
            model=str(path),
            compiled=name == MODULES[1],
            inputs=tuple(str(v.name) for v in graph.graph.inputs if not v.is_initializer()),
            outputs=tuple(str(v.name) for v in graph.graph.outputs),
            precision=precision_of(graph),
        )
        return Variant(Row(name, TORCH), graph, job)

    def _stored(self, name: str, graph: ir.Model) -> Path:
        from flatfold.backends.store import write_model

        path = self.folder / name / "model.onnx"
        if not path.exists():
            path.parent.mkdir()
            write_model(graph, path)
        return path


def _counts(graph: ir.Model, batch: int) -> dict[str, Any]:
    from flatfold.benchmark.machine.roofline import bytes_of
    from flatfold.result import summarise

    found = summarise(graph, batch)
    return {
        "nodes": found.nodes,
        "parameters": found.parameters,
        "macs": found.macs,
        "bytes": bytes_of(graph, batch),
    }
