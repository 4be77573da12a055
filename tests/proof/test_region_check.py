"""The check of a change must catch planted faults, each of a kind that sampling misses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.errors import NotEquivalent
from flatfold.passes import PIPELINE, Change, Pipeline
from flatfold.passes.decline import Decline
from flatfold.proof import RegionChecks
from flatfold.proof.certificate import Entry
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair, Unsupported
from flatfold.proof.trial_data import extents
from tests.nets import Net, rewrite

C = 8


def block(seed: int, stride: int = 1, dtype=np.float32) -> Net:
    """RepVGG's block; constants c0..c4 are the 3x3 and its norm, c5..c9 the 1x1, c10.. identity."""
    net = Net((1, C, 12, 11), seed=seed, dtype=dtype)
    options = {"strides": [stride, stride]}
    y = net.bn(net.conv(net.x, C, C, (3, 3), False, **options), C)
    y = net.op("Add", y, net.bn(net.conv(net.x, C, C, (1, 1), False, **options), C))
    if stride == 1:
        y = net.op("Add", y, net.bn(net.x, C))
    net.y = net.op("Relu", y)
    return net


def channel(array: np.ndarray, index: int, factor: float) -> np.ndarray:
    changed = array.copy()
    changed[index] *= factor
    return changed


def one(array: np.ndarray, factor: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[array.size // 2] *= factor
    return changed


# What a faulty folding would have done, as a change of the parameters that it folds.
FAULTS: dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "mean's sign, one channel": lambda c: {"c3": channel(c["c3"], 3, -1)},
    "variance x4, one channel": lambda c: {"c4": channel(c["c4"], 3, 4)},
    "eps 1e-3 for 1e-5": lambda c: {"c4": c["c4"] + np.float32(1e-3)},
    "eps omitted": lambda c: {"c4": c["c4"] - np.float32(1e-5)},
    "one weight x1.001": lambda c: {"c0": one(c["c0"], 1.001)},
    "one weight x1.00001": lambda c: {"c0": one(c["c0"], 1.00001)},
    "one weight zeroed": lambda c: {"c0": one(c["c0"], 0)},
    "kernel transposed": lambda c: {"c0": c["c0"].transpose(0, 1, 3, 2)},
    "kernel's channels swapped": lambda c: {"c0": c["c0"].transpose(1, 0, 2, 3)},
    "kernel flipped": lambda c: {"c0": c["c0"][:, :, ::-1, ::-1]},
    "1x1 branch dropped": lambda c: {"c6": 0 * c["c6"], "c7": 0 * c["c7"]},
    "identity's scale dropped": lambda c: {"c10": np.ones_like(c["c10"])},
    "folded in half precision": lambda c: {"c0": c["c0"].astype(np.float16).astype(np.float32)},
}


def lowered_of(net: Net) -> dict[str, np.ndarray]:
    """The weights that the rewrites make of a net, by name."""
    done = rewrite(net.model(net.y))
    return {v.name: v.const_value.numpy() for v in done.graph.graph.initializers.values()}


def check_with(net: Net, weights: Callable[[str, np.ndarray], np.ndarray]) -> float:
    """Rewrite `net`, but show the check other weights; returns the largest ratio."""
    ratios = []

    def check(change: Change) -> None:
        new = [
            ir.Value(
                name=v.name,
                const_value=ir.Tensor(np.ascontiguousarray(weights(v.name, v.const_value.numpy()))),
            )
            for v in change.replacement.initializers
        ]
        for old, value in zip(change.replacement.initializers, new, strict=True):
            old.const_value = value.const_value
        checks = RegionChecks()
        checks(replace(change))
        ratios.append(checks.worst)

    Pipeline([kind() for kind in PIPELINE], check=check).run(ir.from_proto(net.model(net.y)))
    return max(ratios)


@pytest.mark.parametrize("seed", range(20))
def test_no_false_alarm(seed):
    net = block(seed, 1 + seed % 2)
    assert check_with(net, lambda _, array: array) <= 1.0


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_every_planted_fault_is_caught(fault, seed):
    net, wrong = block(seed), block(seed)
    wrong.constants.update(FAULTS[fault](wrong.constants))
    mutated = lowered_of(wrong)
    with pytest.raises(NotEquivalent, match="u\\*M"):
        check_with(net, lambda name, _: mutated[name])


def test_the_wrong_weight_is_named():
    net, wrong = block(0), block(0)
    wrong.constants.update(FAULTS["one weight zeroed"](wrong.constants))
    right, mutated = lowered_of(net), lowered_of(wrong)
    name = next(name for name in right if right[name].ndim == 4)
    place = np.argwhere(right[name] != mutated[name])
    assert len(place) == 1
    output, source, *tap = place[0].tolist()
    says = f"output channel {output}, input channel {source}, tap {tuple(tap)}"
    with pytest.raises(NotEquivalent, match=re.escape(says)):
        check_with(net, lambda name, _: mutated[name])


@pytest.mark.parametrize("seed", range(3))
def test_a_tap_in_the_wrong_place_is_caught(seed):
    def moved(name: str, array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        if array.ndim == 4:  # the identity of channel 2 one pixel off
            changed[2, 2, 1, 1] -= 0.5
            changed[2, 2, 1, 2] += 0.5
        return changed

    with pytest.raises(NotEquivalent):
        check_with(block(seed), moved)


def test_the_extent_holds_rim_and_inside_and_every_stride_residue():
    seen = []

    def look(change: Change) -> None:
        seen.append([next(iter(e.values())) for e in extents(change)])
        raise Decline("STOP", "only looking")

    for sizes in [(9, 8), ("h", "w")]:
        net = Net((1, 4, *sizes))
        net.bn(net.conv(net.x, 4, 4, (5, 5), strides=[2, 2]), 4)
        model = ir.from_proto(net.model("batchnormalization1"))
        Pipeline([kind() for kind in PIPELINE], check=look).run(model)
    known, unknown = seen
    assert len(known) == 1
    assert [size % 2 for size in known[0]] == [1, 0]
    assert {tuple(s % 2 for s in e) for e in unknown} == {(0, 0), (1, 1)}
    assert all(min(extent) >= 5 for extent in (*known, *unknown))


def test_maps_smaller_than_the_kernel_are_checked_at_their_own_size():
    net = Net((1, 4, 2, 3))
    y = net.op("Add", net.conv(net.x, 4, 4, (7, 7)), net.conv(net.x, 4, 4, (3, 3)))
    done = rewrite(net.model(y))
    assert done.applied == ["merge-branches"]


def test_an_operator_of_another_domain_is_not_known():
    relu = ir.node("Relu", [ir.Value(name="x")], domain="somebody.else")
    x = Pair(np.ones((1, 1)), np.ones((1, 1)))
    with pytest.raises(Unsupported, match=r"somebody\.else\.Relu"):
        evaluate([relu], {relu.inputs[0]: x})


@pytest.mark.parametrize("declined", [0, 1, None])
def test_of_changes_made_together_all_are_certified_or_none_is_made(declined: int | None):
    net = Net((1, 4, 9, 7))
    y = net.bn(net.op("Sigmoid", net.x), 4)
    ends = [net.op("Relu", net.conv(y, 5, 4, (1, 1))) for _ in range(2)]

    class Checks(RegionChecks):
        def _checked(self, change: Change, number: int) -> Entry:
            if number == declined:
                raise Decline("UNPROVED", "a test declines it")
            return super()._checked(change, number)

    checks, model = Checks(), ir.from_proto(net.model(*ends))
    Pipeline([kind() for kind in PIPELINE], check=checks).run(model)
    norms = sum(node.op_type == "BatchNormalization" for node in model.graph)
    assert (norms, checks.regions) == ((1, 0) if declined is not None else (0, 2))
