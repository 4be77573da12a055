"""Operators that compute each element alone: activations, arithmetic, comparisons, casts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.sketch import BOOL, FLOAT, INT64, Rejected, Sketch

# Name, first opset, attributes that are drawn.
ACTIVATIONS: list[tuple[str, int, dict[str, tuple[float, ...]]]] = [
    ("Relu", 7, {}),
    ("LeakyRelu", 7, {"alpha": (0.01, 0.1, 1.0, -0.5, 0.0)}),
    ("Elu", 7, {"alpha": (1.0, 0.3)}),
    ("Selu", 7, {}),
    ("Celu", 12, {"alpha": (1.0, 0.5)}),
    ("HardSigmoid", 7, {"alpha": (0.2, 1 / 6)}),
    ("HardSwish", 14, {}),
    ("Sigmoid", 7, {}),
    ("Tanh", 7, {}),
    ("Softplus", 7, {}),
    ("Softsign", 7, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {}),
    ("ThresholdedRelu", 10, {"alpha": (0.5, 0.0)}),
    ("Shrink", 9, {"lambd": (0.3,), "bias": (0.0, 0.1)}),
    ("Identity", 7, {}),
    ("Neg", 7, {}),
    ("Abs", 7, {}),
    ("Erf", 9, {}),
    ("Sin", 7, {}),
    ("Cos", 7, {}),
    ("Sign", 9, {}),
    ("Floor", 7, {}),
    ("Ceil", 7, {}),
    ("Round", 11, {}),
]


def activation(s: Sketch, x: str) -> str:
    kind, since, choices = s.one(ACTIVATIONS)
    if s.opset < since:
        raise Rejected(kind)
    attributes = {name: float(s.one(values)) for name, values in choices.items()}
    return s.add(kind, x, **attributes)


def spelled_activation(s: Sketch, x: str) -> str:
    """An activation spelled out in several operators; now and then with another constant."""
    if s.opset < 13:
        raise Rejected("operands of Clip")
    one = 1.0 if s.chance(0.9) else 1.25
    match s.between(0, 6):
        case 0:
            return _product(s, x, _raised(s, _erf(s, x), one), s.const(np.float32(0.5)))
        case 1:
            cube = s.add("Pow", x, s.const(np.float32(3)))
            cube = s.add("Mul", cube, s.const(np.float32(0.044715)))
            slope = s.const(np.float32((2 / np.pi) ** 0.5))
            curve = s.add("Tanh", s.add("Mul", s.add("Add", x, cube), slope))
            return _product(s, x, _raised(s, curve, one), s.const(np.float32(0.5)))
        case 2:
            factor = s.const(np.float32(s.one((1.0, 1.702))))
            return s.add("Mul", x, s.add("Sigmoid", s.add("Mul", x, factor)))
        case 3:
            return s.add("Mul", s.add("Tanh", s.add("Softplus", x)), x)
        case 4:
            return s.add("Div", x, _raised(s, s.add("Exp", s.add("Neg", x)), one))
        case 5:
            return s.add("Log", _raised(s, s.add("Exp", x), one))
    three, zero, six = (s.const(np.float32(n)) for n in (3.0, 0.0, 6.0))
    gate = s.add("Clip", s.add("Add", x, three), zero, six)
    return s.add("Div", s.add("Mul", x, gate), six)


def _erf(s: Sketch, x: str) -> str:
    root = np.float32(2**0.5)
    divides = s.chance(0.5)
    operand = s.const(root if divides else 1 / root)
    return s.add("Erf", s.add("Div" if divides else "Mul", x, operand))


def _raised(s: Sketch, x: str, one: float) -> str:
    return s.add("Add", x, s.const(np.float32(one)))


def _product(s: Sketch, *factors: str) -> str:
    """The product of three factors in some order."""
    first, second, third = (factors[i] for i in s.permutation(3))
    return s.add("Mul", s.add("Mul", first, second), third)


def relu(s: Sketch, x: str) -> str:
    return s.add("Relu", x)


def positive(s: Sketch, x: str) -> str:
    """A function that needs values away from zero: sqrt, log, 1 / x, a quotient, a power."""
    one = s.add("Add", s.add("Abs", x), s.const(np.float32(0.5)))
    match s.between(0, 4):
        case 0:
            return s.add("Sqrt", one)
        case 1:
            return s.add("Log", one)
        case 2:
            return s.add("Reciprocal", one)
        case 3:
            return s.add("Div", x, one)
        case _:
            return s.add("Pow", one, s.const(np.float32(s.one((0.5, 2.0, 3.0, -1.0, 0.0, 1.0)))))


def exponential(s: Sketch, x: str) -> str:
    return s.add("Exp", s.add("Tanh", x))


def softmax(s: Sketch, x: str) -> str:
    rank = len(s.shape(x))
    if not rank:
        raise Rejected("scalar")
    axis = s.between(-rank, rank - 1) if s.opset >= 11 else s.between(0, rank - 1)
    return s.add(s.one(("Softmax", "Softmax", "LogSoftmax")), x, axis=axis)


def operand(s: Sketch, shape: tuple[int, ...]) -> Any:
    """A constant that broadcasts against `shape`, in one of many ways; some enlarge it."""
    rank = len(shape)
    match s.between(0, 6):
        case 0:
            return s.normal()
        case 1:
            return s.normal(1)
        case 2 if rank > 1:  # one for each channel
            return s.normal(shape[1], *(1 for _ in shape[2:]))
        case 3 if rank > 1:
            return s.normal(1, shape[1], *(1 for _ in shape[2:]))
        case 4 if rank:  # one for each of the last axis
            return s.normal(shape[-1])
        case 5 if rank:
            return s.normal(*(n if s.chance(0.5) else 1 for n in shape))
        case 6 if 0 < rank < 5:
            return s.normal(s.between(1, 2), *shape)
    return s.normal(*shape)


def arithmetic(s: Sketch, x: str) -> str:
    """x and a constant, either way around."""
    kind = s.one(("Add", "Add", "Sub", "Mul", "Mul", "Div", "Max", "Min"))
    array = operand(s, s.shape(x))
    if s.chance(0.15):
        array = np.full_like(array, s.one((0.0, 1.0, -1.0, 2.0)))
    if kind == "Div":
        array = np.sign(array) * (np.abs(array) + np.float32(0.5))
        array = np.where(array == 0, np.float32(1), array).astype(np.float32)
        return s.add("Div", x, s.const(array))
    if kind in ("Max", "Min") and s.opset < 8:
        raise Rejected(kind)
    pair = [x, s.const(array)]
    if s.chance(0.3):
        pair.reverse()
    return s.add(kind, *pair)


def clip(s: Sketch, x: str) -> str:
    low, high = s.one(((0.0, 6.0), (-0.5, 0.5), (0.0, 1.0), (-1.0, 3.0)))
    if s.opset < 11:
        return s.add("Clip", x, min=low, max=high)
    ends = [s.const(np.float32(low)), s.const(np.float32(high))]
    match s.between(0, 3):
        case 0:
            return s.add("Clip", x, ends[0])
        case 1:
            return s.add("Clip", x, "", ends[1])
    return s.add("Clip", x, *ends)


def prelu(s: Sketch, x: str) -> str:
    shape = s.shape(x)
    if len(shape) < 2:
        raise Rejected("rank")
    slope = s.normal(shape[1], *(1 for _ in shape[2:])) if s.chance(0.7) else s.normal(1)
    return s.add("PRelu", x, s.const(slope))


def dropout(s: Sketch, x: str) -> str:
    if s.opset >= 12:
        return s.add("Dropout", x, *([s.const(np.float32(0.5))] if s.chance(0.5) else []))
    return s.add("Dropout", x, ratio=0.4)


def there_and_back(s: Sketch, x: str) -> str:
    """A cast to another type and back."""
    if s.opset < 9:
        raise Rejected("types of older operators")
    if s.chance(0.5):
        return s.add("Cast", s.add("Cast", x, to=INT64), to=FLOAT)
    scaled = s.add("Mul", x, s.const(np.float32(3)))
    return s.add("Cast", s.add("Cast", scaled, to=s.one((BOOL, 6, 3))), to=FLOAT)


def choice(s: Sketch, x: str) -> str:
    """Where x is above a limit one thing, elsewhere another."""
    if s.opset < 9:
        raise Rejected("Where")
    above = s.add(s.one(("Greater", "Less")), x, s.const(operand(s, s.shape(x))))
    if s.chance(0.2):
        above = s.add("Not", above)
    other = s.const(s.normal()) if s.chance(0.5) else s.add("Neg", x)
    pair = [x, other] if s.chance(0.5) else [other, x]
    return s.add("Where", above, *pair)


def with_another(s: Sketch, x: str) -> str:
    """x and an earlier value whose shapes fit."""
    others = [n for n, a in s.values.items() if a.dtype == np.float32 and _fit(s, x, n)]
    other = s.one(others)
    kinds = ("Add", "Add", "Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")
    kind = s.one(kinds)
    pair = [x, other] if s.chance(0.5) else [other, x]
    if kind in ("Sum", "Mean") and s.chance(0.5):
        pair.append(s.one(others))
    if kind in ("Sum", "Mean", "Max", "Min") and s.opset < 8:
        raise Rejected(kind)
    return s.add(kind, *pair)


def _fit(s: Sketch, x: str, other: str) -> bool:
    try:
        np.broadcast_shapes(s.shape(x), s.shape(other))
    except ValueError:
        return False
    return True


def quantised(s: Sketch, x: str) -> str:
    """Quantised to whole numbers and back, as in quantisation-aware training."""
    if s.opset < 10:
        raise Rejected("QuantizeLinear")
    scale = s.const(np.float32(0.05))
    zero = s.const(s.one((np.uint8(128), np.int8(0))))
    return s.add("DequantizeLinear", s.add("QuantizeLinear", x, scale, zero), scale, zero)


ELEMENTWISE = [
    *(activation, activation, activation, relu, positive, exponential, softmax, arithmetic),
    *(arithmetic, arithmetic, clip, prelu, dropout, there_and_back, choice, with_another),
    *(with_another, quantised, spelled_activation, spelled_activation),
]
