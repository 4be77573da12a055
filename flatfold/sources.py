"""Any form of model as the Source that is compiled: names of the zoo, modules, files, graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.frontend import Source
    from flatfold.proof import Reference


# How to read a file, not how to export a module.
FILE_OPTIONS = ("max_weights", "links_inside", "constant_defaults")

SHAPE_OPTIONS = ("input_shape", "example_inputs")


def resolve(model: Any, *, name: str = "", **options: Any) -> Source:
    """`flatfold.frontend.resolve`, for names of the zoo too. Raises InputError and ExportError."""
    from flatfold.frontend import resolve as resolve_source
    from flatfold.models import ZOO, create_model

    defaults = {name for name in FILE_OPTIONS if options.get(name) is None}
    options = {name: value for name, value in options.items() if name not in defaults}
    if not isinstance(model, str) or ":" in model or os.sep in model or model.endswith(".onnx"):
        return resolve_source(model, name=name, **options)
    if model not in ZOO and os.path.exists(model):
        return resolve_source(model, name=name, **options)
    module = create_model(model)
    if options.get("input_shape") is None and options.get("example_inputs") is None:
        options["input_shape"] = ZOO[model].input_shape
    return resolve_source(module, name=name or model, renames=ZOO[model].renames, **options)


def is_graph(model: Any) -> bool:
    """Whether `model` is ONNX already, in memory or in a file, rather than a module to export."""
    from flatfold.models import ZOO

    if isinstance(model, str | os.PathLike):
        path = str(model)
        return path.lower().endswith(".onnx") or (path not in ZOO and os.path.isfile(path))
    return not callable(model)


def resolve_both(model_a: Any, model_b: Any, **options: Any) -> tuple[Source, Source, str]:
    """Two models to compare, with the same inputs and outputs, and a remark. Raises InputError.

    Inputs and outputs of the second that are called otherwise, but have the types and shapes of the
    first's in the same places, get their names; the remark says which. FILE_OPTIONS and
    SHAPE_OPTIONS go to both, the other options to the models that are no graph yet; to both where
    both are graphs, which refuse them with a message.
    """
    reading = {name: options.pop(name, None) for name in FILE_OPTIONS}
    both = is_graph(model_a) and is_graph(model_b)
    sizes = {name: options[name] for name in SHAPE_OPTIONS if name in options}
    export = [sizes if is_graph(model) and not both else options for model in (model_a, model_b)]
    a, b = resolve(model_a, **reading, **export[0]), resolve(model_b, **reading, **export[1])
    model, remark = with_names_of(a.model, b.model)
    names = zip(_ends(b.model, "inputs"), _ends(model, "inputs"), strict=True)
    new = {old.name: value.name or "" for old, value in names}
    shapes = {new.get(name, name): shape for name, shape in b.shapes.items()}
    return a, replace(b, model=model, shapes=shapes), remark


def sizes_to_compare_at(a: Source, b: Source) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of all inputs at which `a` is run: those asked for, that `b` has, or likely ones.

    Raises InputError where it runs at none.
    """
    from flatfold.proof import sizes_that_run

    fixed = {
        value.name or "": tuple(size if isinstance(size, int) else None for size in value.shape)
        for value in b.model.graph.inputs
        if value.shape is not None
    }
    return sizes_that_run(a.model, {**fixed, **b.shapes, **a.shapes})


def is_same(a: ir.Model, b: ir.Model) -> bool:
    """Whether two graphs would be saved as the same bytes."""
    import onnx_ir as ir

    return bool(ir.to_proto(a) == ir.to_proto(b))  # not as bytes: those may exceed 2 GiB


def reference_of(source: Source) -> Reference | None:
    """A function that runs the module behind the graph in float64; None without a module."""
    from flatfold.frontend.pytorch.inputs import STRUCTURE
    from flatfold.frontend.pytorch.module import float64_reference
    from flatfold.proof import NoReference, input_specs

    if source.module is None:
        return None
    structure = source.model.graph.meta.get(STRUCTURE)
    names = [spec.name for spec in input_specs(source.model)]
    run = float64_reference(source.module, names, structure)

    def reference(feeds: Mapping[str, Any]) -> list[Any]:
        try:
            return run(feeds)
        except Exception as error:  # a module may make tensors of a fixed type as it runs
            raise NoReference(f"the module does not run in float64: {error}") from None

    return reference


def with_names_of(a: ir.Model, b: ir.Model) -> tuple[ir.Model, str]:
    """`b` with the names that `a` has for its inputs and outputs, and a remark where they differed.

    Raises InputError where number, types or shapes differ too.
    """
    remarks = []
    for kind in ("inputs", "outputs"):
        mine, others = _ends(a, kind), _ends(b, kind)
        if [v.name for v in mine] == [v.name for v in others]:
            alike = all(map(_same_type, mine, others))
            alike &= kind == "outputs" or all(map(_same_rank, mine, others))
        else:
            alike = len(mine) == len(others) and all(map(_fits, mine, others))
            names = ", ".join(f"{y.name} as {x.name}" for x, y in zip(mine, others, strict=False))
            remarks.append(f"{kind} paired by their order: {names}")
        if not alike:
            first, second = ([(v.name, _type(v)) for v in side] for side in (mine, others))
            raise InputError(
                f"the two models have different {kind}: {first} and {second}",
                hint="compare two models with inputs and outputs of the same types and shapes",
            )
    return (_renamed(a, b) if remarks else b), "; ".join(remarks)


def _ends(model: ir.Model, kind: str) -> list[ir.Value]:
    """Inputs without those that have a value in the file; outputs, which may be such a value."""
    values = list(getattr(model.graph, kind))
    return [v for v in values if not v.is_initializer()] if kind == "inputs" else values


def _type(value: ir.Value) -> str | None:
    return value.dtype.name if value.dtype is not None else None


def _same_type(one: ir.Value, two: ir.Value) -> bool:
    return one.dtype is None or two.dtype is None or one.dtype == two.dtype


def _same_rank(one: ir.Value, two: ir.Value) -> bool:
    """Whether two values have as many axes, where that is known."""
    return one.shape is None or two.shape is None or len(one.shape) == len(two.shape)


def _fits(one: ir.Value, two: ir.Value) -> bool:
    """Whether types are the same, and sizes wherever both are numbers, as far as they are known."""
    if not _same_type(one, two) or one.shape is None or two.shape is None:
        return _same_type(one, two)
    if len(one.shape) != len(two.shape):
        return False
    pairs = zip(one.shape, two.shape, strict=True)
    return all(m == n for m, n in pairs if isinstance(m, int) and isinstance(n, int))


def _renamed(a: ir.Model, b: ir.Model) -> ir.Model:
    """A copy of `b` whose inputs and outputs have the names of those of `a` in the same place."""
    copy = b.clone()
    new: dict[ir.Value, str] = {}
    for kind in ("inputs", "outputs"):
        for mine, other in zip(_ends(a, kind), _ends(copy, kind), strict=True):
            new.setdefault(other, mine.name or "")
    taken = set(new.values())
    graph = copy.graph
    inner = [value for node in graph.all_nodes() for value in node.outputs]
    for value in (*graph.inputs, *graph.initializers.values(), *inner):
        if value.name in taken and value not in new:
            new[value] = f"{value.name}:other"
    for value in new:  # so that no two have one name on the way
        value.name = f"{value.name}:old"
    for value, name in new.items():
        value.name = name
    return copy
