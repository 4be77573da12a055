"""Calls of model-local functions, replaced by their bodies."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import onnx_ir as ir

_MAX_NODES = 2**15
"""The most nodes that inlining may make: calls of calls grow with a power of their depth."""


def inline_functions(model: ir.Model) -> None:
    """Replace each call of a function whose opsets the model has by the nodes of the function.

    Functions that call each other recursively stay, and all of them where the graph would be
    too large.
    """
    from onnx_ir.passes import PreconditionError, common

    def compatible(function: ir.Function) -> bool:
        imports = model.opset_imports
        opsets = function.opset_imports.items()
        return all(imports.get(domain, version) == version for domain, version in opsets)

    if not model.functions or _inlined_size(model) > _MAX_NODES + len(model.graph):
        return
    with contextlib.suppress(PreconditionError):  # functions that call each other recursively
        common.InlinePass(criteria=compatible)(model)


def _inlined_size(model: ir.Model) -> int:
    """How many nodes the model has once all calls are inlined; recursive calls count as one."""
    functions: Mapping[ir.OperatorIdentifier, ir.Function] = model.functions
    sizes: dict[ir.OperatorIdentifier, int] = {}
    for identifier in functions:
        stack = [identifier]
        while stack:
            current = stack[-1]
            calls = [node.op_identifier() for node in functions[current].all_nodes()]
            open_calls = [c for c in calls if c in functions and c not in sizes and c not in stack]
            if open_calls:
                stack.append(open_calls[0])
                continue
            sizes[current] = sum(sizes.get(call, 1) for call in calls)
            stack.pop()
    return sum(sizes.get(node.op_identifier(), 1) for node in model.graph.all_nodes())
