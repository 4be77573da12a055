"""CPU time of the engines that flatfold and other optimizers lead to, on one thread.

    make peer-times                  pretrained files and a network of each family of the zoo, each
                                     on ort-cpu and openvino; docs/peer_times.md
    make peer-times TIMM=1           and those of timm
    make peer-times MATCH=repvgg     those with "repvgg" in their name or path; writes nothing
    make peer-times SECONDS=10       that much timing for each file and target

Each file has a process of its own, in which the engines take turns: the file as it came, flatfold's
(that of `flatfold.compile`) and those that are built from what each other tool leaves with its
defaults. Inputs that have default values become constants, which the other tools do unasked. Then
flatfold's and the fastest of the others are built again and take turns, five times, as two engines
of one graph differ, too. `ratio` is the time of flatfold's over that of the other one. It is slower
if the whole interval of 95 % is above 1.01, faster if it is below 1, and undecided otherwise; where
both engines are built from the same graph there is nothing to decide.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from bench.peers import Graph, graphs_to_count, optimized
from flatfold.timing import Estimate, Timing

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/peer_times.md"
TARGETS = ("ort-cpu", "openvino")
OTHERS = ("file", "onnxsim", "onnxslim", "onnxscript", "all")
SECONDS = 6.0  # of timing for each file and target
BUILDS = 5  # of the two engines that are compared
LIMIT_S = 600  # for all of one file
SLOWER = 1.01
MOST_BYTES = 1 << 28  # of a file: five engines of it are in memory at once
FORM = "script, fixed"  # of networks; files are as they came


@dataclass(frozen=True)
class Row:
    """A file on a target: how many times the time of the fastest other engine flatfold's takes.

    `medians` are seconds by tool. `ratio` is None where both run the same graph, or `reason` says
    why nothing was timed.
    """

    name: str
    target: str
    medians: dict[str, float]
    fastest: str = ""
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""

    @property
    def verdict(self) -> str:
        if self.reason:
            return "not timed"
        if self.interval is None:
            return "the same graph"
        low, high = self.interval
        return "slower" if low > SLOWER else "faster" if high < 1 else "undecided"


def main() -> int:
    parser = argparse.ArgumentParser(prog="peer_times", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="part of a name or path")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each file and target")
    parser.add_argument("--budget", type=float, default=3600, help="seconds for all files together")
    parser.add_argument("--timm", action="store_true", help="the networks of timm, too")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/pretrained")
    parser.add_argument("--file", nargs=2, metavar=("NAME", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        name, path = options.file
        for row in timed(name, path, options.seconds):
            print(json.dumps(asdict(row)), flush=True)
        return 0
    until = time.monotonic() + options.budget
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        found = graphs_to_count(options.match, options.folder, timm=options.timm)
        graphs = [graph for graph in found if graph.path is not None or graph.form == FORM]
        graphs.sort(key=lambda graph: graph.path is None)  # files first
        for number, graph in enumerate(graphs, 1):
            if time.monotonic() > until:
                print(f"the time is over: {len(graphs) - number + 1} files are left", flush=True)
                break
            new = _in_a_child(graph, Path(folder), options.seconds)
            rows += new
            said = [f"{r.target} {r.verdict} {r.ratio or 1:.2f}" for r in new] or ["not timed"]
            print(f"{number}/{len(graphs)}", graph.name, graph.form, *said, sep="  ", flush=True)
    if not options.match:
        PAGE.write_text(page(rows))
    return 0


def _in_a_child(graph: Graph, folder: Path, seconds: float) -> list[Row]:
    """The rows of one file; none where it is too large, or the process fails."""
    (folder / "network.onnx").unlink(missing_ok=True)
    path = graph.file(folder)
    if path is None or path.stat().st_size > MOST_BYTES:
        return []
    name = graph.name if graph.path is None else f"{graph.name}, {graph.form}"
    command = [sys.executable, "-m", "bench.peer_times", "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            [*command, "--file", name, str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return []
    return [
        Row(**{**content, "interval": content["interval"] and tuple(content["interval"])})
        for content in map(json.loads, done.stdout.decode().splitlines())
    ]


def timed(name: str, path: str, seconds: float) -> list[Row]:
    """One row for each target."""
    models = {"file": onnx.load(path)}
    for tool in OTHERS[1:]:
        try:
            models[tool] = optimized(tool, onnx.load(path))
        except Exception:  # of another tool, of any kind
            continue
    return [_timed_on(target, name, models, seconds) for target in TARGETS]


def _timed_on(target: str, name: str, others: Mapping[str, onnx.ModelProto], seconds: float) -> Row:
    """The row of one target; the graphs of `others` that are the same are timed once."""
    import onnx_ir as ir

    from flatfold.backends import load_backend
    from flatfold.compiler import Compiler, Options
    from flatfold.errors import FlatfoldError
    from flatfold.proof import fingerprint
    from flatfold.tuning import ESTIMATED, Candidate, Stopwatch

    backend = load_backend(target)
    one = {backend.threads: 1}
    try:
        compiler = Compiler.resolve(others["file"], constant_defaults=True)
        options = Options(target, verify="off", engine_options=one)
        with compiler.compile([options], cache_dir="").engine as engine:
            graphs = {"flatfold": engine.model}
        graphs |= {tool: ir.from_proto(model) for tool, model in others.items()}
        digests = {tool: fingerprint(graph) for tool, graph in graphs.items()}
        by_graph: dict[str, str] = {}
        for tool, digest in digests.items():
            by_graph.setdefault(digest, tool)
        watch = Stopwatch(backend, one, compiler.feeds(), time.process_time)
        candidates = [Candidate(ESTIMATED, "", graphs[tool]) for tool in by_graph.values()]
        timings = dict(zip(by_graph.values(), watch.times(candidates, seconds / 2), strict=True))
        every = {tool: timings[by_graph[digest]] for tool, digest in digests.items()}
        fastest = fastest_other(every)
        two = [Candidate(ESTIMATED, "", graphs[tool]) for tool in ("flatfold", fastest)]
        same = digests["flatfold"] == digests[fastest]
        pairs = [] if same else [watch.times(two, seconds / 2 / BUILDS) for _ in range(BUILDS)]
    except FlatfoldError as error:
        return Row(name, target, {}, reason=error.cause)
    return row_of(name, target, every, [(ours, other) for ours, other in pairs])


def fastest_other(timings: Mapping[str, Timing]) -> str:
    """The tool whose engine takes the least time, but for flatfold's."""
    others = (tool for tool in timings if tool != "flatfold")
    return min(others, key=lambda tool: timings[tool].median)


