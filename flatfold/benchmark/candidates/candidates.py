"""The candidates for one model: each with its graph, to count and to check, and its worker's job.

All start from the training graph as flatfold cleans it, the form with which other tools do best,
and run on one target with the same threads and the same inputs.
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
from flatfold.precision import FULL, Precision
from flatfold.system.progress import Progress

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.benchmark.candidates.ablation import Step
    from flatfold.frontend import Source
    from flatfold.result import Optimized


MODULES = EAGER, COMPILED = "eager", "torch.compile"  # run by PyTorch


@dataclass(frozen=True)
class Candidate:
    """A row without times, its graph, and the job of its worker.

    Where it cannot be measured, `row.reason` says why and there is no job.
    """

    row: Row
    graph: ir.Model | None = None
    job: Job | None = None


@dataclass(frozen=True)
class Ablation:
    """The steps from the training graph to `result` on `target`, and the name of the row of each.

    `candidates` are those of the steps in between: the first and the last step have a row anyway.
    """

    target: str
    result: Optimized
    steps: tuple[Step, ...]
    rows: tuple[str, ...]
    candidates: tuple[Candidate, ...]


def names_to_compare(against: Iterable[str] | None, has_module: bool = True) -> list[str]:
    """The names of `against` without the training graph; None stands for all that can be run.

    Raises UnknownName.
    """
    possible = [*installed_tools(), *(MODULES if has_module else ())]
    if against is None:
        return possible
    names = list(dict.fromkeys(against))
    for name in names:
        if name not in (*possible, TRAINING):
            raise UnknownName("variant", name, (*possible, TRAINING))
    return [name for name in names if name != TRAINING]


def names_for_source(source: Source, against: Iterable[str] | None) -> list[str]:
    """Those of `names_to_compare` that can run this source: an ONNX file has no module."""
    names = names_to_compare(against)
    return names if source.module is not None else [n for n in names if n not in MODULES]


class Candidates:
    """Makes the candidates for one model, with their files in `folder`.

    `common` is a job with what all jobs share, `options` are those of each target, and `batch` is
    the number of images in a run. flatfold's graph has a candidate for each of `precisions`, for
    which the ranges of values are seen on `calibration`.
    """

    def __init__(
        self,
        source: Source,
        common: Job,
        options: Mapping[str, Mapping[str, object]],
        folder: Path,
        progress: Progress,
        batch: int = 1,
        precisions: Sequence[str] = (FULL.kind,),
        calibration: Any = None,
    ) -> None:
        from flatfold.compiler import Compiler

        self.source, self.common, self.options = source, common, options
        self.folder, self.progress, self.batch = folder, progress, batch
        self.precisions = tuple(dict.fromkeys((FULL.kind, *precisions)))
        self.compiler = Compiler(source, progress, calibration)
        self.training = self.compiler.canonicalize()
        self.results: dict[str, Optimized] = {}  # by target

    def all(self, against: Sequence[str], verify: str) -> list[Candidate]:
        """In the order of the report: the training graph first, flatfold last."""
        graphs: dict[str, Callable[[], ir.Model]] = {TRAINING: lambda: self.training}
        graphs |= {tool: partial(self._by_tool, tool) for tool in against if tool not in MODULES}
        candidates = [c for name, make in graphs.items() for c in self._on_targets(name, make)]
        candidates += [self._module(name) for name in against if name in MODULES]
        candidates += self._flatfold(verify)
        return candidates + [
            self._rounded(target, kind, verify)
            for kind in self.precisions[1:]
            for target in self.options
        ]

    def _rounded(self, target: str, kind: str, verify: str) -> Candidate:
        """flatfold's graph in another precision."""
        from flatfold.backends import load_backend
        from flatfold.compiler import Options

        name = f"{FLATFOLD} {kind}"
        if kind not in load_backend(target).precisions:
            return Candidate(Row(name, target, reason=f"{target} does not compute in {kind}"))
        begin = time.perf_counter()
        try:
            options = Options(target, verify=verify, precision=Precision(kind))
            result = self.compiler.optimize(options)
        except FlatfoldError as error:
            return Candidate(Row(name, target, reason=error.cause))
        path = self._stored(f"{name} {target}", result.graph)
        seconds = time.perf_counter() - begin
        made = self._engine(name, target, result.graph, path, seconds, result.equivalence.verdict)
        return replace(made, row=replace(made.row, rounded=result.rounded))

    def _on_targets(self, name: str, make: Callable[[], ir.Model]) -> list[Candidate]:
        """A candidate for each target, all with the graph that `make` returns."""
        self.progress(f"preparing on {name}")
        begin = time.perf_counter()
        try:
            graph = make()
        except FlatfoldError as error:
            return [Candidate(Row(name, target, reason=error.cause)) for target in self.options]
        seconds = time.perf_counter() - begin if name != TRAINING else None
        path = self._stored(name, graph)
        return [self._engine(name, target, graph, path, seconds) for target in self.options]

    def _by_tool(self, tool: str) -> ir.Model:
        """The training graph rewritten by `tool`, or if that fails, the graph as exported.

        Most tools simplify more in the training graph, whose constants are folded already.
        """
        try:
            return rewritten_by(tool, self.training)
        except FlatfoldError:
            with suppress(FlatfoldError):
                return rewritten_by(tool, self.source.model)
            raise

    def _flatfold(self, verify: str) -> list[Candidate]:
        """flatfold on each target; targets for which it builds the same graph share a file."""
        from flatfold.compiler import Options

        files: dict[int, tuple[Path, float]] = {}  # by id of the result
        candidates = []
        for target in self.options:
            begin = time.perf_counter()
            try:
                result = self.compiler.optimize(Options(target, verify=verify))
            except FlatfoldError as error:
                candidates.append(Candidate(Row(FLATFOLD, target, reason=error.cause)))
                continue
            if id(result) not in files:
                path = self._stored(f"{FLATFOLD} {target}", result.graph)
                files[id(result)] = path, time.perf_counter() - begin
            path, seconds = files[id(result)]
            self.results[target] = result
            proof = result.equivalence.verdict
            candidates.append(self._engine(FLATFOLD, target, result.graph, path, seconds, proof))
        return candidates

    def ablations(self) -> list[Ablation]:
        """The steps to each of flatfold's graphs that `all` made, target by target."""
        from flatfold.benchmark.candidates.ablation import rewrite_steps

        known: dict[int, list[Step]] = {}  # by id of the result, which targets may share
        ablations = []
        for target, result in self.results.items():
            if id(result) not in known:
                original = self.source.model
                known[id(result)] = rewrite_steps(original, result, target, self.progress)
            ablations.append(self._ablation(target, result, known[id(result)]))
        return ablations

    def _ablation(self, target: str, result: Optimized, steps: Sequence[Step]) -> Ablation:
        from flatfold.compiler import Options

        names = [TRAINING, *(f"+ {step.rewrite}" for step in steps[1:])]
        if steps[-1].graph is result.graph:
            names[-1] = FLATFOLD
        candidates = []
        for name, step in zip(names, steps, strict=True):
            if name not in (TRAINING, FLATFOLD):
                path = self._stored(f"{name} {Options(target).profile().name}", step.graph)
                candidates.append(self._engine(name, target, step.graph, path, None))
        rows = tuple(Row(name, target).name for name in names)
        return Ablation(target, result, tuple(steps), rows, tuple(candidates))

    def _engine(
        self,
        name: str,
        target: str,
        graph: ir.Model,
        path: Path,
        seconds: float | None,
        proof: str = "",
    ) -> Candidate:
        """`graph`, stored at `path`, on `target`; making it took `seconds`."""
        job = replace(
            self.common,
            variant=name,
            target=target,
            model=str(path),
            options=dict(self.options[target]),
            saved=str(path.parent / target),
        )
        row = Row(name, target, proof=proof, prepare_s=seconds, **_counts(graph, self.batch))
        return Candidate(row, graph, job)

    def _module(self, name: str) -> Candidate:
        """The source's module, run by PyTorch."""
        from flatfold.backends import precision_of
        from flatfold.frontend.pytorch.module import store_module

        graph = self.source.model
        path = self.folder / "module.pt"
        try:
            if not path.exists():
                assert self.source.module is not None
                store_module(self.source.module, path)
        except FlatfoldError as error:
            return Candidate(Row(name, TORCH, reason=error.cause))
        job = replace(
            self.common,
            variant=name,
            target=TORCH,
            model=str(path),
            compiled=name == COMPILED,
            inputs=tuple(str(v.name) for v in graph.graph.inputs if not v.is_initializer()),
            outputs=tuple(str(v.name) for v in graph.graph.outputs),
            precision=precision_of(graph),
        )
        return Candidate(Row(name, TORCH), graph, job)

    def _stored(self, name: str, graph: ir.Model) -> Path:
        """The file of the graph `name`, written where it is not there yet."""
        from flatfold.backends.store import write_model

        path = self.folder / name / "model.onnx"
        if not path.exists():
            path.parent.mkdir()
            write_model(graph, path)
        return path


def _counts(graph: ir.Model, batch: int) -> dict[str, Any]:
    """The fields of a row that are counted and not measured."""
    from flatfold.benchmark.machine.roofline import bytes_of
    from flatfold.result import summarise

    summary = summarise(graph, batch)
    return {
        "nodes": summary.nodes,
        "parameters": summary.parameters,
        "macs": summary.macs,
        "bytes": bytes_of(graph, batch),
    }
