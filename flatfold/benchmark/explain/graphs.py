"""Changes of a graph: the blocks before and after, as sketches, and each decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from flatfold.benchmark.report import Block, Box, Decision, GraphChange, Sketch
from flatfold.explanation import Locator, grouped, nodes_of
from flatfold.passes.remark import REPLACED_KEY, REWRITE_KEY, origins
from flatfold.result import summarise

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.result import Optimized


LAYER, NORM, OTHER = "layer", "norm", "other"
KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), LAYER),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization"), NORM),
}
SHORT = {"BatchNormalization": "BatchNorm", "LayerNormalization": "LayerNorm"}

Replaced = tuple[str, tuple[str, ...]]  # a rewrite, and the names of the nodes it replaced


def graph_change(target: str, result: Optimized) -> GraphChange:
    """How the rewritten graph of `result` differs from its training graph."""
    locator = Locator(result)
    remarks = locator.in_order(result.remarks)
    decisions = tuple(
        Decision(
            group.first.rewrite,
            group.first.applied,
            group.first.code,
            group.first.reason,
            group.first.hint,
            group.places,
        )
        for group in grouped(remarks, locator)
    )
    return GraphChange(
        target,
        summarise(result.training).operators,
        summarise(result.graph).operators,
        tuple(_blocks(result, locator)),
        decisions,
    )


def _blocks(result: Optimized, locator: Locator) -> Iterable[Block]:
    """Each kind of block once, drawn from its first place; the most frequent kinds first."""
    training = list(nodes_of(result.training))
    by_name: dict[str, list[ir.Node]] = {}
    for node in training:
        by_name.setdefault(node.name or "", []).append(node)
    order = {node: index for index, node in enumerate(training)}
    blocks: dict[object, Block] = {}
    for (rewrite, names), after in _replacements(result).items():
        nodes = {node for name in names for node in by_name.get(name, ())}
        before = sketch_of(sorted(nodes, key=order.__getitem__))
        now = sketch_of(after)
        place = locator.module_around(names) or names[0]
        key = rewrite, _shape(before), _shape(now)
        known = blocks.get(key)
        others = known.places if known else ()
        first = known or Block(rewrite, (), before, now)
        blocks[key] = Block(rewrite, (*others, place), first.before, first.after)
    return sorted(blocks.values(), key=lambda block: -len(block.places))


def _replacements(result: Optimized) -> dict[Replaced, list[ir.Node]]:
    """The new nodes for each set of replaced nodes; an empty list if they were only removed."""
    replacements: dict[Replaced, list[ir.Node]] = {}
    covered: set[str] = set()
    for node in nodes_of(result.graph):
        if REPLACED_KEY in node.metadata_props:
            names = origins([node])
            covered.update(names)
            rewrite = node.metadata_props.get(REWRITE_KEY, "")
            replacements.setdefault((rewrite, names), []).append(node)
    for remark in result.remarks:
        if remark.applied and remark.replaced and not covered.issuperset(remark.replaced):
            replacements.setdefault((remark.rewrite, remark.replaced), [])
    return replacements


def _shape(sketch: Sketch) -> tuple[Sequence[str], Sequence[tuple[int, int]]]:
    """The operators and edges of a sketch without sizes: the same for blocks of one kind."""
    return tuple(box.lines[0] for box in sketch.boxes), sketch.edges


def sketch_of(nodes: Sequence[ir.Node]) -> Sketch:
    """A box for each node, each input from outside and each output that is used outside."""
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    box_at: dict[ir.Value, int] = {}
    inside = {value for node in nodes for value in node.outputs}
    for node in nodes:
        for value in node.inputs:
            if value is not None and not is_constant(value) and value not in inside | box_at.keys():
                box_at[value] = len(boxes)
                boxes.append(Box(("input", sizes(value))))
    for node in nodes:
        box_at.update(dict.fromkeys(node.outputs, len(boxes)))
        boxes.append(box_of(node))
    for node in nodes:
        read = (box_at[value] for value in node.inputs if value is not None and value in box_at)
        edges += [(source, box_at[node.outputs[0]]) for source in read]
    within = set(nodes)
    for node in nodes:
        for value in node.outputs:
            if value.is_graph_output() or any(user not in within for user in value.consumers()):
                edges.append((box_at[value], len(boxes)))
                boxes.append(Box(("output", sizes(value))))
    return Sketch(tuple(boxes), tuple(edges))


def box_of(node: ir.Node) -> Box:
    lines = label(node)
    kind = NORM if "by a constant" in lines else KINDS.get(node.op_type, OTHER)
    return Box(lines, kind)


def label(node: ir.Node) -> tuple[str, ...]:
    """The lines of a box: the operator with its kernel, then its other attributes and sizes."""
    title = SHORT.get(node.op_type, node.op_type)
    kernel = node.attributes.get_ints("kernel_shape", ())
    if kernel:
        title += " " + "x".join(map(str, kernel))
    return tuple(filter(None, (title, ", ".join(filter(None, _details(node))))))


def sizes(value: ir.Value) -> str:
    """The shape without the batch: "64 x 56 x 56"."""
    return " x ".join(map(str, list(value.shape or ())[1:]))


def is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _details(node: ir.Node) -> Iterator[str]:
    shapes = [_fixed(value) for value in node.inputs]
    if node.op_type == "Conv" and shapes[1]:
        outputs, each = shapes[1][:2]
        groups = node.attributes.get_int("group", 1)
        depthwise = each == 1 and groups == outputs > 1
        yield f"depthwise {outputs}" if depthwise else f"{each * groups} → {outputs}"
        yield f"{groups} groups" if groups > 1 and not depthwise else ""
        yield "bias" if len(shapes) > 2 else ""
    elif node.op_type == "Gemm" or (node.op_type == "MatMul" and is_constant(node.inputs[1])):
        yield " → ".join(map(str, shapes[1]))
    elif node.op_type in KINDS and shapes[1:] and shapes[1]:
        yield f"{shapes[1][0]} channels"
    elif node.op_type in ("Add", "Mul", "Sub", "Div") and any(map(is_constant, node.inputs)):
        yield "by a constant"
    elif node.op_type == "LeakyRelu":
        yield f"slope {node.attributes.get_float('alpha', 0.01):g}"
    elif node.op_type == "Clip":
        bounds = (value.const_value for value in node.inputs[1:] if value is not None)
        yield " to ".join(f"{bound.numpy().item():g}" for bound in bounds if bound is not None)
    elif node.op_type in ("Slice", "Pad", "Split", "Concat", "Gather", "Reshape", "Transpose"):
        yield "to " + sizes(node.outputs[0])
    strides = set(node.attributes.get_ints("strides", ()))
    yield f"stride {strides.pop()}" if strides - {1} else ""


def _fixed(value: ir.Value | None) -> tuple[int, ...]:
    """The shape; () where a size is dynamic."""
    shape = None if value is None else value.shape
    return shape.numpy() if shape is not None and shape.is_static() else ()
