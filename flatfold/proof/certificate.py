"""What was proved of a rewritten graph, for whoever wants to check it without us.

A certificate names both graphs by fingerprint and lists every change: the rewrite, the nodes of the
original that it replaced, the nodes that it made, what the field said and the rounding error.
Checking it runs no rewrite and imports none, so it cannot share their faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import onnx_ir as ir

from flatfold.backends.store import structural_copy
from flatfold.errors import InputError
from flatfold.proof.finite_field.field import PRIME

GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
KIND, SCHEMA = "flatfold-certificate", 1


@dataclass(frozen=True)
class Entry:
    """One change: `made` in place of `replaced`, which are nodes of the original.

    `ratio`: |y' - y| / (u M). `certified`: both sides are equal in the field for each draw of
    `seed`; else `doubt` says why not.
    """

    rewrite: str
    output: str
    replaced: tuple[str, ...]
    made: tuple[str, ...]
    seed: int
    ratio: float
    certified: bool
    doubt: str = ""


@dataclass(frozen=True)
class Certificate:
    """Every change between two graphs, which are named by their fingerprints."""

    original: str
    rewritten: str
    changes: tuple[Entry, ...]
    prime: int = PRIME

    def to_dict(self) -> dict[str, Any]:
        return {"kind": KIND, "schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Certificate:
        """Raises InputError for anything that `to_dict` does not write."""
        if content.get("kind") != KIND or content.get("schema") != SCHEMA:
            raise InputError("expected a certificate of flatfold, found something else")
        try:
            changes = tuple(_entry(entry) for entry in content["changes"])
            original, rewritten = (str(content[key]) for key in ("original", "rewritten"))
            return cls(original, rewritten, changes, int(content["prime"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the certificate is damaged: {error}") from error


def _entry(content: Mapping[str, Any]) -> Entry:
    lists = {key: tuple(map(str, content[key])) for key in ("replaced", "made")}
    return Entry(**{**{key.name: content[key.name] for key in fields(Entry)}, **lists})


def fingerprint(model: ir.Model) -> str:
    """SHA-256 of what a graph computes: operators, names, attributes, types and weights.

    Comments, metadata and the names of values between nodes are left out, and it does not matter
    where weights are kept.
    """
    digest = hashlib.sha256()
    bare = structural_copy(model)
    graph = bare.graph
    for domain, version in sorted(bare.opset_imports.items()):
        digest.update(f"{domain}:{version}\n".encode())
    for value in (*graph.inputs, *graph.outputs):
        digest.update(f"{value.name} {value.type} {value.shape}\n".encode())
    for node in graph:
        proto = ir.serde.serialize_node(node)
        del proto.metadata_props[:]
        proto.ClearField("doc_string")
        digest.update(proto.SerializeToString(deterministic=True))
    for name, tensor in graph.initializers.tensor_items():
        digest.update(f"{name} {tensor.numpy().tolist()}\n".encode())
    return digest.hexdigest()


def require_about(certificate: Certificate, original: ir.Model, rewritten: ir.Model) -> None:
    """Raise InputError unless it is about these graphs and accounts for every node that is new."""
    for what, model in (("original", original), ("rewritten", rewritten)):
        if fingerprint(model) != getattr(certificate, what):
            raise InputError(
                f"the certificate is about another {what} graph",
                hint="give the model and the options that it was compiled from",
            )
    known = {node.name: _operator(node) for node in original.graph.all_nodes()}
    made = _names(entry.made for entry in certificate.changes)
    others = [node for node in rewritten.graph.all_nodes() if node.name not in made]
    strange = sorted(n.name or "" for n in others if known.get(n.name) != _operator(n))
    absent = sorted(_names(entry.replaced for entry in certificate.changes) - set(known))
    if strange or absent:
        what = f"node {strange[0]!r} is in no change" if strange else f"no node {absent[0]!r}"
        raise InputError(f"the certificate does not account for the rewritten graph: {what}")


def _operator(node: ir.Node) -> tuple[Any, ...]:
    """The operator and its attributes; graphs among these are looked into on their own."""
    plain = [a for _, a in sorted(node.attributes.items()) if a.type not in GRAPHS]
    return node.op_identifier(), *((a.name, ir.serde.serialize_attribute(a)) for a in plain)


def _names(lists: Iterable[Iterable[str]]) -> set[str]:
    return {name for names in lists for name in names}
