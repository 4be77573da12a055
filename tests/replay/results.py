"""The fixed set of graphs, and what flatfold makes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GRAPHS = Path(__file__).with_name("graphs.txt")

Row = dict[str, Any]


def cases() -> Iterator[str]:
    """The names of all graphs: the zoo's, and "drawn 0", "drawn 1", .."""
    from flatfold.models import ZOO

    yield from ZOO
    for number in range(len(GRAPHS.read_text("utf-8").splitlines())):
        yield f"drawn {number}"


def result_of(name: str) -> tuple[str, Row]:
    """The name, and what becomes of the graph: hash and number of nodes, or the error."""
    try:
        graph = drawn(int(name.split()[1])) if name.startswith("drawn ") else zoo(name)
    except Exception as why:
        return name, {"nodes": 0, "sha256": f"{type(why).__name__}: {why}"}
    return name, {"nodes": sum(1 for _ in graph.graph), "sha256": digest(graph)}


def zoo(name: str) -> Any:
    import flatfold
    from tests.golden.rows import ROWS

    size = ROWS[name]["sizes"][0]
    return flatfold.optimize(name, input_shape=(3, *size), verify="off").graph


def drawn(number: int) -> Any:
    """In double precision, whatever a runtime has kernels for."""
    from flatfold.compiler import Compiler, Options
    from flatfold.passes import Pipeline
    from tests.passes.drawn import records
    from tests.passes.drawn.build import build

    line = GRAPHS.read_text("utf-8").splitlines()[number]
    graph = eval(line, {"__builtins__": {}}, dict(vars(records)))  # what this repository wrote
    canonical = Compiler.resolve(build(graph).model).canonicalize()
    Pipeline(Options().rewrites()).run(canonical)
    return canonical


def digest(graph: Any) -> str:
    """SHA-256 over the serialised model without metadata and doc strings."""
    import onnx_ir as ir

    copy = graph.clone()
    for part in copy.graphs():
        part.metadata_props.clear()
        part.doc_string = None
        for node in part:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*part.inputs, *part.initializers.values()):
            value.metadata_props.clear()
    copy.metadata_props.clear()
    return hashlib.sha256(ir.to_proto(copy).SerializeToString(deterministic=True)).hexdigest()
