"""MobileOne in its training form.

Vasu et al., "MobileOne: An Improved One millisecond Mobile Backbone", CVPR 2023, arXiv:2206.04040.
Modules carry the names of the published code, so that its checkpoints load; only the two layers of
a squeeze-and-excite are called differently there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from flatfold.models.layers import SqueezeExcite, Staged, conv_bn


class Shortcut(nn.BatchNorm2d):
    """BN(x), added to convolutions of x."""

    init_gain = 0.25  # a mean passes ReLU whole, a signal by half: many of them would drown it


class MobileOneBlock(nn.Module):
    """act(SE(sum of `branches` times BN(conv(x)) + BN(conv1x1(x)) + BN(x))).

    The term with the 1x1 scales each pixel, and exists only beside a larger `kernel`. BN(x) exists
    only where input and output have one shape. SE is the identity unless `squeeze_excite`.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        branches: int = 1,
        squeeze_excite: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        same_shape = c_in == c_out and stride == 1
        self.rbr_conv = nn.ModuleList(
            conv_bn(c_in, c_out, kernel, stride, groups) for _ in range(branches)
        )
        self.rbr_scale = conv_bn(c_in, c_out, 1, stride, groups) if kernel > 1 else None
        self.rbr_skip = Shortcut(c_in) if same_shape else None
        self.se = SqueezeExcite(c_out, c_out // 16) if squeeze_excite else nn.Identity()
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (*self.rbr_conv, self.rbr_scale, self.rbr_skip)
        y: Tensor = first(x)
        for branch in others:
            y = y if branch is None else y + branch(x)
        y = self.activation(self.se(y))
        return y


def _stage(c_in: int, c_out: int, depth: int, branches: int, gated_from: int) -> nn.Sequential:
    """`depth` pairs of a depthwise 3x3 block, the first with stride 2, and a 1x1 block."""
    blocks = []
    for i in range(depth):
        stride, gated = 2 if i == 0 else 1, i >= gated_from
        blocks.append(MobileOneBlock(c_in, c_in, 3, stride, c_in, branches, gated))
        blocks.append(MobileOneBlock(c_in, c_out, 1, 1, 1, branches, gated))
        c_in = c_out
    return nn.Sequential(*blocks)


def mobileone(
    *,
    widths: Sequence[int],
    depths: Sequence[int] = (2, 8, 10, 1),
    branches: int = 1,
    gated: Sequence[int] = (0, 0, 0, 0),
    num_classes: int = 1000,
) -> Staged:
    """A MobileOne: `widths` of its stages 1 to 4 and their `depths` in pairs of blocks.

    `branches` is how many equal convolutions are summed in each block (k in the paper), `gated`
    how many pairs at the end of each stage have squeeze-and-excite in both their blocks.
    """
    stem = min(64, widths[0])
    # The stem never has more than one branch of its size.
    stages: dict[str, nn.Module] = {"stage0": MobileOneBlock(3, stem, 3, 2)}
    inputs = (stem, *widths)
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        stages[f"stage{i + 1}"] = _stage(inputs[i], width, depth, branches, depth - gated[i])
    return Staged(stages, widths[-1], num_classes)
