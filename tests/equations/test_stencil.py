"""The algebra of stencils against the definition, over random geometries of 0 to 3 axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flatfold.passes.decline import Decline
from flatfold.passes.stencil import stencil as sa
from flatfold.passes.stencil import taps
from flatfold.passes.stencil.stencil import Stencil, convolution
from tests.equations.direct import direct
from tests.nets import ROUNDING

GROUPS = {(4, 4): [1, 2, 4], (4, 8): [1, 2, 4], (8, 4): [1, 2, 4], (6, 4): [1, 2], (3, 4): [1]}


def close(a, b) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING)


@st.composite
def stencils(draw, axes: int, channels: tuple[int, int], strides=(1, 2), dilations=(1, 2, 3)):
    """A random stencil from channels[0] to channels[1], crops and even kernels included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from(GROUPS.get(channels, [1])))
    each = lambda *values: tuple(draw(st.sampled_from(values)) for _ in range(axes))  # noqa: E731
    kernel = each(1, 2, 3)
    has_bias = draw(st.booleans())
    return convolution(
        rng.standard_normal((channels[1], channels[0] // groups, *kernel)),
        rng.standard_normal(channels[1]) if has_bias else None,
        groups=groups,
        strides=each(*strides),
        dilations=each(*dilations),
        begin=each(-1, 0, 1, 2),
        end=each(-1, 0, 1, 2),
    )


@st.composite
def inputs(draw, axes: int, channels: int) -> np.ndarray:
    sizes = tuple(draw(st.integers(12, 15)) for _ in range(axes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.standard_normal((2, channels, *sizes))


@settings(deadline=None, max_examples=120)
@given(st.data(), st.integers(0, 3))
def test_sum_of_stencils_is_the_stencil_of_the_sum(data, axes):
    x = data.draw(inputs(axes if axes < 3 else 2, 4))
    axes = x.ndim - 2
    parts = data.draw(st.lists(stencils(axes, (4, 4), strides=(2,)), min_size=2, max_size=4))
    values = [direct(part, x) for part in parts]
    same = len({value.shape for value in values}) == 1
    if not same:
        with pytest.raises(Decline, match="same size"):
            sa.add(parts, x.shape[2:])
        return
    assert close(direct(sa.add(parts, x.shape[2:]), x), sum(values))


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(0, 2), st.sampled_from([(4, 4), (4, 8), (3, 4), (6, 4)]))
def test_composition_equals_one_after_the_other_or_is_declined(data, axes, channels):
    x = data.draw(inputs(axes, channels[0]))
    f = data.draw(stencils(axes, channels))
    g = data.draw(stencils(axes, (channels[1], 4)))
    middle = direct(f, x)
    assume(min(g.geometry.output_sizes(middle.shape[2:]), default=1) >= 1)
    expected = direct(g, middle)
    for sizes in (None, x.shape[2:]):
        try:
            composed = sa.compose(g, f, sizes)
        except Decline:
            continue
        assert close(direct(composed, x), expected)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 2))
def test_a_declined_composition_really_differs_on_the_border(data, axes):
    """The border rule is not only safe but tight: with the sizes known, a refusal is needed.

    (An outer stencil with a stride or dilation may happen to skip the one bad pixel.)
    """
    x = data.draw(inputs(axes, 3))
    f = data.draw(stencils(axes, (3, 4)))
    g = data.draw(stencils(axes, (4, 4), strides=(1,), dilations=(1,)))
    middle = direct(f, x)
    assume(min(middle.shape[2:]) >= 7)
    assume(min(g.geometry.output_sizes(middle.shape[2:])) >= 1)
    try:
        sa.require_exact(g.geometry, f.geometry, f.bias is not None, x.shape[2:])
    except Decline:
        forced = _composed_without_asking(g, f)
        assert not close(direct(forced, x), direct(g, middle))


def _composed_without_asking(g: Stencil, f: Stencil) -> Stencil:
    original = sa.require_exact
    sa.require_exact = lambda *_: None
    try:
        return sa.compose(g, f)
    finally:
        sa.require_exact = original


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(0, 2))
def test_scale_negation_and_difference(data, axes):
    x = data.draw(inputs(axes, 4))
    f = data.draw(stencils(axes, (4, 4), strides=(1,)))
    d = np.array([2.0, 0.0, -1.5, 1.0])
    assert close(direct(d * f, x), d.reshape(-1, *(1,) * axes) * direct(f, x))
    assert close(direct(-f, x), -direct(f, x))
    assert close(direct(f - 0.5 * f, x), 0.5 * direct(f, x))


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 2))
def test_crop_trim_and_uncrop_keep_the_function(data, axes):
    x = data.draw(inputs(axes, 4))
    f = data.draw(stencils(axes, (4, 4)))
    y = direct(f, x)
    begin = tuple(data.draw(st.integers(0, 1)) for _ in range(axes))
    end = tuple(data.draw(st.integers(0, 1)) for _ in range(axes))
    window = tuple(slice(b, n - e) for b, e, n in zip(begin, end, y.shape[2:], strict=True))
    assert close(direct(taps.crop(f, begin, end), x), y[(..., *window)])
    whole = taps.crops_to_taps(f)
    assert min((*whole.geometry.begin, *whole.geometry.end)) >= 0
    assert close(direct(whole, x), y)
    assert close(direct(taps.trim(whole), x), y)


def test_trim_drops_the_zero_rim_and_nothing_else():
    weight = np.zeros((4, 2, 5, 7))
    weight[:, :, 2:4, 3] = 1.0
    trimmed = taps.trim(convolution(weight, groups=2, begin=(2, 3), end=(2, 3)))
    assert trimmed.geometry.kernel == (2, 1)
    assert (trimmed.geometry.begin, trimmed.geometry.end) == ((0, 0), (1, 0))


def test_regroup_both_ways():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 6))
    f = convolution(rng.standard_normal((4, 2, 3)), groups=4, begin=(1,))
    for groups in (1, 2, 4):
        wide = sa.regroup(f, groups)
        assert close(direct(wide, x), direct(f, x))
        assert np.array_equal(sa.regroup(wide, 4).weight, f.weight)
    with pytest.raises(ValueError, match="not zero"):
        sa.regroup(convolution(rng.standard_normal((4, 8, 3))), 2)


def test_a_sum_takes_the_coarsest_lattice_that_holds_all_taps():
    """Two kernels of dilation 2, one tap apart by 4: no zero taps are made up between."""
    f = convolution(np.ones((1, 1, 3)), dilations=(2,), begin=(4,), end=(0,))
    g = convolution(np.ones((1, 1, 1)), begin=(-2,), end=(2,))
    merged = sa.add([f, g]).geometry
    assert (merged.kernel, merged.dilations, merged.begin) == ((4,), (2,), (4,))


def test_average_pool_of_even_size_joins_a_3x3_of_stride_2_on_even_maps_only():
    pool = convolution(np.full((2, 1, 2, 2), 0.25), groups=2, strides=(2, 2))
    conv = convolution(np.ones((2, 2, 3, 3)), strides=(2, 2), begin=(1, 1))
    assert sa.add([conv, pool], (8, 8)).geometry.kernel == (3, 3)
    for sizes in (None, (8, 9), (7, 7), (8, None)):
        with pytest.raises(Decline, match="some inputs only"):
            sa.add([conv, pool], sizes)


def test_arithmetic_promotes_half_precision_once():
    f = convolution(np.full((1, 1, 1), 2048, np.float16))
    g = convolution(np.full((1, 1, 1), 1, np.float16))
    assert (f + g).weight.item() == 2049.0
