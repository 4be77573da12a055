"""The certificate of a rewritten graph: what was proved of each change, for others to check.

A certificate names both graphs by fingerprint and lists every change: the rewrite, the nodes of the
original that it replaced, the new nodes, the result of the identity test and the rounding error.
Checking it neither runs nor imports a rewrite, so it cannot repeat an error of one.
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
    """One change: the nodes `made` in place of `replaced`, which are nodes of the original.

    `ratio`: largest |y' - y| / (u M). `certified`: both sides are equal in the prime field for each
    draw from `seed`; otherwise `doubt` is the reason. `bit_exact`: the change keeps every bit, by
    its own account, and did so on the trial data.
    """

    rewrite: str
    output: str
    replaced: tuple[str, ...]
    made: tuple[str, ...]
    seed: int
    ratio: float
    certified: bool
    doubt: str = ""
    bit_exact: bool = False


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
        """The certificate from what `to_dict` wrote. Raises InputError for anything else."""
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
    content = {"bit_exact": False, **content}  # which older certificates do not say
    return Entry(**{**{key.name: content[key.name] for key in fields(Entry)}, **lists})


def fingerprint(model: ir.Model) -> str:
    """SHA-256 of what a graph computes: operators, names, attributes, types and weights.

    Comments, metadata, the names of values between nodes, and whether weights are in the file or
    next to it make no difference.
    """
    digest = hashlib.sha256()
    copy = structural_copy(model)
    graph = copy.graph
    for domain, version in sorted(copy.opset_imports.items()):
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
    """Raise InputError unless `certificate` is of these graphs and lists every new node."""
    for role, model in (("original", original), ("rewritten", rewritten)):
        if fingerprint(model) != getattr(certificate, role):
            raise InputError(
                f"the certificate is about another {role} graph",
                hint="give the model and the options that it was compiled from",
            )
    known = {node.name: _operator(node) for node in original.graph.all_nodes()}
    new = _names(entry.made for entry in certificate.changes)
    others = [node for node in rewritten.graph.all_nodes() if node.name not in new]
    unlisted = sorted(n.name or "" for n in others if known.get(n.name) != _operator(n))
    absent = sorted(_names(entry.replaced for entry in certificate.changes) - set(known))
    if unlisted or absent:
        what = f"node {unlisted[0]!r} is in no change" if unlisted else f"no node {absent[0]!r}"
        raise InputError(f"the certificate does not account for the rewritten graph: {what}")


def _operator(node: ir.Node) -> tuple[Any, ...]:
    """The operator and its attributes, except graphs: `all_nodes` yields their nodes, too."""
    attributes = [a for _, a in sorted(node.attributes.items()) if a.type not in GRAPHS]
    return node.op_identifier(), *((a.name, ir.serde.serialize_attribute(a)) for a in attributes)


def _names(lists: Iterable[Iterable[str]]) -> set[str]:
    return {name for names in lists for name in names}
