"""Small random ONNX graphs in double precision, and their exact comparison.

In double, folding rounds at 1e-16, so two graphs that compute the same function agree to about
ROUNDING on the ONNX reference evaluator, which shares no code with us, and a wrong rewrite cannot
hide behind a tolerance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from flatfold.passes import PIPELINE, Pipeline, Remark
from flatfold.passes.cost.profiles import PROFILES
from flatfold.proof import RegionChecks
from tests.pools import AveragePool, MaxPool

# Roundings in double of numbers of order 1: sums of up to a thousand products, nine layers deep.
ROUNDING = 9 * 1000 * 2.0**-53

TYPES = {np.dtype(np.float64): 11, np.dtype(np.float32): 1, np.dtype(np.float16): 10}


@dataclass
class Net:
    """Builds a graph node by node; every method returns the name of the new value."""

    shape: tuple[int | str, ...] = (2, 4, 9, 8)
    seed: int = 0
    dtype: type = np.float64
    opset: int = 18
    nodes: list = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.x = "x"

    def const(self, array, name: str = "") -> str:
        array = np.asarray(array)
        name = name or f"c{len(self.constants)}"
        self.constants[name] = array.astype(self.dtype) if array.dtype.kind == "f" else array
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        outs = [name] + [f"{name}_{i}" for i in range(1, outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outs, name=name, **attributes))
        return name

    def conv(self, x: str, o: int, i: int, k: Sequence[int], bias=True, groups=1, **how) -> str:
        kernel = tuple(k)
        weight = self.const(self.rng.standard_normal((o, i // groups, *kernel)))
        extra = [self.const(self.rng.standard_normal(o))] if bias else []
        if "pads" not in how and "auto_pad" not in how:
            how["pads"] = [n // 2 for n in kernel] * 2
        return self.op("Conv", x, weight, *extra, group=groups, **how)

    def bn(self, x: str, c: int, eps: float = 1e-5, **how) -> str:
        gamma = self.rng.uniform(0.4, 1.2, c) * self.rng.choice([1, 1, 1, -1], c)
        parts = [gamma, self.rng.normal(0, 0.2, c), self.rng.normal(0, 0.2, c)]
        parts.append(self.rng.uniform(0.4, 1.2, c))
        return self.op("BatchNormalization", x, *map(self.const, parts), epsilon=eps, **how)

    def model(self, *outputs: str, extra_inputs: Sequence[str] = ()) -> onnx.ModelProto:
        elem = TYPES[np.dtype(self.dtype)]
        inputs = [helper.make_tensor_value_info("x", elem, list(self.shape))]
        inputs += [
            helper.make_tensor_value_info(n, elem, self.constants[n].shape) for n in extra_inputs
        ]
        graph = helper.make_graph(
            self.nodes,
            "net",
            inputs,
            [helper.make_tensor_value_info(o, elem, None) for o in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        proto.ir_version = 8
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)


@dataclass
class Rewritten:
    """A graph before and after, and the remarks."""

    before: onnx.ModelProto
    graph: ir.Model
    remarks: list[Remark]
    checks: RegionChecks

    @property
    def after(self) -> onnx.ModelProto:
        return ir.to_proto(self.graph)

    @property
    def ops(self) -> Counter:
        return Counter(node.op_type for node in self.graph.graph)

    @property
    def applied(self) -> list[str]:
        return [r.rewrite for r in self.remarks if r.applied]

    @property
    def codes(self) -> set[str]:
        return {r.code for r in self.remarks if not r.applied}


def rewrite(model: onnx.ModelProto, *names: str, target: str = "default") -> Rewritten:
    """Run the pipeline (all rewrites, or those named) with every change checked."""
    graph = ir.from_proto(model)
    checks = RegionChecks(certifying=True)
    chosen = [r() for r in PIPELINE if not names or r.name in names]
    remarks = Pipeline(chosen, PROFILES[target], checks).run(graph)
    onnx.checker.check_model(ir.to_proto(graph))
    return Rewritten(model, graph, remarks, checks)


class ConvTranspose(OpRun):
    """The evaluator's own is wrong for groups and asymmetric pads; PyTorch's is not."""

    def _run(self, x, w, b=None, dilations=None, group=1, output_padding=None, pads=None, **how):
        import torch

        axes = w.ndim - 2
        one, none = [1] * axes, [0] * axes
        y = getattr(torch.nn.functional, f"conv_transpose{axes}d")(
            torch.from_numpy(np.array(x)),
            torch.from_numpy(np.array(w)),
            stride=how.get("strides") or one,
            dilation=dilations or one,
            groups=group or 1,
        ).numpy()
        pads, extra = pads or none * 2, output_padding or none
        y = np.pad(y, [(0, 0), (0, 0), *((0, more) for more in extra)])
        mode, wanted = how.get("auto_pad"), how.get("output_shape")
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            wanted = wanted or [n * s for n, s in zip(x.shape[2:], how["strides"], strict=True)]
        if wanted:
            excess = np.subtract(y.shape[2:], wanted)
            assert min(excess) >= 0
            halves = [*(excess // 2), *(-(-excess // 2))]  # the larger half is cut off at the end
            pads = halves if mode == "SAME_UPPER" else halves[axes:] + halves[:axes]
        ends = zip(y.shape[2:], pads[:axes], pads[axes:], strict=True)
        y = y[(..., *(slice(begin, n - end) for n, begin, end in ends))]
        return (y if b is None else y + b.reshape(-1, *one),)


def run(model: onnx.ModelProto, *arrays: np.ndarray) -> list[np.ndarray]:
    """The ONNX reference evaluator."""
    names = [value.name for value in model.graph.input]
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model, new_ops=[ConvTranspose, AveragePool, MaxPool]).run(
            None, dict(zip(names, arrays, strict=False))
        )


def assert_same(done: Rewritten, shape: tuple[int, ...] | None = None, seed: int = 1) -> None:
    """Before and after agree everywhere; the rim and the inside are looked at apart."""
    x = np.random.default_rng(seed).standard_normal(shape or _shape(done.before))
    before, after = run(done.before, x), run(done.after, x)
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        error = np.abs(a - b) / max(1.0, float(np.abs(a).max()))
        inside = error[(..., *(slice(1, -1),) * (a.ndim - 2))] if a.ndim > 2 else error
        assert np.max(inside, initial=0.0) <= ROUNDING, "wrong inside"
        assert np.max(error, initial=0.0) <= ROUNDING, "wrong on the rim"


def assert_same_on_basis(done: Rewritten, shape: tuple[int, ...]) -> None:
    """Before and after agree on zero and on every impulse: for affine graphs that is everywhere."""
    size = int(np.prod(shape[1:]))
    x = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *shape[1:])
    for a, b in zip(run(done.before, x), run(done.after, x), strict=True):
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0.0) <= ROUNDING * max(1.0, float(np.abs(a).max()))


def assert_untouched(done: Rewritten) -> None:
    """The graph is byte for byte what it was."""
    assert not done.applied
    assert ir.to_proto(ir.from_proto(done.before)).SerializeToString() == (
        done.after.SerializeToString()
    )


def _shape(model: onnx.ModelProto) -> tuple[int, ...]:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return tuple(d.dim_value or 7 for d in dims)
