"""Shift-ConvNets are the published networks: tables, shifts, layers and names."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flatfold.models import ZOO
from flatfold.models.initialise import initialise
from flatfold.models.shifts import SHIFTS, shift_add
from flatfold.models.shuffles import Layout, drawn
from flatfold.models.swnet import ShiftWise, swnet
from tests.models.published import norm, require_round_trip
from tests.models.test_convnext import frame, layer
from tests.models.test_unireplknet import gated, strided
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums

# (big, small, channels, shuffles): small divides big or not, is all of it, has several sizes
LAYOUTS = [Layout(13, 3, 4, 4), Layout(51, 5, 2, 3), Layout(9, 3, 3, 1), Layout(5, 5, 2, 2)]


def results(layout: Layout, height: int, width: int) -> Tensor:
    shape = (2, layout.channels * layout.count, height + 2 * layout.edge, width + 2 * layout.edge)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def published_tables(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Moves along both axes [channel of T, shuffle], results that stay [channel, shuffle]."""
    channels, count, moves = layout.channels, layout.count, torch.tensor(layout.moves)

    def moved() -> Tensor:
        orders = [
            torch.cat([torch.randperm(count) + c * count for c in range(channels)])
            for _ in range(layout.shuffles)
        ]
        return torch.stack([moves.repeat(channels)[order.argsort()] for order in orders], 1)

    with torch.random.fork_rng():
        torch.manual_seed(123)
        along = moved(), moved()
        still = [torch.randint(0, count, [channels]) for _ in range(layout.shuffles)]
        return *along, torch.stack(still, 1) + torch.arange(channels)[:, None] * count


def published_sums(layout: Layout, parts: Tensor) -> list[Tensor]:
    """The equations of the paper's operator, one result and one pixel after the other."""
    horizontal, vertical, still = published_tables(layout)
    edge, (tall, wide) = layout.edge, parts.shape[2:]
    height, width = tall - 2 * edge, wide - 2 * edge
    sums = [torch.zeros(2, layout.channels, height, width, dtype=parts.dtype) for _ in range(3)]
    rows, columns = slice(edge, edge + height), slice(edge, edge + width)
    for r in range(layout.shuffles):
        for k in range(parts.shape[1]):
            c = k // layout.count
            for w in range(width):
                if 0 <= (at := w - int(horizontal[k, r])) < wide:
                    sums[0][:, c, :, w] += parts[:, k, rows, at]
            for h in range(height):
                if 0 <= (at := h - int(vertical[k, r])) < tall:
                    sums[1][:, c, h] += parts[:, k, at, columns]
        for c in range(layout.channels):
            sums[2][:, c] += parts[:, int(still[c, r]), rows, columns]
    return sums


