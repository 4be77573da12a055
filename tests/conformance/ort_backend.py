"""ONNX Runtime behind the backend interface of ONNX (onnx.backend.base), for any valid model.

An engine of flatfold takes tensors that NumPy can hold and models of versions that ONNX Runtime
knows. The test suite of ONNX has others too: a model that is refused is offered again with its
opset changed, and tensors are passed to ONNX Runtime as bytes.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference, version_converter
from onnx.backend.base import Backend, BackendRep

from flatfold.backends.onnxruntime.session import OrtOptions, open_session
from flatfold.errors import BuildError, InputError, TargetError, TargetUnavailable

if TYPE_CHECKING:
    import onnxruntime

    from flatfold.result import Optimized

_OLDEST = 13  # ONNX Runtime has dropped kernels of opsets before it
_OLDEST_IR = 8  # every supported version of ONNX Runtime takes it
_DOMAINS = ("", "ai.onnx")
_OPTIONS = OrtOptions(intra_threads=1, spinning=False)


class Prepared(BackendRep):
    """A session of `model`; `result` is the return value of `flatfold.optimize`, if that was run.

    Raises BuildError where ONNX Runtime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto, result: Optimized | None = None) -> None:
        self.result = result
        self._session = _session(model)

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        """The outputs for the inputs that are not initializers, both in the order of the model.

        A tensor is an array, of ml_dtypes where NumPy has no such type; a sequence is a list;
        an optional value may be None. Raises InputError or TargetError.
        """
        wanted = self._session.get_inputs()
        if len(inputs) != len(wanted):
            names = ", ".join(argument.name for argument in wanted) or "none"
            raise InputError(f"expected {len(wanted)} inputs ({names}), found {len(inputs)}")
        feeds = {
            argument.name: _ort_value(value, argument.type)
            for argument, value in zip(wanted, inputs, strict=True)
        }
        results = self._session.get_outputs()
        try:
            if all(_element_type(argument.type) for argument in (*wanted, *results)):
                values = self._session.run_with_ort_values(None, feeds)
                return tuple(map(_array, values))
            return tuple(self._session.run(None, feeds))
        except Exception as error:  # its exception types have no common base class
            raise TargetError(f"onnxruntime could not run the model: {error}") from error


class OrtBackend(Backend):
    """ONNX Runtime alone: the reference that `FlatfoldBackend` is compared with."""

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


def _model_of(node: onnx.NodeProto, inputs: Sequence[Any], opset: int | None) -> onnx.ModelProto:
    """A model of `node` alone; the types of its outputs are inferred."""
    arrays = [np.asarray(value) for value in inputs]
    names = dict.fromkeys(name for name in node.input if name)
    types = [numpy_helper.from_array(array).data_type for array in arrays]
    sources = [
        helper.make_tensor_value_info(name, kind, array.shape)
        for name, kind, array in zip(names, types, arrays, strict=True)
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", sources, results)
    version = opset or onnx.defs.onnx_opset_version()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return shape_inference.infer_shapes(model, strict_mode=True)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    refused = None
    for candidate in _candidates(model):
        try:
            return open_session(candidate.SerializeToString(), _OPTIONS)
        except BuildError as error:
            refused = refused or error  # report the error of the unchanged model
    assert refused is not None
    raise refused


def _candidates(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """`model` as it is; converted to an opset that ONNX Runtime knows; its import changed.

    The last one is only correct where the operators are the same in both opsets.
    """
    same = onnx.ModelProto()
    same.CopyFrom(model)
    same.ir_version = min(same.ir_version, _newest()[1])
    yield same
    versions = [entry.version for entry in same.opset_import if entry.domain in _DOMAINS]
    if not versions:
        return
    nearest = min(max(versions[0], _OLDEST), _newest()[0])
    if nearest == versions[0]:
        return
    try:
        converted = version_converter.convert_version(same, nearest)
    except Exception:  # of many types; it converts few operators in both directions
        converted = None
    if converted is not None:
        converted.ir_version = same.ir_version
        yield converted
    for entry in same.opset_import:
        if entry.domain in _DOMAINS:
            entry.version = nearest
    yield same


@cache
def _newest() -> tuple[int, int]:
    """The newest opset and IR version that ONNX Runtime takes, determined by trying them."""
    opsets = range(onnx.defs.onnx_opset_version(), _OLDEST, -1)
    opset = next((version for version in opsets if _takes(version, _OLDEST_IR)), _OLDEST)
    versions = range(onnx.IR_VERSION, _OLDEST_IR, -1)
    return opset, next((version for version in versions if _takes(_OLDEST, version)), _OLDEST_IR)


def _takes(opset: int, ir_version: int) -> bool:
    """Whether ONNX Runtime takes a model of one operator of these versions."""
    source, result = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "probe", [source], [result])
    imports = [helper.make_opsetid("", opset)]
    probe = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    try:
        open_session(probe.SerializeToString(), _OPTIONS)
    except BuildError:
        return False
    return True


def _element_type(kind: str) -> int:
    """ONNX's number for the type "tensor(kind)" of ONNX Runtime; 0 if it has no plain bytes."""
    name = kind.removeprefix("tensor(").removesuffix(")").upper()
    if not kind.startswith("tensor(") or name in ("STRING", "COMPLEX64", "COMPLEX128"):
        return 0
    return int(onnx.TensorProto.DataType.Value(name))


def _ort_value(value: Any, kind: str) -> Any:
    """A tensor of plain bytes as an OrtValue; anything else as it is."""
    import onnxruntime

    element_type = _element_type(kind)
    if not element_type:
        return value
    array = np.asarray(value)  # a NumPy scalar is a tensor of rank 0
    tensor = numpy_helper.from_array(array)
    if tensor.data_type != element_type:
        raise InputError(f"expected {kind}, found an array of {array.dtype}")
    ort_value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element_type)
    ctypes.memmove(ort_value.data_ptr(), tensor.raw_data, len(tensor.raw_data))
    return ort_value


def _array(value: onnxruntime.OrtValue) -> Any:
    """A copy of the tensor in `value`."""
    import onnx_ir as ir

    kind, sizes = value.element_type(), value.shape()
    count: int = math.prod(sizes)
    bits: int = ir.DataType(kind).bitwidth
    raw = ctypes.string_at(value.data_ptr(), (count * bits + 7) // 8)
    return numpy_helper.to_array(onnx.TensorProto(data_type=kind, dims=sizes, raw_data=raw))
