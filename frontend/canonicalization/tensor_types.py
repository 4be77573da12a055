"""The types of what nodes compute, by the schemas of ONNX."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx_ir as ir

_ATTRIBUTES = {
    "Bernoulli": ("dtype", None),
    "Cast": ("to", None),
    "EyeLike": ("dtype", None),
    "BlackmanWindow": ("output_datatype", ir.DataType.FLOAT),
    "HammingWindow": ("output_datatype", ir.DataType.FLOAT),
    "HannWindow": ("output_datatype", ir.DataType.FLOAT),
    "MelWeightMatrix": ("output_datatype", ir.DataType.FLOAT),
    "Multinomial": ("dtype", ir.DataType.INT32),
    "RandomNormal": ("dtype", ir.DataType.FLOAT),
    "RandomNormalLike": ("dtype", None),
    "RandomUniform": ("dtype", ir.DataType.FLOAT),
    "RandomUniformLike": ("dtype", None),
    "QuantizeLinear": ("output_dtype", None),
}
"""The attribute that holds the type of the output, and what it is if there is none.

None is the type that the schema says.
"""


_DATA_TYPES = frozenset(int(dtype) for dtype in ir.DataType)


def infer_types(node: ir.Node, version: int) -> None:
    """Write the types of the outputs of `node` that follow from its inputs; leave the others."""
    if node.domain == "com.microsoft":
        source = node.inputs[0] if node.inputs else None
        node.outputs[0].type = node.outputs[0].type or (None if source is None else source.type)
        return
    special = _SPECIAL.get(node.op_type) if node.domain == "" else None
    if special is not None:
        found = special(node)
        if found is not None:
            node.outputs[0].type = found
        return
    sources = _sources(node.op_type, node.domain, version)
    if sources is None:
        return
    for i, output in enumerate(node.outputs):
        dtype = _dtype(node, sources[min(i, len(sources) - 1)])
        if dtype is not None:
            output.type = ir.TensorType(dtype)


def _dtype(node: ir.Node, source: ir.DataType | tuple[int, ...] | None) -> ir.DataType | None:
    name, default = _ATTRIBUTES.get(node.op_type, ("", None)) if node.domain == "" else ("", None)
    if name and node.attributes.get(name) is not None and node.attributes[name].as_int():
        number = node.attributes[name].as_int()
        return ir.DataType(number) if number in _DATA_TYPES else None
    if default is not None:
        return default
    if source is None or isinstance(source, ir.DataType):
        return source
    last = len(node.inputs)
    values = [node.inputs[i] for i in source if i < last]
    types = [value.dtype for value in values if value is not None and value.dtype is not None]
    if not types and node.op_type == "QuantizeLinear":
        return ir.DataType.UINT8  # no zero point
    return types[0] if types else None


@functools.cache
def _sources(
    operator: str, domain: str, version: int
) -> list[ir.DataType | tuple[int, ...] | None] | None:
    """For each output its type, or the inputs that have the same; None for unknown operators."""
    import onnx

    try:
        schema = onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:
        return None
    allowed = {c.type_param_str: list(c.allowed_type_strs) for c in schema.type_constraints}
    inputs = [formal.type_str for formal in schema.inputs]
    return [_source(formal.type_str, inputs, allowed) for formal in schema.outputs]


def _source(
    name: str, inputs: list[str], allowed: dict[str, list[str]]
) -> ir.DataType | tuple[int, ...] | None:
    same = tuple(i for i, other in enumerate(inputs) if other == name)
    if same:
        return same
    texts = allowed.get(name, [name])
    if len(texts) != 1 or not texts[0].startswith("tensor("):
        return None
    return getattr(ir.DataType, texts[0][len("tensor(") : -1].upper(), None)


def _filled(node: ir.Node) -> ir.TypeProtocol | None:
    if "value" in node.attributes:
        return ir.TensorType(node.attributes["value"].as_tensor().dtype)
    return ir.TensorType(ir.DataType.FLOAT)


def _sequence(node: ir.Node) -> ir.TypeProtocol | None:
    """A sequence of tensors as the first input."""
    source = node.inputs[0] if node.inputs else None
    return ir.SequenceType(source.type) if source is not None and source.type is not None else None


def _element(node: ir.Node) -> ir.TypeProtocol | None:
    """A tensor of the sequence that is the first input."""
    kind = node.inputs[0].type if node.inputs and node.inputs[0] is not None else None
    return kind.elem_type if isinstance(kind, ir.SequenceType) else None


def _same(node: ir.Node) -> ir.TypeProtocol | None:
    return node.inputs[0].type if node.inputs and node.inputs[0] is not None else None


_SPECIAL: dict[str, Callable[[ir.Node], ir.TypeProtocol | None]] = {
    "ConcatFromSequence": _element,
    "ConstantOfShape": _filled,
    "Identity": _same,
    "SequenceAt": _element,
    "SequenceConstruct": _sequence,
    "SequenceErase": _same,
    "SequenceInsert": _same,
    "SplitToSequence": _sequence,
}
