"""Make a failing model smaller while it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx

from tests.fuzz.sketch import Array, Rejected, names_read, run, typed

Case = tuple[onnx.ModelProto, dict[str, Array]]


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The smallest part found that still fails: fewer outputs, later inputs, simpler sizes."""
    try:
        arrays = _values(case)
    except Rejected:
        return case
    smaller = True
    while smaller:
        smaller = False
        for candidate in _parts(case, arrays):
            if _runs(candidate) and fails(candidate):
                case, smaller = candidate, True
                break
    return case


def _runs(case: Case) -> bool:
    try:
        run(*case)
    except Rejected:
        return False
    return True


def _values(case: Case) -> dict[str, Array]:
    """The arrays of all values of the main graph, which have to be tensors."""
    model, feeds = case
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    watched.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    outputs = [value.name for value in watched.graph.output]
    return dict(feeds) | dict(zip(outputs, run(watched, feeds), strict=True))


def _parts(case: Case, arrays: dict[str, Array]) -> Iterator[Case]:
    model, feeds = case
    names = [value.name for value in model.graph.output]
    if len(names) > 1:
        for name in names:
            yield _cut(case, arrays, [name], set())
        for name in names:
            yield _cut(case, arrays, [n for n in names if n != name], set())
    for node in model.graph.node:
        made = [name for name in node.output if name and name not in names]
        if made:
            yield _cut(case, arrays, made[:1], set())
    for node in reversed(model.graph.node):
        if node.op_type != "Constant" and not set(node.output) & set(names):
            yield _cut(case, arrays, names, set(node.output))
    if len(names) == 1:
        for node in model.graph.node:
            if names[0] in node.output:
                for name in node.input:
                    if name in arrays and name not in feeds:
                        yield _cut(case, arrays, [name], set())


def _cut(case: Case, arrays: dict[str, Array], outputs: list[str], inputs: set[str]) -> Case:
    """The part that computes `outputs`, with `inputs` given instead of computed."""
    model, feeds = case
    part = onnx.ModelProto()
    part.CopyFrom(model)
    nodes, wanted = [], set(outputs)
    for node in reversed(model.graph.node):
        if wanted & (set(node.output) - inputs):
            wanted |= names_read(node)
            nodes.append(node)
    del part.graph.node[:], part.graph.input[:], part.graph.output[:], part.graph.value_info[:]
    part.graph.node.extend(reversed(nodes))
    declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    given = [name for name in {**feeds, **dict.fromkeys(sorted(inputs))} if name in wanted]
    for name in given:
        array = arrays[name]
        part.graph.input.append(declared.get(name) or typed(name, array, array.shape))
    for name in outputs:
        array = arrays[name]
        part.graph.output.append(declared.get(name) or typed(name, array, [None] * array.ndim))
    kept = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    del part.graph.initializer[:]
    part.graph.initializer.extend(kept)
    return part, {name: arrays[name] for name in given}
