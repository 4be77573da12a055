"""The rule for the output sizes of each operator, of ONNX and of ONNX Runtime's own domain."""

from __future__ import annotations

from flatfold.frontend.canonicalization.operator_shapes import (
    convolution,
    gather,
    layer,
    movement,
)
from flatfold.frontend.canonicalization.operator_shapes.rule import Operands, OperatorRule

_ONE_INPUT = """
Abs Acos Acosh Asin Asinh Atan Atanh Bernoulli BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh
CumSum CumProd DequantizeLinear Dropout Elu Erf Exp EyeLike Floor Gelu GroupNormalization
HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LeakyRelu Log
LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg Not QuantizeLinear RandomNormalLike
RandomUniformLike Reciprocal Relu ReverseSequence RMSNormalization RotaryEmbedding Round Scatter
ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish
Tan Tanh ThresholdedRelu Trilu
"""
_BROADCAST = """
Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual
Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor
"""
_REDUCTIONS = """
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare
"""
_RECURRENT = ("LSTM", "GRU", "RNN")

_MICROSOFT_ONE_INPUT = """
BiasGelu BiasSoftmax DequantizeLinear FastGelu Gelu QLinearLeakyRelu QLinearSigmoid QLinearSoftmax
QuantizeLinear QuickGelu
"""

OPERATORS: dict[str, OperatorRule] = {
    **dict.fromkeys(_ONE_INPUT.split(), movement.same),
    **dict.fromkeys(_BROADCAST.split(), movement.broadcasted),
    **dict.fromkeys(_REDUCTIONS.split(), layer.reduction),
    **dict.fromkeys(_RECURRENT, layer.recurrent),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), convolution.pool),
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), convolution.global_pool
    ),
    **dict.fromkeys(("Conv", "ConvInteger", "DeformConv"), convolution.convolution),
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), convolution.pooled_boxes),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), gather.window),
    **dict.fromkeys(("RandomNormal", "RandomUniform"), gather.drawn),
    **dict.fromkeys(("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"), gather.loss),
    **dict.fromkeys(("Resize", "Upsample"), movement.resize),
    **dict.fromkeys(("MatMul", "MatMulInteger"), layer.product_at(1)),
    **dict.fromkeys(("ArgMax", "ArgMin"), layer.extreme),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization"), layer.layer_norm),
    "AffineGrid": movement.affine_grid,
    "BatchNormalization": layer.batch_norm,
    "CenterCropPad": movement.center_crop_pad,
    "Col2Im": convolution.columns_to_map,
    "Compress": gather.compress,
    "Concat": movement.concat,
    "ConstantOfShape": movement.filled,
    "ConvTranspose": convolution.transposed_convolution,
    "DFT": gather.spectrum,
    "DepthToSpace": movement.depth_to_space,
    "Det": layer.determinant,
    "DynamicQuantizeLinear": layer.dynamic_quantization,
    "Einsum": layer.einsum,
    "Expand": movement.expand,
    "Flatten": movement.flatten,
    "Gather": gather.gather,
    "GatherElements": gather.gather_elements,
    "GatherND": gather.gather_nd,
    "Gemm": layer.gemm,
    "GridSample": movement.grid_sample,
    "MaxUnpool": convolution.unpool,
    "MelWeightMatrix": gather.mel_weights,
    "Multinomial": gather.multinomial,
    "NonMaxSuppression": gather.non_max_suppression,
    "NonZero": gather.non_zero,
    "OneHot": gather.one_hot,
    "Pad": movement.pad,
    "QLinearConv": convolution.quantized_convolution,
    "QLinearMatMul": layer.product_at(3),
    "Range": gather.range_,
    "Reshape": movement.reshape,
    "STFT": gather.frames,
    "SequenceLength": gather.scalar,
    "Shape": gather.shape,
    "Size": gather.scalar,
    "Slice": movement.slice_,
    "SpaceToDepth": movement.space_to_depth,
    "Split": movement.split,
    "Squeeze": movement.squeeze,
    "Tile": movement.tile,
    "TopK": gather.top_k,
    "Transpose": movement.transpose,
    "Unique": gather.unique,
    "Unsqueeze": movement.unsqueeze,
}
"""By operator of the domain of ONNX, for all opsets from 7 on."""

_MICROSOFT: dict[str, OperatorRule] = {
    **dict.fromkeys(_MICROSOFT_ONE_INPUT.split(), movement.same),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), movement.quantized_broadcasted),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), layer.product_at(1)),
    **dict.fromkeys(
        ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), layer.skip_layer_norm
    ),
    "DynamicQuantizeLSTM": layer.recurrent,
    "FusedConv": convolution.convolution,
    "FusedGemm": layer.gemm,
    "FusedMatMul": layer.fused_product,
}

_DOMAINS = {"": OPERATORS, "com.microsoft": _MICROSOFT}


def rule_of(domain: str, operator: str) -> OperatorRule | None:
    """The rule of an operator, if there is one."""
    return _DOMAINS.get(domain, {}).get(operator)


def may_run(operands: Operands) -> bool:
    """Whether the node has inputs of as many axes as it needs, as far as these are known.

    Only of operators that every runtime refuses otherwise.
    """
    x, w = operands.sizes(0), operands.sizes(1)
    if operands.node.domain != "" or x is None:
        return True
    if operands.node.op_type in _RECURRENT:
        return len(x) == 3
    if operands.node.op_type in ("Conv", "ConvTranspose") and w is not None:
        return len(x) == len(w)
    return True
