"""RepVGGplus in its training form, without the classifiers that only training uses.

A deeper RepVGG with gates (Ding et al., arXiv:2101.03697), published with the code of RepVGG. In
training three more classifiers hang on the stages 1, 2 and the first half of 3; they change nothing
about the logits and are left out. Modules carry the names of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatfold.models.layers import SqueezeExcite, Staged
from flatfold.models.repvgg import RepVGGBlock


class RepVGGplusBlock(RepVGGBlock):
    """SE(relu(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x))): the gate comes after the activation."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__(c_in, c_out, stride, groups=1, squeeze_excite=False)
        self.post_se = SqueezeExcite(c_out, c_out // 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.post_se(super().forward(x))
        return y


def _stage(c_in: int, c_out: int, stride: int, depth: int) -> nn.Sequential:
    rest = (RepVGGplusBlock(c_out, c_out, 1) for _ in range(depth - 1))
    return nn.Sequential(RepVGGplusBlock(c_in, c_out, stride), *rest)


def repvggplus(*, depths: Sequence[int], widths: Sequence[int], num_classes: int = 1000) -> Staged:
    """A RepVGGplus with `depths` blocks and `widths` channels in its stages 1 to 4.

    The third stage is in halves, as in training a classifier hangs between them.
    """
    stem = min(64, widths[0])
    one, two, three, four = widths
    half = depths[2] // 2
    stages: dict[str, nn.Module] = {
        "stage0": RepVGGplusBlock(3, stem, 2),
        "stage1": _stage(stem, one, 2, depths[0]),
        "stage2": _stage(one, two, 2, depths[1]),
        "stage3_first": _stage(two, three, 2, half),
        "stage3_second": _stage(three, three, 1, depths[2] - half),
        "stage4": _stage(three, four, 2, depths[3]),
    }
    return Staged(stages, four, num_classes)
