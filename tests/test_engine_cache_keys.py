"""The key of an engine: everything that decides what is built, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatfold import engine_cache
from flatfold.backends.onnxruntime.cpu import OrtCpu
from flatfold.compiler import Options
from flatfold.frontend import Source
from flatfold.system import host
from tests.nets import Net

BODY = """<ir_version: 10, opset_import: ["" : 20]>
net (float[N, 4, 9, 8] x, bool which) => (float[N, 4, 9, 8] y) {
  [narrow] PREFIXn = Conv (x, PREFIXw1)
  [wide] PREFIXm = Conv <pads = [1, 1, 1, 1]> (x, PREFIXw3)
  [both] PREFIXs = Add (PREFIXn, PREFIXm)
  [choice] PREFIXc = If (which) <
    then_branch = then () => (float[N, 4, 9, 8] PREFIXa) { [keep] PREFIXa = Relu (PREFIXs) },
    else_branch = other () => (float[N, 4, 9, 8] PREFIXb) { [turn] PREFIXb = Neg (PREFIXs) }
  >
  [end] y = Sigmoid (PREFIXc)
}"""


def branches(weight: float = 1.0, prefix: str = "", size: int = 9, opset: int = 18) -> ir.Model:
    """Two convolutions that are added, and a Relu."""
    net = Net(("n", 4, size, 8), dtype=np.float32, opset=opset)
    y = net.op("Add", net.conv(net.x, 4, 4, (3, 3)), net.conv(net.x, 4, 4, (1, 1)))
    net.constants["c0"] = (net.constants["c0"] * weight).astype(np.float32)
    model = ir.from_proto(net.model(net.op("Relu", y)))
    renamed(model, lambda name: prefix + name)
    return model


def renamed(model: ir.Model, name_of: Callable[[str], str]) -> None:
    """Renames every value and weight but the inputs and outputs of the model."""
    interface = {*model.graph.inputs, *model.graph.outputs}
    for graph in model.graphs():
        values = [*graph.inputs, *graph.initializers.values()]
        values += [value for node in graph for value in node.outputs]
        for value in values:
            if value not in interface and value.name:
                value.name = name_of(value.name)


def conditional() -> ir.Model:
    rng = np.random.default_rng(0)
    weights = [
        ir.tensor(rng.standard_normal((4, 4, k, k)).astype(np.float32), name=f"w{k}")
        for k in (1, 3)
    ]
    return ir.from_onnx_text(BODY.replace("PREFIX", ""), initializers=weights)


def key(model: ir.Model | None = None, name: str = "net", **options: Any) -> str:
    source = Source(name, branches() if model is None else model, options.pop("module", None))
    return engine_cache.key_of(source, OrtCpu(), Options("ort-cpu", **options).cache_key())


def test_the_same_has_the_same_key() -> None:
    assert key() == key() and len(key()) == 64
    assert key(conditional()) == key(conditional())


@given(st.lists(st.text("_0123456789abcxy", min_size=1, max_size=7), min_size=40, unique=True))
def test_what_inner_values_are_called_does_not_matter(names: list[str]) -> None:
    expected = {make: engine_cache.graph_hash(make()) for make in (branches, conditional)}
    for make, digest in expected.items():
        model, fresh = make(), iter(names)
        taken = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
        weights = {graph: list(graph.initializers.values()) for graph in model.graphs()}
        allowed = (name for name in fresh if name not in taken)
        renamed(model, lambda name: f"before {name}")  # so that none is in the way of another
        renamed(model, lambda _, allowed=allowed: next(allowed))
        assert engine_cache.graph_hash(model) == digest
        assert all(v.const_value.name == v.name for vs in weights.values() for v in vs)


CHANGES: dict[str, Callable[[ir.Model], object]] = {
    "interface": lambda m: setattr(m.graph.outputs[0], "name", "z"),
    "node name": lambda m: setattr(m.graph[0], "name", "z"),
    "operator": lambda m: setattr(m.graph[-1], "op_type", "Tanh"),
    "attribute": lambda m: m.graph[0].attributes.add(ir.AttrInt64s("dilations", [2, 2])),
    "shape": lambda m: setattr(m.graph.inputs[0], "shape", ir.Shape([1, 4, 9, 8])),
    "open axis": lambda m: setattr(m.graph.inputs[0], "shape", ir.Shape(["M", 4, 9, 8])),
    "opset": lambda m: m.graph.opset_imports.update({"": 21}),
    "wiring": lambda m: m.graph[2].replace_input_with(0, m.graph[2].inputs[1]),
    "comment": lambda m: setattr(m.graph[0], "doc_string", "said"),
    "labels": lambda m: m.metadata_props.update({"names": "cat, dog"}),
    "subgraph": lambda m: setattr(
        m.graph[3].attributes["then_branch"].as_graph()[0], "op_type", "Abs"
    ),
    "function": lambda m: m.functions.update({F.identifier(): F}),
}

F = ir.Function("own", "twice", "", graph=ir.Graph([], [], nodes=[], name="f"), attributes=[])


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_of_the_graph_is_another_key(what: str) -> None:
    model = conditional()
    CHANGES[what](model)
    assert engine_cache.graph_hash(model) != engine_cache.graph_hash(conditional())


@given(st.sampled_from(["w1", "w3"]), st.integers(0, 15), st.integers(0, 31))
def test_any_bit_of_a_weight_is_another_key(name: str, element: int, bit: int) -> None:
    model = conditional()
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array.view(np.uint32).flat[element] ^= np.uint32(1 << bit)
    value.const_value = ir.tensor(array, name=name)
    assert engine_cache.graph_hash(model) != engine_cache.graph_hash(conditional())


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.bool_])
def test_the_type_of_a_weight_counts_beside_its_bytes(dtype: type) -> None:
    model = conditional()
    zeros = {kind: np.zeros((4, 4), kind) for kind in (np.float32, dtype)}
    hashes = set()
    for array in zeros.values():
        model.graph.initializers["w1"].const_value = ir.tensor(array, name="w1")
        hashes.add(engine_cache.graph_hash(model))
    assert len(hashes) == 2


def test_weights_in_attributes_and_of_text_count() -> None:
    hashes = set()
    for tensor in (ir.tensor(np.zeros(3, np.float32)), ir.tensor(np.ones(3, np.float32))):
        net = conditional()
        net.graph[0].attributes.add(ir.AttrTensor("value", tensor))
        hashes.add(engine_cache.graph_hash(net))
    for text in (b"a", b"b"):
        net = conditional()
        net.graph.initializers["w1"].const_value = ir.StringTensor(
            [text], shape=ir.Shape([1]), name="w1"
        )
        hashes.add(engine_cache.graph_hash(net))
    assert len(hashes) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"name": "other"},
        {"verify": "sample"},
        {"passes": ("merge-branches",)},
        {"simplify": True},
        {"engine_options": {"intra_threads": 1}},
        {"engine_options": {"intra_threads": True}},
        {"engine_options": {"intra_threads": "1"}},
        {"module": object()},
    ],
)
def test_any_choice_is_another_key(options: dict[str, Any]) -> None:
    assert key(**options) not in (key(), key(engine_options={"intra_threads": 2}))


def test_who_builds_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, versions = key(), host.versions
    changes = [
        (OrtCpu, "device", lambda self: "another processor"),
        (OrtCpu, "name", "ort-gpu"),
        (OrtCpu, "packages", ("onnxsim",)),
        (engine_cache, "source_hash", lambda: "another"),
        (host, "versions", lambda names: {**versions(names), "onnx": "0"}),
    ]
    for place, name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            assert key() != usual
    assert key() == usual


def test_the_source_is_all_of_it() -> None:
    engine_cache.source_hash.cache_clear()
    first = engine_cache.source_hash()
    engine_cache.source_hash.cache_clear()
    assert first == engine_cache.source_hash()
