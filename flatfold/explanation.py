"""Remarks about one model made readable: where each decision was taken, and equal ones grouped."""

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


class Locator:
    """Where the nodes of a model come from: the modules around them, and their order."""

    def __init__(self, result: Optimized) -> None:
        nodes = [node for model in (result.training, result.graph) for node in nodes_of(model)]
        self.order = {node.name or "": index for index, node in enumerate(nodes)}
        self.scopes = {n.name or "": n.metadata_props.get(SCOPE_KEY, "") for n in nodes}
        self.names = {v.name for n in nodes for v in (*n.inputs, *n.outputs) if v is not None}
        self.names |= set(self.scopes)

    def place(self, remark: Remark) -> str:
        """The innermost module around all nodes of the remark, or else the name of its node."""
        module = self.module_around((*remark.replaced, remark.node))
        return module or remark.node or "an unnamed node"

    def module_around(self, nodes: Iterable[str]) -> str:
        """The innermost module around the nodes of these names; "" where there is none."""
        return innermost(self.scopes.get(node, "") for node in dict.fromkeys(nodes))

    def in_order(self, remarks: Iterable[Remark]) -> list[Remark]:
        """From the inputs of the model to its outputs."""
        return sorted(remarks, key=lambda remark: self.order.get(remark.node, len(self.order)))

    def template(self, reason: str) -> str:
        """`reason` with * for names and # for numbers, so that reasons of one kind are equal."""
        words = ("*" if word.strip(",:;") in self.names else word for word in reason.split())
        return _NUMBER.sub("#", " ".join(words))

    def select(self, remarks: Iterable[Remark], pattern: str) -> list[Remark]:
        """The remarks about the node or module called `pattern`, or anything inside it.

        `pattern` may be a shell pattern. Raises UnknownName, with near names, where the model has
        no such node or module.
        """
        modules = {module for scope in self.scopes.values() for module in _with_parents(scope)}
        names = {name for name in (*self.scopes, *modules) if name}
        if not any(_matches(name, pattern) for name in names):
            raise UnknownName("node or module", pattern, names, hint=_top_modules(modules))
        return [r for r in remarks if self.is_inside((r.node, *r.replaced), pattern)]

    def is_inside(self, nodes: Sequence[str], pattern: str) -> bool:
        """Whether one of the nodes, or of the modules around them, is called `pattern`."""
        modules = (module for node in nodes for module in _with_parents(self.scopes.get(node, "")))
        return any(_matches(name, pattern) for name in (*nodes, *modules))


def matching(remarks: Iterable[Remark], rule: str) -> list[Remark]:
    """The remarks of the rewrite, or with the reason code, `rule`. Raises UnknownName."""
    from flatfold.passes import PIPELINE
    from flatfold.passes.remark import HINTS

    remarks = list(remarks)
    known = {rewrite.name for rewrite in PIPELINE} | {remark.rewrite for remark in remarks}
    known |= {remark.code for remark in remarks} | set(HINTS)
    if rule.lower() not in {name.lower() for name in known}:
        raise UnknownName("rule", rule, known)
    return [r for r in remarks if rule.lower() in (r.rewrite.lower(), r.code.lower())]


@dataclass(frozen=True)
class Group:
    """Remarks that differ only in their places and in the names and numbers of their reasons."""

    remarks: tuple[Remark, ...]
    places: tuple[str, ...]

    @property
    def first(self) -> Remark:
        return self.remarks[0]

    def cost(self, side: str) -> Cost:
        """The sum over the group; `side` is "before" or "after"."""
        costs: list[Cost] = [getattr(remark, side) for remark in self.remarks]
        total = costs[0]
        for cost in costs[1:]:
            total += cost
        return total


def grouped(remarks: Sequence[Remark], locator: Locator) -> list[Group]:
    """Applied before declined, larger groups first, otherwise in the order of the remarks."""
    alike: dict[tuple[Any, ...], list[Remark]] = {}
    for remark in remarks:
        template = locator.template(remark.reason)
        key = (not remark.applied, remark.rewrite, remark.code, template, remark.hint)
        alike.setdefault(key, []).append(remark)
    groups = [
        Group(tuple(members), tuple(dict.fromkeys(map(locator.place, members))))
        for members in alike.values()
    ]
    return sorted(groups, key=lambda group: (not group.first.applied, -len(group.remarks)))


@dataclass(frozen=True)
class TypedLayer:
    """A layer, a sum, or what keeps float32, of a graph in half the bits.

    `decibels`: what it is predicted to keep, None where that is not known. `scaled`: what was done
    to its channels, `why` it keeps float32; "" if nothing.
    """

    node: str
    place: str
    precision: str
    decibels: float | None
    scaled: str
    why: str


def typed_layers(result: Optimized, locator: Locator) -> list[TypedLayer]:
    """From the inputs of the model to its outputs; none of a graph in float32."""
    from flatfold.passes import EqualizeChannels
    from flatfold.passes.narrow_types import NAME

    if result.rounded is None:
        return []
    kept = {r.node: f"{r.code}: {r.reason}" for r in result.remarks if r.rewrite == NAME}
    scaled = {
        r.node: r.reason for r in result.remarks if r.rewrite == EqualizeChannels.name and r.applied
    }
    predicted, narrow = result.rounded.layers, result.rounded.precision
    names = sorted({*kept, *predicted}, key=lambda name: locator.order.get(name, 0))
    return [
        TypedLayer(
            name,
            locator.module_around([name]) or name,
            "fp32" if name in kept else narrow,
            predicted.get(name),
            scaled.get(name, ""),
            kept.get(name, ""),
        )
        for name in names
    ]


def patterns(places: Sequence[str]) -> list[str]:
    """`places`, with those that differ only in the numbers of modules written as one.

    a.0.b, a.1.b, c.2 -> "a.*.b (2)", "c.2": shell patterns, which `Locator.select` understands.
    """
    alike: dict[str, list[str]] = {}
    for place in places:
        parts = ("*" if part.isdigit() else part for part in place.split("."))
        alike.setdefault(".".join(parts), []).append(place)
    return [
        f"{pattern} ({len(members)})" if len(members) > 1 else members[0]
        for pattern, members in alike.items()
    ]


def innermost(scopes: Iterable[str]) -> str:
    """The innermost module around all of these; unknown scopes, "", are left out."""
    paths = [scope.split(".") for scope in scopes if scope]
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return ".".join(name for name, *_ in shared)


def nodes_of(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of the main graph and of every subgraph."""
    for graph in model.graphs():
        yield from graph


def _with_parents(scope: str) -> list[str]:
    """ "a.b.c" -> a, a.b, a.b.c."""
    parts = scope.split(".") if scope else []
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _top_modules(modules: Iterable[str]) -> str:
    """A hint that names the outermost modules, "" where there are none."""
    roots = sorted({module.partition(".")[0] for module in modules})
    return f"its modules are {', '.join(roots[:12])}" if roots else ""
