"""Structural re-parameterization on the ONNX IR."""

from __future__ import annotations

from flatfold.passes.collapse_activations import CollapseActivations
from flatfold.passes.compose_convs import ComposeConvs
from flatfold.passes.drop_channels import DropChannels
from flatfold.passes.fold_batchnorm import FoldBatchNorm
from flatfold.passes.hoist_activations import HoistActivations
from flatfold.passes.merge_branches import MergeBranches
from flatfold.passes.pipeline import Pipeline
from flatfold.passes.remark import Remark
from flatfold.passes.rewrite import Change, LocalRewrite, Rewrite
from flatfold.passes.trim_kernels import TrimKernels

PIPELINE: tuple[type[Rewrite | LocalRewrite], ...] = (
    FoldBatchNorm,
    MergeBranches,
    ComposeConvs,
    CollapseActivations,
    TrimKernels,
    DropChannels,
    HoistActivations,
)

__all__ = ["PIPELINE", "Change", "LocalRewrite", "Pipeline", "Remark", "Rewrite"]
