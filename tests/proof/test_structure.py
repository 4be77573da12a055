"""What was certified once is not certified again for the same change in another place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.passes import PIPELINE, Change, Pipeline
from flatfold.proof import RegionChecks, region_check
from flatfold.proof.structure import structure_of

Weights = Callable[[np.random.Generator], np.ndarray]


def dense(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 1.5, (4, 4, 3, 3))


def without_a_column(rng: np.random.Generator) -> np.ndarray:
    weight = dense(rng)
    weight[..., 2] = 0
    return weight


def blocks(*kinds: Weights, pad: int = 1, activation: str = "Relu") -> ir.Model:
    """A Conv, a BatchNormalization and an activation for each kind of weights."""
    x = ir.val("x", ir.DataType.FLOAT, [1, 4, 9, 9])
    nodes, initializers, value, rng = [], [], x, np.random.default_rng(0)

    def constant(name: str, array: np.ndarray) -> ir.Value:
        value = ir.val(name, const_value=ir.tensor(array.astype(np.float32), name=name))
        initializers.append(value)
        return value

    for number, kind in enumerate(kinds):
        weight = constant(f"w{number}", kind(rng))
        norm = [constant(f"{part}{number}", rng.uniform(0.5, 1.5, 4)) for part in "sbmv"]
        conv = ir.node("Conv", [value, weight], {"pads": [pad] * 4})
        batch_norm = ir.node("BatchNormalization", [conv.outputs[0], *norm])
        last = ir.node(activation, [batch_norm.outputs[0]])
        nodes += [conv, batch_norm, last]
        value = last.outputs[0]
        for node in nodes[-3:]:
            node.outputs[0].shape = ir.Shape([1, 4, 9, 9])
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [value], nodes=nodes, initializers=initializers, opset_imports={"": 17})
    return ir.Model(graph, ir_version=8)


def structures(model: ir.Model) -> list[bytes | None]:
    found: list[bytes | None] = []

    def check(change: Change) -> None:
        found.append(structure_of(change))

    Pipeline([rewrite() for rewrite in PIPELINE], check=check).run(model)
    return found


def test_the_same_block_with_other_weights_is_certified_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Change] = []
    certify = region_check.require_identity

    def counted(change: Change, *rest: object) -> None:
        calls.append(change)
        certify(change, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(region_check, "require_identity", counted)
    checks = RegionChecks(certifying=True)
    Pipeline([rewrite() for rewrite in PIPELINE], check=checks).run(blocks(*[dense] * 3))
    assert (checks.regions, checks.certified, len(calls)) == (3, 3, 1)
    assert all(entry.ratio > 0 for entry in checks.entries), "each is still checked in floats"


def test_zeros_and_ones_in_other_places_are_another_structure() -> None:
    def one(rng: np.random.Generator) -> np.ndarray:
        weight = dense(rng)
        weight[0, 0, 0, 0] = 1
        return weight

    first, second, third, fourth = structures(blocks(dense, without_a_column, one, dense))
    assert len({first, second, third}) == 3 and first == fourth


def test_other_attributes_are_another_structure() -> None:
    (padded,) = structures(blocks(dense))
    (cropped,) = structures(blocks(dense, pad=0))
    assert padded != cropped


def test_a_region_with_an_activation_has_none() -> None:
    """LeakyRelu of slope 1 is linear; of other activations the range of the input decides."""
    model = blocks(dense, activation="LeakyRelu")
    (leaky,) = (node for node in model.graph if node.op_type == "LeakyRelu")
    leaky.attributes["alpha"] = ir.AttrFloat32("alpha", 1.0)
    assert structures(model) == [None]
