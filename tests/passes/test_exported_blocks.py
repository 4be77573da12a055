"""Training-form blocks from every exporter, at a small and at a realistic width.

By default each block is exported once, small; the marks on the others say why they are slow.
"""

from __future__ import annotations

import pytest
import torch

import flatfold
from tests.passes.exported import diverse, large, moving, partial, shiftwise, small
from tests.passes.exported.exporters import (
    SMALL,
    WAYS,
    WIDE,
    Case,
    legacy,
    made,
    operators,
    optimized,
)

FAMILIES = (diverse, partial, large, small, moving)
CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.CASES.items()}

# By default, where an export takes seconds, what no small network of tests/golden/ has.
CHOSEN = (
    "DBB depthwise 3x3 s1, writes",
    "repvgg 3-D, with biases",
    "interleave, conv",
    "written beside conv",
    "sampled beside conv",
)
WIDELY = ("ConvNeXt", "sandglass /2, slices", "RepLKNet 13", "CSLA", "ResNet-D")
OPSETS = range(13, 21)  # what the exporter by tracing can write
IN_OPSETS = (
    "CSLA",
    "sandglass /2, in place",
    "VanillaNet slope 1",
    "ConvTranspose 2-D, grouped",
    "repvgg 1-D, no biases",
    "shuffle, conv",
    "narrowed beside conv",
    "pool, BN1d, linear",
)


def assert_deployed(done: flatfold.Optimized, case: Case, channels: int) -> None:
    wanted = case.small if channels == SMALL and case.small is not None else case.after
    assert operators(done) == wanted
    changed = any(remark.applied for remark in done.remarks)  # the exporter may have left nothing
    assert done.equivalence.verdict == (case.verdict if changed else "sampled")


def default_way(case: Case) -> str:
    exporter = "legacy" if "legacy" in case.exporters else case.exporters[0]
    return f"{exporter}, {case.batches[-1]}"


def possible(case: Case) -> list[str]:
    return [w for w in WAYS if set(w.split(", ")) <= {*case.exporters, *case.batches}]


@pytest.mark.parametrize("name", CASES)
def test_one_exporter(name: str) -> None:
    case = CASES[name]
    assert_deployed(optimized(case, SMALL, default_way(case)), case, SMALL)


@pytest.mark.parametrize("name", CHOSEN)
def test_new_exporter(name: str) -> None:
    case = CASES[name]
    assert_deployed(optimized(case, SMALL, f"new, {case.batches[-1]}"), case, SMALL)


@pytest.mark.parametrize("name", WIDELY)
def test_realistic_width(name: str) -> None:
    case = CASES[name]
    assert_deployed(optimized(case, WIDE, "legacy, static"), case, WIDE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way", "channels"),
    [(n, way, c) for n, case in CASES.items() for way in possible(case) for c in case.maps],
)
def test_every_exporter(name: str, way: str, channels: int) -> None:
    case = CASES[name]
    assert_deployed(optimized(case, channels, way), case, channels)


@pytest.mark.parametrize("name", IN_OPSETS)
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(name: str, opset: int) -> None:
    case = CASES[name]
    dynamic = case.batches[-1] == "dynamic"
    proto = legacy(made(case, SMALL), case.shape(SMALL), False, dynamic, opset)
    assert proto.opset_import[0].version == opset
    assert_deployed(flatfold.optimize(proto), case, SMALL)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("shift-wise 13, one-hot", SMALL),
        ("shift-wise 13, slices", SMALL),
        ("shift-wise 51, one-hot", SMALL),
        # Some thousand nodes each.
        pytest.param("shift-wise 51, slices", SMALL, marks=pytest.mark.slow),
        pytest.param("shift-wise 13, slices", WIDE, marks=pytest.mark.slow),
    ],
)
def test_shift_wise_operator(name: str, channels: int) -> None:
    """All the shifts of all the shuffles are two strips."""
    case = shiftwise.CASES[name]
    assert_deployed(optimized(case, channels, "legacy, static"), case, channels)


def test_what_is_optimized_is_what_the_module_computes() -> None:
    """The proof compares two graphs; here the module itself is asked, on another size of batch."""
    case = CASES["sandglass /2, in place"]
    module = made(case, SMALL)
    done = flatfold.optimize(legacy(module, case.shape(SMALL), True, True))
    x = torch.randn(3, *case.shape(SMALL), generator=torch.Generator().manual_seed(1))
    wanted = module(x).detach()
    found = torch.from_numpy(flatfold.compile(done.model, target="ort-cpu")(x.numpy()))
    bound = 2.0**-24 * 9 * 5 * wanted.abs().max()  # sums of at most nine products, five layers
    assert (found - wanted).abs().max() <= bound
