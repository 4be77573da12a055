"""Structural re-parameterization on the ONNX IR."""

from __future__ import annotations

from flatfold.passes.collapse_activations import CollapseActivations
from flatfold.passes.compose_convs import ComposeConvs
from flatfold.passes.fold_batchnorm import FoldBatchNorm
from flatfold.passes.merge_branches import MergeBranches
from flatfold.passes.remark import Remark
from flatfold.passes.rewrite import Change, Pipeline, Rewrite
from flatfold.passes.trim_kernels import TrimKernels

PIPELINE: tuple[type[Rewrite], ...] = (
    FoldBatchNorm,
    MergeBranches,
    ComposeConvs,
    CollapseActivations,
    TrimKernels,
)

__all__ = ["PIPELINE", "Change", "Pipeline", "Remark", "Rewrite"]
