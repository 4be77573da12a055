"""Small functions that networks compute, each in the ways in which exporters and tools write it.

A `Kind` is one function; bench/costs.py draws its sizes, adds the forms that flatfold's own
rewrites make of it, and times them all. Structure and weights are drawn from `chain.random`, so all
ways of a kind, drawn from one seed, compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.operator_graphs import Chain, Step


@dataclass(frozen=True)
class Kind:
    """A function: each way to write it, and from which channels and sizes of a map it is drawn."""

    name: str
    ways: Mapping[str, Step]
    channels: tuple[int, ...] = (3, 8, 16, 20, 24, 32, 48, 64, 96, 100, 128, 192, 256, 384, 512)
    sizes: tuple[tuple[int, int], ...] = (
        *((7, 7), (10, 10), (14, 14), (7, 40), (28, 28), (20, 40)),
        *((56, 56), (80, 60), (112, 112)),
    )


EVEN = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
WIDE = (32, 48, 64, 96, 128, 192, 256, 384)
SMALL = ((7, 7), (14, 14), (10, 20), (28, 28), (56, 56))


def batchnorm(chain: Chain, x: str) -> str:
    """With statistics as of random data: a scale around 1."""
    count = chain.channels(x)
    parts = [chain.random.uniform(0.5, 1.5, count).astype(np.float32), None, None]
    scale, bias, mean = (chain.weight(count) if p is None else chain.const(p) for p in parts)
    return chain.op("BatchNormalization", x, scale, bias, mean, chain.const(_ones(count)))


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def per_channel(chain: Chain, x: str, op_type: str, numbers: np.ndarray) -> str:
    return chain.op(op_type, x, chain.const(numbers.reshape(-1, 1, 1)))


def _numbers(chain: Chain, count: int) -> np.ndarray:
    return chain.random.uniform(0.5, 1.5, count).astype(np.float32)


def scale(chain: Chain, x: str) -> str:
    return per_channel(chain, x, "Mul", _numbers(chain, chain.channels(x)))


def offset(chain: Chain, x: str) -> str:
    return per_channel(chain, x, "Add", _numbers(chain, chain.channels(x)))


def scale_and_offset(chain: Chain, x: str) -> str:
    return offset(chain, scale(chain, x))


def norm_of_numbers(chain: Chain, x: str) -> str:
    """The scale and offset of `scale_and_offset` as a BatchNormalization."""
    count = chain.channels(x)
    scale, bias = (chain.const(_numbers(chain, count)) for _ in range(2))
    mean, variance = chain.const(np.zeros(count, np.float32)), chain.const(_ones(count))
    return chain.op("BatchNormalization", x, scale, bias, mean, variance, epsilon=0.0)


def one_tap(chain: Chain, x: str, scaled: bool, moved: bool) -> str:
    """A scale, an offset or both as a depthwise convolution by one tap."""
    count = chain.channels(x)
    weight = _numbers(chain, count) if scaled else _ones(count)
    inputs = [chain.const(weight.reshape(-1, 1, 1, 1))]
    inputs += [chain.const(_numbers(chain, count))] if moved else []
    return chain.op("Conv", x, *inputs, group=count)


def _any_conv(chain: Chain, x: str, stride: int = 1, bias: bool = True) -> str:
    """Dense, grouped or depthwise, of a drawn kernel."""
    count = chain.channels(x)
    kernel = int(chain.random.choice((1, 3, 3, 5, 7)))
    groups = _groups(chain, count)
    return chain.conv(x, count, (kernel, kernel), groups, stride=stride, bias=bias)


def _groups(chain: Chain, count: int) -> int:
    """1, channels, or groups of 4 to 32 channels."""
    wide = int(chain.random.choice((0, 0, 1, 1, 4, 16, 32)))
    return 1 if not wide or count % wide else count // wide


def _stride(chain: Chain) -> int:
    return int(chain.random.choice((1, 1, 2)))


def norm_behind(chain: Chain, x: str) -> str:
    return batchnorm(chain, _any_conv(chain, x, _stride(chain), bias=False))


def norm_in_front(chain: Chain, x: str) -> str:
    return chain.conv(batchnorm(chain, x), _outputs(chain, x), (1, 1))


def _outputs(chain: Chain, x: str) -> int:
    return max(8, int(chain.channels(x) * chain.random.choice((0.5, 1, 2))))


def branches(chain: Chain, x: str) -> str:
    """k x k, 1 x 1 and, at stride 1, the identity, each with its norm (RepVGG)."""
    stride, count = _stride(chain), chain.channels(x)
    groups, kernel = _groups(chain, count), int(chain.random.choice((3, 3, 5, 7)))
    total = batchnorm(chain, chain.conv(x, count, (kernel, kernel), groups, stride=stride))
    one = batchnorm(chain, chain.conv(x, count, (1, 1), groups, stride=stride, bias=False))
    total = chain.op("Add", total, one)
    if stride == 1 and chain.random.integers(2):
        total = chain.op("Add", total, batchnorm(chain, x))
    return total


def copies(chain: Chain, x: str) -> str:
    """Several branches of one kernel size (MobileOne)."""
    count, times = chain.channels(x), int(chain.random.integers(2, 5))
    kernel, groups = int(chain.random.choice((1, 3))), _groups(chain, count)
    parts = [chain.conv(x, count, (kernel, kernel), groups) for _ in range(times)]
    return _sum(chain, parts)


def _sum(chain: Chain, values: Sequence[str]) -> str:
    total = values[0]
    for value in values[1:]:
        total = chain.op("Add", total, value)
    return total


def strips(chain: Chain, x: str) -> str:
    """k x k with 1 x k and k x 1 (ACNet), dense or depthwise."""
    count = chain.channels(x)
    groups, kernel = int(chain.random.choice((1, count))), int(chain.random.choice((3, 5, 7)))
    shapes = ((kernel, kernel), (1, kernel), (kernel, 1))
    return _sum(chain, [chain.conv(x, count, shape, groups) for shape in shapes])


def crossed_strips(chain: Chain, x: str) -> str:
    """Two depthwise strips (SLaK)."""
    count, long = chain.channels(x), int(chain.random.choice((7, 11, 21, 31, 51)))
    short = int(chain.random.choice((1, 3, 5)))
    shapes = ((long, short), (short, long))
    return _sum(chain, [chain.conv(x, count, shape, count) for shape in shapes])


def large_and_small(chain: Chain, x: str) -> str:
    """A large depthwise kernel and small, possibly dilated ones (RepLKNet, UniRepLKNet)."""
    count, large = chain.channels(x), int(chain.random.choice((7, 9, 13, 17, 31)))
    parts = [chain.conv(x, count, (large, large), count)]
    for _ in range(int(chain.random.integers(1, 4))):
        kernel = int(chain.random.choice((3, 5)))
        dilation = int(chain.random.integers(1, max(2, (large - 1) // (kernel - 1) + 1)))
        parts.append(chain.conv(x, count, (kernel, kernel), count, dilation))
    return _sum(chain, parts)


def pointwise_pair(chain: Chain, x: str) -> str:
    """Two 1 x 1 in a row, narrow or wide between them."""
    count = chain.channels(x)
    middle = max(4, int(count * chain.random.choice((0.25, 0.5, 0.75, 1, 2, 4))))
    outputs = max(4, int(count * chain.random.choice((0.5, 1, 2))))
    return chain.conv(chain.conv(x, middle, (1, 1)), outputs, (1, 1))


def pointwise_then_square(chain: Chain, x: str) -> str:
    """1 x 1 and k x k behind it (DBB); its bias would be another at the border."""
    count, kernel = chain.channels(x), int(chain.random.choice((3, 5)))
    middle = max(4, int(count * chain.random.choice((0.25, 0.5, 1, 2))))
    inner = chain.conv(x, middle, (1, 1), bias=False)
    return chain.conv(inner, count, (kernel, kernel), stride=_stride(chain))


def square_then_pointwise(chain: Chain, x: str) -> str:
    count = chain.channels(x)
    middle = max(4, int(count * chain.random.choice((0.25, 0.5, 1, 2))))
    inner = chain.conv(x, middle, (3, 3), stride=_stride(chain))
    return chain.conv(inner, _outputs(chain, x), (1, 1))


def separable(chain: Chain, x: str) -> str:
    """Depthwise, then 1 x 1."""
    kernel, count = int(chain.random.choice((3, 5, 7))), chain.channels(x)
    inner = chain.conv(x, count, (kernel, kernel), count, stride=_stride(chain))
    return chain.conv(inner, _outputs(chain, x), (1, 1))


def depthwise_pair(chain: Chain, x: str) -> str:
    """A depthwise layer without padding behind one with the padding of both."""
    count, (one, two) = chain.channels(x), chain.random.choice((3, 5), 2)
    pads = [int(one + two) // 2 - 1] * 4
    inner = chain.conv(x, count, (int(one), int(one)), count, pads=pads)
    return chain.conv(inner, count, (int(two), int(two)), count, pads=[0] * 4)


def residual(chain: Chain, x: str) -> str:
    """x + s * conv(x)."""
    return chain.op("Add", x, scale(chain, _any_conv(chain, x)))


def rolled(chain: Chain, x: str, axis: int, by: int) -> str:
    size = chain.shape[axis]
    parts = [chain.slice(x, axis, size - by, size), chain.slice(x, axis, 0, size - by)]
    return chain.op("Concat", *parts, axis=axis)


def roll(chain: Chain, x: str) -> str:
    axis = int(chain.random.choice((2, 3)))
    return rolled(chain, x, axis, int(chain.random.integers(1, 4)))


def roll_before_pointwise(chain: Chain, x: str) -> str:
    return chain.conv(roll(chain, x), chain.channels(x), (1, 1))


def circular(chain: Chain, x: str) -> str:
    """A convolution whose padding is the other end of the map."""
    count, kernel = chain.channels(x), int(chain.random.choice((3, 3, 5)))
    half, groups = kernel // 2, int(chain.random.choice((1, count)))
    for axis in (2, 3):
        size = chain.shape[axis]
        ends = [chain.slice(x, axis, size - half, size), chain.slice(x, axis, 0, half)]
        x = chain.op("Concat", ends[0], x, ends[1], axis=axis)
    return chain.conv(x, count, (kernel, kernel), groups, pads=[0] * 4)


def pad_slice(chain: Chain, x: str) -> str:
    """Down and right by one pixel."""
    padded = chain.op("Pad", x, chain.const([0, 0, 1, 1, 0, 0, 0, 0]))
    ends = [chain.const(n) for n in ([0, 0], list(chain.shape[2:]), [2, 3])]
    return chain.op("Slice", padded, *ends)


def crop_pad(chain: Chain, x: str) -> str:
    return chain.op("Pad", x, chain.const([0, 0, 1, 1, 0, 0, -1, -1]))


def slice_concat(chain: Chain, x: str) -> str:
    for axis in (2, 3):
        shape = list(chain.shape)
        kept = chain.slice(x, axis, 0, shape[axis] - 1)
        shape[axis] = 1
        zeros = chain.const(np.zeros(shape, np.float32))
        x = chain.op("Concat", zeros, kept, axis=axis, channels=chain.channels(x))
    return x


def one_hot(chain: Chain, x: str, size: int, before: int, after: int) -> str:
    weight = np.zeros((chain.channels(x), 1, size, size), np.float32)
    weight[:, :, 0, 0] = 1
    pads = [before, before, after, after]
    return chain.op("Conv", x, chain.const(weight), group=len(weight), pads=pads)


def shift_before_pointwise(chain: Chain, x: str) -> str:
    return chain.conv(crop_pad(chain, x), chain.channels(x), (1, 1))


def shifted_groups(chain: Chain, x: str) -> str:
    """A quarter of the channels moved each way."""
    quarter, parts = chain.channels(x) // 4, []
    for number, pads in enumerate(([1, 0, -1, 0], [-1, 0, 1, 0], [0, 1, 0, -1], [0, -1, 0, 1])):
        part = chain.slice(x, 1, number * quarter, (number + 1) * quarter)
        parts.append(chain.op("Pad", part, chain.const([0, 0, *pads[:2], 0, 0, *pads[2:]])))
    return chain.join(parts)


def conv_of_concat(chain: Chain, x: str) -> str:
    """A layer over two maps put side by side."""
    kernel = int(chain.random.choice((1, 1, 3)))
    other = chain.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    parts = [x, scale(chain, other)] if chain.random.integers(2) else [x, other]
    return chain.conv(chain.join(parts), _outputs(chain, x), (kernel, kernel))


def conv_of_joined_convs(chain: Chain, x: str) -> str:
    """A 1 x 1 over two layers of different maps put side by side."""
    count, kernel = chain.channels(x), int(chain.random.choice((1, 3)))
    other = chain.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    parts = [chain.conv(value, count // 2, (kernel, kernel)) for value in (x, other)]
    return chain.conv(chain.join(parts), _outputs(chain, x), (1, 1))


def joined_convs(chain: Chain, x: str) -> str:
    """Layers of one map, put side by side."""
    count = chain.channels(x)
    kernels = chain.random.choice((1, 3), int(chain.random.integers(2, 4)))
    parts = [chain.conv(x, max(4, count // 2), (int(k), int(k))) for k in kernels]
    return chain.join(parts)


def chunks(chain: Chain, x: str) -> str:
    """Each half of the channels through its own layer."""
    half, kernel = chain.channels(x) // 2, int(chain.random.choice((1, 3)))
    halves = [chain.slice(x, 1, begin, begin + half) for begin in (0, half)]
    return chain.join([chain.conv(part, half, (kernel, kernel)) for part in halves])


def partly(chain: Chain, x: str) -> str:
    """A quarter of the channels through a layer, the others as they are (FasterNet)."""
    count, kernel = chain.channels(x), int(chain.random.choice((3, 3, 5)))
    groups = int(chain.random.choice((1, count // 4)))
    part = chain.conv(chain.slice(x, 1, 0, count // 4), count // 4, (kernel, kernel), groups)
    return chain.join([part, chain.slice(x, 1, count // 4, count)])


def gather(chain: Chain, x: str) -> str:
    """Even channels first."""
    count = chain.channels(x)
    order = np.arange(count).reshape(2, -1).T.reshape(-1)
    return chain.op("Gather", x, chain.const(order), axis=1)


def permutation(chain: Chain, x: str) -> str:
    count = chain.channels(x)
    order = np.arange(count).reshape(2, -1).T.reshape(-1)
    matrix = np.eye(count, dtype=np.float32)[order]
    return chain.op("Conv", x, chain.const(matrix[:, :, None, None]))


def shuffle(chain: Chain, x: str) -> str:
    batch, count, *sizes = chain.shape
    split = chain.op("Reshape", x, chain.const([batch, 2, count // 2, *sizes]))
    turned = chain.op("Transpose", split, perm=[0, 2, 1, 3, 4])
    return chain.op("Reshape", turned, chain.const(chain.shape))


def shuffle_before_layer(chain: Chain, x: str) -> str:
    return _any_conv(chain, shuffle(chain, x))


def number(chain: Chain, value: float) -> str:
    return chain.const(np.array(value, np.float32))


def hard_swish_parts(chain: Chain, x: str) -> str:
    gate = chain.op("Add", x, number(chain, 3))
    gate = chain.op("Clip", gate, number(chain, 0), number(chain, 6))
    return chain.op("Div", chain.op("Mul", x, gate), number(chain, 6))


def hard_sigmoid_product(chain: Chain, x: str) -> str:
    return chain.op("Mul", x, chain.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def one_more(chain: Chain, x: str) -> str:
    return chain.op("Add", x, number(chain, 1))


def gelu(chain: Chain, x: str, found: bool) -> str:
    """With the half where ONNX Runtime finds it, or not."""
    raised = one_more(chain, chain.op("Erf", chain.op("Div", x, number(chain, 2**0.5))))
    half = number(chain, 0.5)
    if found:
        return chain.op("Mul", chain.op("Mul", x, half), raised)
    return chain.op("Mul", x, chain.op("Mul", raised, half))


def gelu_by_tanh(chain: Chain, x: str, found: bool) -> str:
    cube = chain.op("Mul", chain.op("Pow", x, number(chain, 3)), number(chain, 0.044715))
    inner = chain.op("Mul", chain.op("Add", x, cube), number(chain, (2 / np.pi) ** 0.5))
    raised, half = one_more(chain, chain.op("Tanh", inner)), number(chain, 0.5)
    if found:
        return chain.op("Mul", chain.op("Mul", x, half), raised)
    return chain.op("Mul", chain.op("Mul", x, raised), half)


def softplus(chain: Chain, x: str) -> str:
    return chain.op("Log", one_more(chain, chain.op("Exp", x)))


def mean(chain: Chain, x: str, axes: list[int]) -> str:
    return chain.op("ReduceMean", x, chain.const(axes))


def norm(chain: Chain, x: str, axes: list[int]) -> str:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias."""
    centred = chain.op("Sub", x, mean(chain, x, axes))
    square = mean(chain, chain.op("Pow", centred, number(chain, 2)), axes)
    root = chain.op("Sqrt", chain.op("Add", square, number(chain, 1e-5)))
    return offset(chain, scale(chain, chain.op("Div", centred, root)))


