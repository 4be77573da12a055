"""Remarks about one model, grouped: what was decided, where, and what it saves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from flatfold.errors import UnknownName

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.passes import Remark
    from flatfold.passes.cost.model import Cost
    from flatfold.result import Optimized


SCOPE_KEY = "flatfold.scope"
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Group:
    """Remarks that differ only in where they are and in the numbers of their reason."""

    remarks: tuple[Remark, ...]
    places: tuple[str, ...]

    @property
    def first(self) -> Remark:
        return self.remarks[0]

    def cost(self, side: str) -> Cost:
        """The sum over the group, before or after."""
        costs: list[Cost] = [getattr(remark, side) for remark in self.remarks]
        total = costs[0]
        for cost in costs[1:]:
            total += cost
        return total


class Places:
    """Where the nodes of a model come from: their names, and the modules around them."""

    def __init__(self, result: Optimized) -> None:
        graphs = (result.training, result.graph)
        nodes = [node for model in graphs for node in nodes_of(model)]
        self.order = {node.name or "": index for index, node in enumerate(nodes)}
        self.scopes = {n.name or "": n.metadata_props.get(SCOPE_KEY, "") for n in nodes}
        self.names = {v.name for n in nodes for v in (*n.inputs, *n.outputs) if v is not None}
        self.names |= set(self.scopes)

    def of(self, remark: Remark) -> str:
        """The innermost module around all that it is about, or else the node."""
        around = self.around((*remark.replaced, remark.node))
        return around or remark.node or "an unnamed node"

    def around(self, nodes: Iterable[str]) -> str:
        """The innermost module around the nodes of these names; "" where there is none."""
        return innermost(self.scopes.get(node, "") for node in dict.fromkeys(nodes))

    def in_order(self, remarks: Iterable[Remark]) -> list[Remark]:
        """From the inputs of the model to its outputs."""
        return sorted(remarks, key=lambda remark: self.order.get(remark.node, len(self.order)))

    def template(self, reason: str) -> str:
        """`reason` without its names and numbers, so that reasons of one kind are equal."""
        words = ("*" if word.strip(",:;") in self.names else word for word in reason.split())
        return _NUMBER.sub("#", " ".join(words))

    def select(self, remarks: Iterable[Remark], wanted: str) -> list[Remark]:
        """Those about the node, module or shell pattern `wanted`, or anything inside it.

        Raises UnknownName, with near names, where the model has no such node or module.
        """
        modules = {part for scope in self.scopes.values() for part in _with_parents(scope)}
        names = {name for name in (*self.scopes, *modules) if name}
        if not any(_matches(name, wanted) for name in names):
            raise UnknownName("node or module", wanted, names, hint=_starts(modules))
        return [remark for remark in remarks if self._touches(remark, wanted)]

    def _touches(self, remark: Remark, wanted: str) -> bool:
        nodes = (remark.node, *remark.replaced)
        return any(_matches(node, wanted) for node in nodes) or any(
            _matches(part, wanted)
            for node in nodes
            for part in _with_parents(self.scopes.get(node, ""))
        )


def grouped(remarks: Sequence[Remark], places: Places) -> list[Group]:
    """Applied before declined, larger groups first, otherwise in the order of the remarks."""
    found: dict[tuple[Any, ...], list[Remark]] = {}
    for remark in remarks:
        template = places.template(remark.reason)
        key = (not remark.applied, remark.rewrite, remark.code, template, remark.hint)
        found.setdefault(key, []).append(remark)
    groups = [
        Group(tuple(members), tuple(dict.fromkeys(places.of(member) for member in members)))
        for members in found.values()
    ]
    return sorted(groups, key=lambda group: (not group.first.applied, -len(group.remarks)))


def patterns(places: Sequence[str]) -> list[str]:
    """`places` with those that differ only in the numbers of modules as one, and how many.

    a.0.b, a.1.b, c.2 -> "a.*.b (2)", "c.2": shell patterns, which `select` understands.
    """
    alike: dict[str, list[str]] = {}
    for place in places:
        parts = ("*" if part.isdigit() else part for part in place.split("."))
        alike.setdefault(".".join(parts), []).append(place)
    return [
        f"{pattern} ({len(members)})" if len(members) > 1 else members[0]
        for pattern, members in alike.items()
    ]


def of_rule(remarks: Iterable[Remark], rule: str) -> list[Remark]:
    """Those of the rewrite, or with the reason code, `rule`. Raises UnknownName for neither."""
    from flatfold.passes import PIPELINE
    from flatfold.passes.remark import HINTS

    remarks = list(remarks)
    known = {rewrite.name for rewrite in PIPELINE} | {remark.code for remark in remarks}
    known |= set(HINTS)
    if rule.lower() not in {name.lower() for name in known}:
        raise UnknownName("rule", rule, known)
    return [r for r in remarks if rule.lower() in (r.rewrite.lower(), r.code.lower())]


def innermost(scopes: Iterable[str]) -> str:
    """The innermost module around all of these; "" is one that is not known, and is left out."""
    paths = [scope.split(".") for scope in scopes if scope]
    shared = takewhile(lambda same: len(set(same)) == 1, zip(*paths, strict=False))
    return ".".join(part for part, *_ in shared)


def nodes_of(model: ir.Model) -> Iterator[ir.Node]:
    for graph in model.graphs():
        yield from graph


def _with_parents(scope: str) -> list[str]:
    """ "a.b.c" -> a, a.b, a.b.c."""
    parts = scope.split(".") if scope else []
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _matches(name: str, wanted: str) -> bool:
    return name == wanted or fnmatchcase(name, wanted)


def _starts(modules: Iterable[str]) -> str:
    roots = sorted({module.partition(".")[0] for module in modules})
    return f"its modules are {', '.join(roots[:12])}" if roots else ""
