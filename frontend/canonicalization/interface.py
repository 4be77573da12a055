"""The inputs and outputs of a graph, which canonicalization must not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class _Port:
    name: str
    shape: ir.Shape | None
    type: ir.TypeProtocol | None


@dataclass(frozen=True)
class Interface:
    """A snapshot of the names, types and shapes of a graph's inputs and outputs."""

    inputs: tuple[tuple[ir.Value, _Port], ...]
    outputs: tuple[_Port, ...]

    @classmethod
    def of(cls, graph: ir.Graph) -> Interface:
        """The interface that `graph` has now."""
        inputs = tuple((value, _port(value)) for value in graph.inputs)
        return cls(inputs, tuple(_port(value) for value in graph.outputs))

    def restore_names(self, graph: ir.Graph) -> None:
        """Give the inputs and outputs of `graph`, changed since, these names again."""
        unchanged = {value for value, port in self.inputs if value.name == port.name}
        _rename_clashing(graph, {port.name for _, port in self.inputs}, unchanged)
        for value, port in self.inputs:
            _declare(value, port)
        name_outputs(graph, [port.name for port in self.outputs])

    def restore(self, graph: ir.Graph) -> None:
        """Give `graph` this interface again; undeclared shapes and types stay.

        So do shapes that contradict those declared, which are wrong then: runtimes would refuse
        the graph once they can tell.
        """
        self.restore_names(graph)
        for value, port in zip(graph.outputs, self.outputs, strict=True):
            found = value.shape
            _declare(value, port)
            if found is not None and not _agree(found, value.shape):
                value.shape = found


def name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Name the outputs of `graph`, after making each a distinct value computed by a node.

    An output that is an input, an initializer or an earlier output becomes an Identity of it,
    unless it has the name of that input or output: a name stands for one value. Other values
    called by one of `names` are renamed.
    """
    outputs: list[ir.Value] = []
    for i, (value, name) in enumerate(zip(list(graph.outputs), names, strict=True)):
        if name in names[:i]:
            value = outputs[names.index(name)]
        elif not (value.is_graph_input() and value.name == name):
            distinct = value.producer() is not None and value not in outputs
            value = value if distinct else _copy_of(value, graph)
        outputs.append(value)
        graph.outputs[i] = value
    _rename_clashing(graph, set(names), set(outputs))
    misnamed = [value for value, name in zip(outputs, names, strict=True) if value.name != name]
    for value in misnamed:  # cleared first: the outputs may have swapped names
        value.name = None
    for value, name in zip(outputs, names, strict=True):
        value.name = name


def name_uniquely(graph: ir.Graph) -> None:
    """Give each node and value of `graph` and its subgraphs a name that no other one has.

    Names that are unique stay, as do those of inputs. What has no name is named after its
    operator. Takes time in proportion to the graph, however many names are equal.
    """
    nodes = list(ir.traversal.RecursiveGraphIterator(graph))
    graphs = {id(part): part for part in (graph, *(n.graph for n in nodes)) if part is not None}
    values, names = _Unique(), _Unique()
    for part in graphs.values():
        for value in part.inputs:
            values.keep(value)
    for part in graphs.values():
        if isinstance(part, ir.Graph):
            for value in list(part.initializers.values()):
                values.name(value, "value")
    for node in nodes:
        names.name(node, node.op_type)
        for value in node.outputs:
            values.name(value, f"{node.name}_out")


class _Unique:
    """Names in use, and the last number appended to each."""

    def __init__(self) -> None:
        self._owners: dict[str, ir.Node | ir.Value] = {}
        self._numbers: dict[str, int] = {}

    def keep(self, item: ir.Value) -> None:
        """Reserve the name of `item`."""
        self._owners[item.name or ""] = item

    def name(self, item: ir.Node | ir.Value, default: str) -> None:
        """Leave the name of `item` if no other has it, else append a number to it."""
        wanted = name = item.name or default
        if self._owners.get(name, item) is item:
            self._owners[name] = item
            if item.name != name:
                item.name = name
            return
        while name in self._owners:
            self._numbers[wanted] = number = self._numbers.get(wanted, 0) + 1
            name = f"{wanted}_{number}"
        self._owners[name] = item
        item.name = name


def _port(value: ir.Value) -> _Port:
    return _Port(value.name or "", value.shape.copy() if value.shape else value.shape, value.type)


def _declare(value: ir.Value, port: _Port) -> None:
    if value.name != port.name:
        value.name = port.name
    if port.shape is not None:
        value.shape = port.shape
    if port.type is not None:
        value.type = port.type


def _agree(found: ir.Shape, declared: ir.Shape | None) -> bool:
    """Whether both shapes can be that of one tensor."""
    if declared is None or len(found) != len(declared):
        return declared is None
    pairs = zip(found, declared, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _copy_of(value: ir.Value, graph: ir.Graph) -> ir.Value:
    node = ir.node("Identity", [value])
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    graph.append(node)
    return node.outputs[0]


def _rename_clashing(graph: ir.Graph, names: set[str], keep: set[ir.Value]) -> None:
    """Rename every value called by one of `names`, except those in `keep`."""
    computed = [out for node in ir.traversal.RecursiveGraphIterator(graph) for out in node.outputs]
    clashing = [
        value
        for value in [*computed, *graph.initializers.values()]
        if value.name in names and value not in keep
    ]
    if not clashing:
        return
    taken = {
        value.name for value in [*computed, *graph.inputs, *graph.initializers.values()]
    } | names
    for value in clashing:
        number = 1
        while (name := f"{value.name}_{number}") in taken:
            number += 1
        taken.add(name)
        value.name = name
