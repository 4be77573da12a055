"""Structural re-parameterization on the ONNX IR.

Passes, each with its equation, its readers, its decision and its reasons to decline:

collapse_activations.py  activations that training made linear, or whose input never bends
rewrite_shifts.py        Pad, Slice, roll, GridSample and DeformConv as kernels of one tap
merge_branches.py        parallel branches: f + g
compose_convs.py         layers in a row: g @ f
trim_kernels.py          zeros in kernels, and the kernel sizes that a target is fast at
fold_batchnorm.py        BatchNormalization and other per-channel maps
drop_channels.py         channels that are constant
hoist_activations.py     activations in front of a max pool
hoist_norms.py           per-channel maps in front of a pool, a resize or a view
fuse_activations.py      activations that are spelled out, as one operator
fuse_norms.py            normalizations that are spelled out, as one operator
fuse_biases.py           a matrix product and its bias between views, as a Gemm
equalize_channels.py     channels scaled by powers of two; not in `PIPELINE`, for types of few bits
narrow_types.py          float16 and bfloat16 graphs; no rewrite, and not in `PIPELINE`

The driver, and what every pass uses:

pipeline.py   applies passes to a fixed point; the only code that edits a graph
potential.py  what every change lowers, so that the passes come to an end
rewrite.py    Rewrite, LocalRewrite, GraphRewrite, Region, Change
remark.py     what is reported of each decision, with hints; provenance of new nodes
decline.py    why a rewrite does not apply

Packages, from the graph to the algebra and back:

reading/       what a node computes
lifting/       a region of nodes as one affine form
stencil/       the algebra of affine operators
lowering/      an affine form as nodes
scaling/       scales of channels by powers of two
cost/          what nodes cost on a target
quantization/  graphs in 8 bits; no rewrites, and not in `PIPELINE`

`PIPELINE` is in order: of the passes that claim a region, the first names the change.
"""

from __future__ import annotations

from flatfold.passes.collapse_activations import CollapseActivations
from flatfold.passes.compose_convs import ComposeConvs
from flatfold.passes.cost import PROFILES, Profile
from flatfold.passes.decline import Decline
from flatfold.passes.drop_channels import DropChannels
from flatfold.passes.equalize_channels import EqualizeChannels
from flatfold.passes.fold_batchnorm import FoldBatchNorm
from flatfold.passes.fuse_activations import FuseActivations
from flatfold.passes.fuse_biases import FuseBiases
from flatfold.passes.fuse_norms import FuseNorms
from flatfold.passes.hoist_activations import HoistActivations
from flatfold.passes.hoist_norms import HoistNorms
from flatfold.passes.lowering.replacement import Replacement
from flatfold.passes.merge_branches import MergeBranches
from flatfold.passes.pipeline import Pipeline
from flatfold.passes.reading import READERS
from flatfold.passes.remark import HINTS, Remark
from flatfold.passes.rewrite import Change, GraphRewrite, LocalRewrite, Region, Rewrite
from flatfold.passes.rewrite_shifts import RewriteShifts
from flatfold.passes.trim_kernels import TrimKernels

PIPELINE: tuple[type[Rewrite | LocalRewrite], ...] = (
    CollapseActivations,
    RewriteShifts,
    MergeBranches,
    ComposeConvs,
    TrimKernels,
    FoldBatchNorm,
    DropChannels,
    HoistActivations,
    HoistNorms,
    FuseActivations,
    FuseNorms,
    FuseBiases,
)

__all__ = [
    "HINTS",
    "PIPELINE",
    "PROFILES",
    "READERS",
    "Change",
    "Decline",
    "EqualizeChannels",
    "GraphRewrite",
    "LocalRewrite",
    "Pipeline",
    "Profile",
    "Region",
    "Remark",
    "Replacement",
    "Rewrite",
]
