"""One block of each family before and after `optimize`, drawn from the real graphs.

python -m docs.pictures [FAMILY...] writes docs/families/FAMILY_before.svg and FAMILY_after.svg.
Weights do not appear in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import onnx_ir as ir
from torch import Tensor, nn

import flatfold
from flatfold.benchmark.explain.graphs import sketch_of
from flatfold.benchmark.html.blocks import KINDS
from flatfold.benchmark.html.graph_layout import Box, Edge, svg
from flatfold.models import (
    acnet,
    convnext,
    dbb,
    efficientnetv2,
    fastvit,
    mobilenext,
    mobileone,
    parnet,
    replknet,
    repvgg,
    repvggplus,
    repvit,
    slak,
    swnet,
    unireplknet,
    vanillanet,
    yolo,
)
from flatfold.models.initialise import initialise
from flatfold.models.shuffles import Layout

FOLDER = Path(__file__).with_name("families")


class AtSlopeOne(nn.Module):
    """A block whose forward takes the slope of its activation, at the end of training."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x, 1.0)
        return y


# The block of a family, as it is in one of its networks, and its input [C, H, W].
BLOCKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, int, int]]]] = {
    "acnet": lambda: (acnet.ACBlock(128, 128, 3, 1, 1), (128, 28, 28)),
    "convnext": lambda: (convnext.ConvNeXtBlock(96), (96, 56, 56)),
    "dbb": lambda: (dbb.DiverseBranchBlock(128, 128, 3, 1), (128, 28, 28)),
    "efficientnetv2": lambda: (
        efficientnetv2.InvertedBlock(160, 160, 1, 6, efficientnetv2.Style()),
        (160, 24, 24),
    ),
    "fastvit": lambda: (fastvit.RepMixerBlock(48, 3, 1e-5), (48, 64, 64)),
    "mobilenext": lambda: (mobilenext.Sandglass(192, 192, 1, 6, True, True, 1), (192, 28, 28)),
    "mobileone": lambda: (mobileone.MobileOneBlock(128, 128, 3, 1, 128, 4), (128, 28, 28)),
    "parnet": lambda: (parnet.ParNetBlock(92, 92, 1, "silu"), (92, 56, 56)),
    "replknet": lambda: (replknet.RepLKBlock(128, 128, 31, 5), (128, 56, 56)),
    "repvgg": lambda: (repvgg.RepVGGBlock(96, 96, 1, 1, False), (96, 28, 28)),
    "repvggplus": lambda: (repvggplus.RepVGGplusBlock(160, 160, 1), (160, 40, 40)),
    "repvit": lambda: (repvit.RepViTBlock(96, 96, 1, False), (96, 28, 28)),
    "slak": lambda: (slak.SLaKBlock(124, 51, 5), (124, 56, 56)),
    "swnet": lambda: (swnet.ShiftWise(80, Layout(13, 3, 60, 4)), (80, 14, 14)),
    "unireplknet": lambda: (unireplknet.UniRepLKNetBlock(80, 13), (80, 28, 28)),
    "vanillanet": lambda: (AtSlopeOne(vanillanet.VanillaBlock(512, 1024, 2, 3)), (512, 56, 56)),
    "yolo": lambda: (yolo.QARepVGGBlock(64, 64, 1), (64, 40, 40)),
}


def picture(graph: ir.Graph, when: str) -> str:
    """A box for each node and each end of the graph, an edge for each use of a value."""
    sketch = sketch_of(list(graph))
    boxes = [Box(box.lines, KINDS.get(box.kind, "")) for box in sketch.boxes]
    edges: list[Edge] = [(boxes[upper], boxes[lower]) for upper, lower in sketch.edges]
    count = len(graph)
    return svg(boxes, edges, f"{when}: {count} operator{'s' if count > 1 else ''}")


def pictures(family: str) -> dict[str, str]:
    """The SVG text of both pictures of `family`, by file name."""
    block, shape = BLOCKS[family]()
    initialise(block, seed=0)
    result = flatfold.optimize(block.eval(), input_shape=shape, verify="off")
    return {
        f"{family}_before.svg": picture(result.training.graph, "before"),
        f"{family}_after.svg": picture(result.graph.graph, "after"),
    }


def main(families: Iterable[str]) -> None:
    for family in families:
        for name, text in pictures(family).items():
            (FOLDER / name).write_text(text, "utf-8")
            print(f"docs/families/{name}")


if __name__ == "__main__":
    main(sys.argv[1:] or BLOCKS)
