"""What a model declares of its own values, against what its operators say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["drop_false_shapes"]


def drop_false_shapes(graph: onnx.GraphProto, skeleton: onnx.ModelProto) -> None:
    """Drop what `graph` declares of a value between that cannot be so; nobody would run it so.

    `skeleton` is the model without large weights, and changed here. Raises `InputError` where an
    output cannot have the shape that is declared: that is a promise to the caller.
    """
    import onnx

    if any(a.name == "ceil_mode" and a.i for node in graph.node for a in node.attribute):
        return  # what onnx infers for a window that hangs over the edge is not what runtimes do
    declared = {value.name: value for value in (*graph.value_info, *graph.output)}
    del skeleton.graph.value_info[:]
    for value in skeleton.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except Exception:  # then nothing is known to be false
        return
    found = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    outputs = {value.name for value in graph.output}
    false = {name for name in declared if _differ(declared[name], found.get(name))}
    for name in sorted(false & outputs):
        shapes = [_dims(value) for value in (declared[name], found[name])]
        raise InputError(f"output {name!r} is declared as {shapes[0]}, and can only be {shapes[1]}")
    kept = [value for value in graph.value_info if value.name not in false]
    if false:
        del graph.value_info[:]
        graph.value_info.extend(kept)


def _differ(declared: onnx.ValueInfoProto, found: onnx.ValueInfoProto | None) -> bool:
    """Whether the ranks differ, or two sizes that are both known."""
    if found is None:
        return False
    mine, other = _dims(declared), _dims(found)
    if mine is None or other is None:
        return False
    return len(mine) != len(other) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(mine, other, strict=True)
    )


def _dims(value: onnx.ValueInfoProto) -> list[Any] | None:
    """Its sizes: a number, a name, or None where there is neither; None where no rank is known."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]
