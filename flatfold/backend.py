"""flatfold behind the backend interface of ONNX (onnx.backend.base).

    import flatfold.backend as backend
    outputs = backend.prepare(model).run([x])        # or backend.run_model(model, [x])

`prepare` optimizes the model, without the proof, and opens an ONNX Runtime session on the CPU. A
model of any opset, domain and type is taken; what flatfold does not understand stays as it is.
`flatfold.compile` is the way to engines for a target; this one is for programs, such as the test
suite of ONNX, that know a backend by this interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnx.backend.base import Backend, BackendRep

from flatfold.errors import TargetUnavailable

if TYPE_CHECKING:
    import onnx

    from flatfold.result import Optimized

__all__ = [
    "FlatfoldBackend",
    "OrtBackend",
    "Prepared",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]


class Prepared(BackendRep):
    """A model ready to run. `result` is what `flatfold.optimize` made of it, if it did."""

    def __init__(self, model: onnx.ModelProto, result: Optimized | None = None) -> None:
        from flatfold.backends.adapter import Adapted

        self.result = result
        self._adapted = Adapted(model)

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        """The outputs for the inputs that are no initializers, both in the model's order.

        Tensors are arrays, sequences lists, what is optional may be None.
        """
        return tuple(self._adapted.run(inputs))


class OrtBackend(Backend):
    """ONNX Runtime alone: what `FlatfoldBackend` is compared with."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.partition(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> Prepared:
        """Raises BuildError where ONNX Runtime refuses the model, TargetUnavailable for a device
        that is not the CPU."""
        cls._require(device)
        return Prepared(model)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Sequence[Any],
        device: str = "CPU",
        outputs_info: Any = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """The outputs of one node, of opset `opset_version` or the newest one."""
        model = _model_of(node, inputs, options.pop("opset_version", None))
        return cls.prepare(model, device, **options).run(inputs)

    @classmethod
    def _require(cls, device: str) -> None:
        if not cls.supports_device(device):
            raise TargetUnavailable(f"no device {device!r}: this backend runs on the CPU")


class FlatfoldBackend(OrtBackend):
    """`flatfold.optimize`, then ONNX Runtime."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> Prepared:
        """As `OrtBackend.prepare`; raises what `flatfold.optimize` raises, too."""
        cls._require(device)
        result = cls.optimized(model)
        return Prepared(result.model, result)

    @classmethod
    def optimized(cls, model: onnx.ModelProto) -> Optimized:
        """What `prepare` runs in the place of `model`."""
        from flatfold.api import optimize

        return optimize(model, verify="off", target="ort-cpu")


def _model_of(node: onnx.NodeProto, inputs: Sequence[Any], opset: int | None) -> onnx.ModelProto:
    """A model of `node` alone; the types of its outputs are inferred."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper, shape_inference

    arrays = [np.asarray(value) for value in inputs]
    names = dict.fromkeys(name for name in node.input if name)
    types = [numpy_helper.from_array(array).data_type for array in arrays]
    given = [
        helper.make_tensor_value_info(name, kind, array.shape)
        for name, kind, array in zip(names, types, arrays, strict=True)
    ]
    made = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", given, made)
    version = opset or onnx.defs.onnx_opset_version()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return shape_inference.infer_shapes(model, strict_mode=True)


is_compatible = FlatfoldBackend.is_compatible
prepare = FlatfoldBackend.prepare
run_model = FlatfoldBackend.run_model
run_node = FlatfoldBackend.run_node
supports_device = FlatfoldBackend.supports_device