def row_of(
    name: str, target: str, timings: Mapping[str, Timing], pairs: Sequence[tuple[Timing, Timing]]
) -> Row:
    """The row for these timings; `pairs` are flatfold's and the fastest other one's, timed again
    for several builds, and none where both are one graph."""
    from flatfold.timing import ratio_of_pairs

    medians = {tool: timing.median for tool, timing in timings.items()}
    ratio: Estimate | None = ratio_of_pairs(pairs)
    if ratio is None:
        return Row(name, target, medians, fastest_other(timings))
    return Row(name, target, medians, fastest_other(timings), ratio.value, ratio.interval)


def page(rows: list[Row]) -> str:
    """The page that `make peer-times` writes."""
    from flatfold.system.host import processor, versions

    packages = versions(("onnxruntime", "openvino", "onnxsim", "onnxslim", "onnxscript"))
    lines = [
        "# CPU time beside other optimizers",
        "",
        "Milliseconds of CPU time of one run, on one thread: the median of runs in turns in one "
        "process. The engines are built from the file as it came, from what flatfold makes of it "
        "and from what other tools make of it with their defaults; flatfold takes inputs that have "
        "default values as constants (`--constant-defaults`), which the others do unasked. `ratio` "
        "is flatfold's time over that of the other engine that was fastest, both built again "
        f"{BUILDS} times, with its interval of 95 %; slower is what is surely above {SLOWER}. "
        "`make peer-times` times again and writes this page.",
        "",
        f"{processor().rpartition(' ')[0]}; "
        + ", ".join(f"{name} {number}" for name, number in packages.items()),
        "",
    ]
    for target in TARGETS:
        found = [row for row in rows if row.target == target]
        counts = Counter(row.verdict for row in found)
        total = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        lines += [
            f"## {target}",
            "",
            f"Of {len(found)} files: {total}.",
            "",
            "| name | file | flatfold | fastest other | ratio | |",
            "|---" * 6 + "|",
            *map(_line, sorted(found, key=lambda row: row.ratio or 1.0)),
            "",
        ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if row.reason:
        return f"| {row.name} | - | - | - | - | not timed: {row.reason} |"
    times = [f"{1e3 * row.medians[tool]:.3g}" for tool in ("file", "flatfold", row.fastest)]
    ratio = "1"
    if row.interval is not None:
        low, high = row.interval
        ratio = f"{row.ratio:.2f} [{low:.2f}, {high:.2f}]"
    cells = (row.name, *times[:2], f"{times[2]} ({row.fastest})", ratio, row.verdict)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
