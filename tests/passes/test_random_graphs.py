"""No random graph may be rewritten wrongly; the smallest one that is gets printed."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from flatfold.passes import PIPELINE, Pipeline, Rewrite
from flatfold.passes.stencil import kernels
from tests.nets import Rewritten, assert_same, assert_same_on_basis, assert_untouched, rewrite
from tests.passes.drawn.build import STEPS, Built, build
from tests.passes.drawn.printed import printed
from tests.passes.drawn.records import Graph, Step
from tests.passes.drawn.strategy import graphs

FUZZED = int(os.environ.get("FLATFOLD_FUZZ_COUNT", "2000"))
COUNT = FUZZED if settings.get_current_profile_name() == "fuzz" else 200
ORDERS = st.one_of(st.none(), st.none(), st.permutations(range(len(PIPELINE))))
DRAWN = settings(
    max_examples=COUNT,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    report_multiple_bugs=False,
)

FOUND = settings(DRAWN, max_examples=2000, phases=[Phase.generate])


@DRAWN
@given(graphs(), ORDERS)
def test_random_graphs_keep_their_function(graph: Graph, order: list[int] | None) -> None:
    built = build(graph)
    report(what_fails(lambda: assert_kept(built, order)), built)


@settings(DRAWN, max_examples=COUNT // 4)
@given(graphs(affine=True))
def test_linear_graphs_agree_on_a_basis_of_their_inputs(graph: Graph) -> None:
    """Two affine functions that agree on 0 and on every impulse agree everywhere."""
    built = build(graph)
    report(what_fails(lambda: assert_same_on_basis(rewrite(built.model), built.shape)), built)


def what_fails(check: Callable[[], None]) -> str:
    """Empty if nothing does."""
    try:
        check()
    except Exception:
        return traceback.format_exc(limit=-3)
    return ""


def report(reason: str, built: Built) -> None:
    """Hypothesis takes errors of different lines for different faults and shrinks within one only;

    raised at one line, they let it drop whatever a failure does not need.
    """
    if reason:
        raise AssertionError(f"{reason}\n{printed(built.model)}")


def assert_kept(built: Built, order: list[int] | None) -> None:
    before = built.model.SerializeToString()
    done = rewrite(built.model)
    assert_same(done, built.shape)
    assert built.model.SerializeToString() == before, "the model that was given is changed"
    assert_untouched(rewrite(done.after))
    assert all(why.endswith("an attribute has single precision") for why in done.checks.doubts)
    if order is not None:
        assert_same_in_another_order(done, built, order)


def assert_same_in_another_order(done: Rewritten, built: Built, order: list[int]) -> None:
    model = ir.from_proto(built.model)
    remarks = Pipeline([PIPELINE[i]() for i in order], check=done.checks).run(model)
    other = Rewritten(built.model, model, remarks, done.checks)
    assert other.ops == done.ops, "another order of the passes gives another graph"
    assert_same(other, built.shape)


@pytest.mark.parametrize("kind", STEPS)
def test_every_step_is_drawn_and_fits(kind: type[Step]) -> None:
    find(graphs(), lambda graph: any(type(s) is kind for s in build(graph).steps), settings=FOUND)


@pytest.mark.parametrize("kind", [kind for kind in PIPELINE if issubclass(kind, Rewrite)])
def test_every_rewrite_has_work(kind: type[Rewrite]) -> None:
    def is_used(graph: Graph) -> bool:
        remarks = Pipeline([r() for r in PIPELINE]).run(ir.from_proto(build(graph).model))
        return any(remark.applied and remark.rewrite == kind.name for remark in remarks)

    find(graphs(), is_used, settings=FOUND)


def lose_the_constant(weight, shape, constant):
    return np.zeros(shape.outputs)


def mirror(total, shape, weight, part, accumulate=kernels.accumulate):
    accumulate(total, shape, np.flip(weight, -1), part)


FAULTS = [
    (test_random_graphs_keep_their_function, "apply_to_constant", lose_the_constant),
    (test_linear_graphs_agree_on_a_basis_of_their_inputs, "accumulate", mirror),
]


@pytest.mark.parametrize(("check", "name", "fault"), FAULTS, ids=["bias lost", "branch mirrored"])
def test_a_wrong_rewrite_is_found_and_printed_small(
    check: Callable[[], None], name: str, fault: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, name, fault)
    with pytest.raises(AssertionError) as failure:
        check()
    _, _, shown = str(failure.value).partition("\nx: float64[")
    nodes = re.findall(r"^[\w, ]+ = \w+\(.*\)$", shown, re.MULTILINE)
    assert re.search(r"^return \w+$", shown, re.MULTILINE)
    assert 1 <= len(nodes) <= 4