@pytest.mark.parametrize("size", [(4, 9), (11, 2)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("way", SHIFTS)
def test_every_shift_is_the_published_one(way: str, layout: Layout, size: tuple[int, int]) -> None:
    parts = results(layout, *size)
    found = shift_add(way, layout).double()(parts)
    for mine, published in zip(found, published_sums(layout, parts), strict=True):
        assert_same_sums(mine, published, layout.shuffles * layout.count)


def test_moves_are_those_of_the_paper() -> None:
    ends = {
        (51, 3): (17, 23, -25),
        (49, 3): (17, 22, -26),
        (47, 3): (16, 21, -24),
        (13, 3): (5, 4, -8),
        (51, 5): (11, 21, -29),
        (49, 5): (10, 20, -25),
        (13, 5): (3, 2, -8),
    }
    for (big, small), (count, first, last) in ends.items():
        layout = Layout(big, small, 2, 4)
        assert layout.count == count
        assert (layout.moves[0], layout.moves[-1]) == (first, last)


def test_drawing_leaves_the_random_states_alone() -> None:
    drawn.cache_clear()
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    shift_add("deformable", Layout(13, 3, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)
    ShiftWise(8, Layout(13, 3, 6, 4))
    assert np.array_equal(np.random.get_state()[1], numbers)


@pytest.mark.parametrize("width", [80, 96, 320])
def test_ghosts_are_the_published_ones(width: int) -> None:
    moving = int(width * (1 - 0.23)) // 2 * 2
    before = np.random.get_state()
    np.random.seed(123)
    ghosts = sorted(np.random.choice(width, width - moving, replace=False).tolist())
    np.random.set_state(before)
    module = ShiftWise(width, Layout(13, 3, moving, 1))
    assert module.ghost.tolist() == ghosts
    assert module.moving.tolist() == sorted(set(range(width)) - set(ghosts))


def folded(module: ShiftWise, name: str, kernel: Tensor) -> tuple[Tensor, Tensor]:
    bn = module.get_submodule(name)
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return kernel * scale.view(-1, 1, 1, 1), bn.bias - bn.running_mean * scale


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_operator_is_two_strips(layout: Layout) -> None:
    """Its published algebra: slot i of a strip holds what every shuffle has put there."""
    module = ShiftWise(layout.channels + 2, layout)
    initialise(module, seed=0)
    module.double().eval()
    big, small, count = layout.big, layout.small, layout.count
    *orders, still = drawn(layout)
    weight = sum(conv.weight for conv in module.convs).unflatten(0, (-1, count)).detach()
    strips = []
    for order in orders:
        strip = torch.zeros(layout.channels, small, count, small, dtype=torch.float64)
        for shuffle in order:
            for slot in range(count):
                strip[:, :, slot] += weight[torch.arange(layout.channels), shuffle[:, slot], 0]
        strips.append(strip)
    across = strips[0].flatten(2)
    down = torch.cat(list(strips[1].unbind(2)), 1)
    middle = sum(weight[torch.arange(layout.channels), chosen, 0] for chosen in still)
    x = torch.randn(2, layout.channels + 2, 7, 12, dtype=torch.float64)
    moving = x[:, module.moving]
    left, right = big // 2, count * small - 1 - big // 2
    pads = {
        "bn_horizontal": (left, right, small // 2, small // 2),
        "bn_vertical": (small // 2, small // 2, left, right),
        "bn_still": (small // 2,) * 4,
    }
    y = moving
    for (name, pad), kernel in zip(pads.items(), (across, down, middle), strict=True):
        one = folded(module, name, kernel.unsqueeze(1))
        y = y + F.conv2d(F.pad(moving, pad), *one, groups=layout.channels)
    terms = layout.shuffles * count * small**2 * len(module.convs)  # products in a strip
    expected = torch.cat([y, x[:, module.ghost]], 1)
    assert_same_sums(module(x), expected, 3 * (terms + 4))  # two strips, the middle; their norms


@pytest.mark.parametrize("name", ["swnet_tiny", "swnet_small", "swnet_base", "swnet_large"])
def test_parameters_follow_from_the_widths(name: str) -> None:
    """Two sizes have a published figure; the others are counted in the same way."""
    widths, depths = ZOO[name].kwargs["widths"], ZOO[name].kwargs["depths"]
    steps = [(3, widths[0] // 2), (widths[0] // 2, widths[0]), *itertools.pairwise(widths)]
    total = sum(9 * a * b + 3 * b for a, b in steps)  # a convolution with bias, and a norm
    total += 2 * widths[-1] + 1000 * widths[-1] + 1000  # norm and head
    for width, depth, count in zip(widths, depths, (17, 17, 16, 5), strict=True):
        moving, squeezed = int(width * 0.77) // 2 * 2, width // 4
        large = 2 * 9 * moving * count + 6 * moving
        gate = 2 * width * squeezed + width + squeezed
        ffn = 8 * width * width + 12 * width  # bias and response norm at four times the width
        total += depth * (large + gate + ffn + 5 * width)  # two norms, layer scale
    assert total == ZOO[name].parameters[0]


def test_a_mask_silences_kernels_of_every_path() -> None:
    dense, sparse = (ShiftWise(8, Layout(13, 3, 6, 2), sparsity=s) for s in (0.0, 0.4))
    assert dense.mask is None and sparse.mask is not None
    assert sparse.mask.shape == (30, 1, 1, 1) and int((sparse.mask == 0).sum()) == 12
    for module in (dense, sparse):
        initialise(module, seed=0)
    silent = sparse.mask.flatten() == 0
    with torch.no_grad():
        for conv in dense.convs:
            conv.weight[silent] = 0
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(dense.eval()(x), sparse.eval()(x))
    assert "mask" not in sparse.state_dict()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of slice, one_hot, roll"):
        swnet(version=2, widths=(8,), depths=(1,), big=(13,), shift="rolling")
    with pytest.raises(ValueError, match="share of kernels"):
        swnet(version=2, widths=(8,), depths=(1,), big=(13,), sparsity=1.0)


def large_kernel(prefix: str) -> set[str]:
    keys = {f"{prefix}.large_kernel.LoRAs.{path}.weight" for path in (0, 1)}
    names = ("bn_lora1", "bn_lora2", "bn_small")
    return keys.union(*(norm(f"{prefix}.large_kernel.{name}") for name in names))


@pytest.mark.parametrize(("name", "third"), [("swnet_tiny", 18), ("swnet_small", 27)])
def test_published_checkpoints_of_version_2_load(name: str, third: int) -> None:
    keys = strided()
    for stage, depth in enumerate((3, 3, third, 3)):
        blocks = [f"stages.{stage}.{i}" for i in range(depth)]
        keys = keys.union(*(gated(prefix) | large_kernel(prefix) for prefix in blocks))
    require_round_trip(name, keys)


def test_published_checkpoints_of_version_1_load() -> None:
    keys = frame()
    for stage, depth in enumerate((3, 3, 9, 3)):
        for prefix in (f"stages.{stage}.{i}" for i in range(depth)):
            keys |= large_kernel(prefix) | {f"{prefix}.gamma"}
            keys |= set().union(*(layer(f"{prefix}.{n}") for n in ("norm", "pwconv1", "pwconv2")))
    require_round_trip("swnet_v1_tiny", keys)


@pytest.mark.parametrize(
    ("name", "moving", "counts"),
    [
        ("swnet_v1_tiny", (74, 148, 296, 592), (17, 17, 16, 5)),
        ("swnet_tiny", (60, 122, 246, 492), (17, 17, 16, 5)),
        ("swnet_small", (72, 146, 294, 590), (17, 17, 16, 5)),
    ],
)
def test_channels_that_move(name: str, moving: tuple[int, ...], counts: tuple[int, ...]) -> None:
    kernels = [stage[0].large_kernel for stage in on_meta(name).stages]
    assert tuple(len(kernel.moving) for kernel in kernels) == moving
    assert tuple(kernel.shift_add.layout.count for kernel in kernels) == counts
    assert {kernel.convs[0].padding for kernel in kernels} == {(2, 2)}