def turned_norm(chain: Chain, x: str) -> str:
    parts = [chain.const(_numbers(chain, chain.channels(x))) for _ in range(2)]
    last = chain.op("Transpose", x, perm=[0, 2, 3, 1])
    return chain.op("Transpose", chain.op("LayerNormalization", last, *parts), perm=[0, 3, 1, 2])


def instance_norm(chain: Chain, x: str) -> str:
    parts = [chain.const(_numbers(chain, chain.channels(x))) for _ in range(2)]
    return chain.op("InstanceNormalization", x, *parts)


def average(chain: Chain, x: str) -> str:
    size, stride = _pool(chain)
    return chain.op("AveragePool", x, kernel_shape=[size] * 2, strides=[stride] * 2)


def _pool(chain: Chain) -> tuple[int, int]:
    size = int(chain.random.choice((2, 3, 5)))
    return size, int(chain.random.choice((1, 2, size)))


def average_as_conv(chain: Chain, x: str) -> str:
    (size, stride), count = _pool(chain), chain.channels(x)
    weight = chain.const(np.full((count, 1, size, size), 1 / size**2, np.float32))
    return chain.op("Conv", x, weight, group=count, strides=[stride] * 2)


def average_then_pointwise(chain: Chain, x: str) -> str:
    return chain.conv(average(chain, x), _outputs(chain, x), (1, 1))


