"""What is said about a decision, and what new nodes remember of the nodes they replaced."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from flatfold.passes.cost import Cost

REWRITE_KEY, REPLACED_KEY, SCOPE_KEY = "flatfold.rewrite", "flatfold.replaced", "flatfold.scope"


@dataclass(frozen=True)
class Remark:
    """One decision: a rewrite applied at a node, or missed and why, with the cost on both sides."""

    rewrite: str
    node: str
    applied: bool
    code: str
    reason: str
    before: Cost = field(default_factory=Cost)
    after: Cost = field(default_factory=Cost)
    replaced: tuple[str, ...] = ()
    hint: str = ""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Remark:
        """The remark of which `content` is `dataclasses.asdict`, JSON in between or not."""
        costs = {side: Cost(**content[side]) for side in ("before", "after")}
        return cls(**{**content, **costs, "replaced": tuple(content["replaced"])})


def census(nodes: Sequence[ir.Node]) -> str:
    """Operator counts, most frequent first: "Conv x2, Add"."""
    counts = Counter(node.op_type for node in nodes)
    return ", ".join(f"{op} x{n}" if n > 1 else op for op, n in counts.most_common())


def origins(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """Names of the nodes of the original graph that these stand for, each once."""
    names: dict[str, None] = {}
    for node in nodes:
        earlier = node.metadata_props.get(REPLACED_KEY)
        names.update(dict.fromkeys(_listed(earlier) or [node.name or ""]))
    return tuple(names)


def _listed(text: str | None) -> list[str]:
    """The names in a node's metadata, which any file may bring along and fill with anything."""
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return []
    return [str(name) for name in found] if isinstance(found, list) else []