def global_mean_as_conv(chain: Chain, x: str) -> str:
    count, sizes = chain.channels(x), chain.shape[2:]
    weight = np.full((count, 1, *sizes), 1 / np.prod(sizes), np.float32)
    return chain.op("Conv", x, chain.const(weight), group=count)


def padded(chain: Chain, x: str) -> str:
    """A Pad of its own in front of a layer."""
    count, kernel = chain.channels(x), int(chain.random.choice((3, 5)))
    half, stride = kernel // 2, _stride(chain)
    pads = chain.const([0, 0, half, half, 0, 0, half, half])
    groups = int(chain.random.choice((1, count)))
    wide = chain.op("Pad", x, pads)
    return chain.conv(wide, count, (kernel, kernel), groups, stride=stride, pads=[0] * 4)


def transposed(chain: Chain, x: str, groups: int = 1, size: int = 2) -> str:
    count = chain.channels(x)
    outputs = count if groups > 1 else max(4, count // 2)
    weight = chain.weight(count, outputs // groups, size, size)
    how = {"strides": [2, 2], "pads": [size // 2 - 1] * 4, "group": groups}
    return chain.op("ConvTranspose", x, weight, chain.weight(outputs), channels=outputs, **how)


def transposed_norm(chain: Chain, x: str) -> str:
    return batchnorm(chain, transposed(chain, x, size=int(chain.random.choice((2, 4)))))


def transposed_then_pointwise(chain: Chain, x: str) -> str:
    y = transposed(chain, x)
    return chain.conv(y, _outputs(chain, y), (1, 1))


def pointwise_then_transposed(chain: Chain, x: str) -> str:
    middle = max(4, int(chain.channels(x) * chain.random.choice((0.5, 1, 2))))
    return transposed(chain, chain.conv(x, middle, (1, 1), bias=False))


def sub_pixel(chain: Chain, x: str) -> str:
    """A 1 x 1, and each four channels as 2 x 2 pixels."""
    count = max(4, chain.channels(x) // 2)
    weight, bias = _spread_weight(chain, count, chain.channels(x))
    rows = weight.reshape(-1, weight.shape[2], 1, 1)  # [2 x 2 x outputs, inputs]
    wide = chain.op("Conv", x, chain.const(rows), chain.const(np.tile(bias, 4)))
    return chain.op("DepthToSpace", wide, blocksize=2, channels=count)


def sub_pixel_transposed(chain: Chain, x: str) -> str:
    count = max(4, chain.channels(x) // 2)
    weight, bias = _spread_weight(chain, count, chain.channels(x))
    taps = weight.reshape(2, 2, count, -1).transpose(3, 2, 0, 1)  # [inputs, outputs, 2, 2]
    inputs = [chain.const(np.ascontiguousarray(taps)), chain.const(bias)]
    return chain.op("ConvTranspose", x, *inputs, strides=[2, 2], channels=count)


def _spread_weight(chain: Chain, outputs: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """[4 places, outputs, inputs] and a bias."""
    shape = (4, outputs, inputs)
    weight = chain.random.standard_normal(shape, dtype=np.float32) / 8
    return weight, _numbers(chain, outputs)


def product_between_transposes(chain: Chain, x: str) -> str:
    """A layer along the channels, which lie last: MatMul, Add, a scale per channel, back."""
    outputs = _outputs(chain, x)
    rows = chain.op("Relu", chain.op("Transpose", x, perm=[0, 2, 3, 1]))
    product = chain.op("MatMul", rows, chain.weight(chain.channels(x), outputs))
    product = chain.op("Add", product, chain.weight(outputs))
    product = chain.op("Mul", product, chain.weight(outputs))
    return chain.op("Transpose", product, perm=[0, 3, 1, 2], channels=outputs)


def thin_rim(chain: Chain, x: str) -> str:
    """A kernel whose outer taps are zero."""
    count, kernel = chain.channels(x), int(chain.random.choice((5, 7)))
    groups = int(chain.random.choice((1, count)))
    shape = (count, count // groups, kernel, kernel)
    weight = chain.random.standard_normal(shape, dtype=np.float32) / 8
    weight[:, :, [0, -1]] = weight[..., [0, -1]] = 0
    how = {"group": groups, "pads": [kernel // 2] * 4}
    return chain.op("Conv", x, chain.const(weight), **how)


def plus(chain: Chain, x: str) -> str:
    """A depthwise kernel in the shape of a plus."""
    count, kernel = chain.channels(x), int(chain.random.choice((5, 7, 11, 13, 17)))
    weight = np.zeros((count, 1, kernel, kernel), np.float32)
    middle = kernel // 2
    weight[:, :, middle] = chain.random.standard_normal((count, 1, kernel))
    weight[..., middle] = chain.random.standard_normal((count, 1, kernel))
    return chain.op("Conv", x, chain.const(weight), group=count, pads=[middle] * 4)


def wide_depthwise(chain: Chain, x: str) -> str:
    """A depthwise kernel of a width that some target may be slow at."""
    count, width = chain.channels(x), int(chain.random.choice((8, 9, 10, 11, 12, 13)))
    height = int(chain.random.choice((1, 5, width)))
    pads = [(height - 1) // 2, (width - 1) // 2] * 2
    return chain.conv(x, count, (height, width), count, pads=pads)


def activation_behind_pool(chain: Chain, x: str) -> str:
    pooled = chain.op("MaxPool", _any_conv(chain, x), kernel_shape=[2, 2], strides=[2, 2])
    return chain.op("Relu", pooled)


def norm_behind_pool(chain: Chain, x: str) -> str:
    kind = str(chain.random.choice(("MaxPool", "AveragePool")))
    pooled = chain.op(kind, _any_conv(chain, x), kernel_shape=[2, 2], strides=[2, 2])
    return batchnorm(chain, pooled)


KINDS = (
    Kind("norm behind a layer", {"Conv, norm": norm_behind}),
    Kind("norm in front of a layer", {"norm, Conv": norm_in_front}),
    Kind("norm behind a pool", {"Conv, pool, norm": norm_behind_pool}),
    Kind("scale", {"Mul": scale, "one tap": lambda c, x: one_tap(c, x, True, False)}),
    Kind("offset", {"Add": offset, "one tap": lambda c, x: one_tap(c, x, False, True)}),
    Kind(
        "scale and offset",
        {
            "Mul, Add": scale_and_offset,
            "BatchNormalization": norm_of_numbers,
            "one tap": lambda c, x: one_tap(c, x, True, True),
        },
    ),
    Kind("branches", {"branches": branches}),
    Kind("copies of a branch", {"branches": copies}),
    Kind("strips beside a square", {"branches": strips}),
    Kind("crossed strips", {"branches": crossed_strips}, WIDE, SMALL),
    Kind("large and small kernels", {"branches": large_and_small}, WIDE, SMALL),
    Kind("1x1, 1x1", {"layers": pointwise_pair}),
    Kind("1x1, kxk", {"layers": pointwise_then_square}),
    Kind("3x3, 1x1", {"layers": square_then_pointwise}),
    Kind("depthwise, 1x1", {"layers": separable}),
    Kind("depthwise, depthwise", {"layers": depthwise_pair}),
    Kind("residual", {"layers": residual}),
    Kind("roll", {"Slice, Slice, Concat": roll}),
    Kind("roll, 1x1", {"Slice, Slice, Concat, Conv": roll_before_pointwise}),
    Kind("circular padding", {"Slices, Concat, Conv": circular}),
    Kind(
        "shift",
        {
            "Pad, Slice": pad_slice,
            "Pad with negative pads": crop_pad,
            "Slice, Concat, twice": slice_concat,
            "one-hot 3x3": lambda c, x: one_hot(c, x, 3, 1, 1),
            "one-hot 2x2": lambda c, x: one_hot(c, x, 2, 1, 0),
        },
    ),
    Kind("shift, 1x1", {"Pad, Conv": shift_before_pointwise}),
    Kind("shifted groups", {"Slice, Pad, Concat": shifted_groups}, EVEN),
    Kind("Concat, layer", {"Concat, Conv": conv_of_concat}),
    Kind("layers, Concat, layer", {"Convs, Concat, Conv": conv_of_joined_convs}, EVEN),
    Kind("layers, Concat", {"Convs, Concat": joined_convs}, EVEN),
    Kind("chunks", {"Slice, Convs, Concat": chunks}, EVEN),
    Kind("part of the channels", {"Slice, Conv, Concat": partly}, EVEN),
    Kind("shuffle", {"Gather": gather, "Transpose": shuffle, "1x1": permutation}, EVEN),
    Kind("shuffle, layer", {"Transpose, Conv": shuffle_before_layer}, EVEN),
    Kind(
        "HardSwish",
        {
            "Add, Clip, Mul, Div": hard_swish_parts,
            "HardSigmoid, Mul": hard_sigmoid_product,
            "HardSwish": lambda c, x: c.op("HardSwish", x),
        },
    ),
    Kind(
        "Gelu",
        {
            "as it is found": lambda c, x: gelu(c, x, True),
            "in another order": lambda c, x: gelu(c, x, False),
            "Gelu": lambda c, x: c.op("Gelu", x),
        },
    ),
    Kind(
        "Gelu by tanh",
        {
            "as it is found": lambda c, x: gelu_by_tanh(c, x, True),
            "in another order": lambda c, x: gelu_by_tanh(c, x, False),
        },
    ),
    Kind(
        "Mish",
        {
            "Softplus, Tanh, Mul": lambda c, x: c.op("Mul", x, c.op("Tanh", c.op("Softplus", x))),
            "Mish": lambda c, x: c.op("Mish", x),
        },
    ),
    Kind("Softplus", {"Exp, Add, Log": softplus, "Softplus": lambda c, x: c.op("Softplus", x)}),
    Kind(
        "norm of the channels",
        {"spelled out": lambda c, x: norm(c, x, [1]), "turned": turned_norm},
    ),
    Kind(
        "norm of the pixels",
        {"spelled out": lambda c, x: norm(c, x, [2, 3]), "one": instance_norm},
    ),
    Kind("average", {"AveragePool": average, "Conv": average_as_conv}),
    Kind("average, 1x1", {"AveragePool, Conv": average_then_pointwise}),
    Kind(
        "mean of a map",
        {
            "GlobalAveragePool": lambda c, x: c.op("GlobalAveragePool", x),
            "ReduceMean": lambda c, x: c.op("ReduceMean", x, c.const([2, 3])),
            "Conv": global_mean_as_conv,
        },
    ),
    Kind("Pad, layer", {"Pad, Conv": padded}),
    Kind("transposed, norm", {"ConvTranspose, norm": transposed_norm}),
    Kind("transposed, 1x1", {"ConvTranspose, Conv": transposed_then_pointwise}),
    Kind("1x1, transposed", {"Conv, ConvTranspose": pointwise_then_transposed}),
    Kind("sub-pixel", {"Conv, DepthToSpace": sub_pixel, "transposed": sub_pixel_transposed}),
    Kind("product between Transposes", {"MatMul, Add, Mul": product_between_transposes}, WIDE),
    Kind("zero rim", {"Conv": thin_rim}),
    Kind("plus", {"Conv": plus}, WIDE, SMALL),
    Kind("wide depthwise", {"Conv": wide_depthwise}, WIDE, SMALL),
    Kind("activation behind a pool", {"Conv, MaxPool, Relu": activation_behind_pool}),
)
