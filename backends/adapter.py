"""Any ONNX model on ONNX Runtime, with whatever types and versions it has.

An engine takes tensors that NumPy can hold and a model whose versions ONNX Runtime knows. Here
neither is asked for, which is what the ONNX backend interface needs: a model that is refused is
offered again with its opset moved, and tensors are handed over by their bytes.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from flatfold.backends.onnxruntime.session import OrtOptions, open_session
from flatfold.errors import BuildError, InputError, TargetError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["Adapted"]

_OLDEST = 13  # ONNX Runtime has dropped kernels of opsets before it
_OLDEST_IR = 8  # taken by every version that there is a target for
_DOMAINS = ("", "ai.onnx")
_OPTIONS = OrtOptions(intra_threads=1, spinning=False)


class Adapted:
    """A session of `model`, which stays as it is. Raises BuildError where none can be opened."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = _session(model)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs, in order, for the inputs in order: those that are not initializers too.

        A tensor is an array, of ml_dtypes where NumPy has no such type; a sequence is a list;
        what is optional may be None. Raises InputError or TargetError.
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
                return [_array(value) for value in self._session.run_with_ort_values(None, feeds)]
            return list(self._session.run(None, feeds))
        except Exception as error:  # its exception types share no base of their own
            raise TargetError(f"onnxruntime could not run the model: {error}") from error


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    refused = None
    for candidate in _candidates(model):
        try:
            return open_session(candidate.SerializeToString(), _OPTIONS)
        except BuildError as error:
            refused = refused or error  # what was said of the model as it came
    assert refused is not None
    raise refused


def _candidates(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """`model` as it is; converted to an opset that ONNX Runtime knows; its import changed.

    The last is right where the operators are the same in both opsets, so it comes last.
    """
    import onnx
    from onnx import version_converter

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
    except Exception:  # of one of its many types; it knows few operators both ways
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
    """The newest opset and the newest IR version that ONNX Runtime takes, found out by trying."""
    import onnx

    opsets = range(onnx.defs.onnx_opset_version(), _OLDEST, -1)
    opset = next((version for version in opsets if _takes(version, _OLDEST_IR)), _OLDEST)
    versions = range(onnx.IR_VERSION, _OLDEST_IR, -1)
    return opset, next((version for version in versions if _takes(_OLDEST, version)), _OLDEST_IR)


def _takes(opset: int, ir_version: int) -> bool:
    """Whether ONNX Runtime takes a model of one operator of these versions."""
    import onnx
    from onnx import helper

    given, made = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "probe", [given], [made])
    imports = [helper.make_opsetid("", opset)]
    probe = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    try:
        open_session(probe.SerializeToString(), _OPTIONS)
    except BuildError:
        return False
    return True


def _element_type(kind: str) -> int:
    """ONNX's number for the type "tensor(kind)" of ONNX Runtime; 0 for what has no plain bytes."""
    import onnx

    name = kind.removeprefix("tensor(").removesuffix(")").upper()
    if not kind.startswith("tensor(") or name in ("STRING", "COMPLEX64", "COMPLEX128"):
        return 0
    return int(onnx.TensorProto.DataType.Value(name))


def _ort_value(value: Any, kind: str) -> Any:
    """A tensor of plain bytes as an OrtValue; anything else as it is."""
    import onnxruntime
    from onnx import numpy_helper

    element_type = _element_type(kind)
    if not element_type:
        return value
    array = np.asarray(value)  # a NumPy scalar is a tensor of rank 0
    tensor = numpy_helper.from_array(array)
    if tensor.data_type != element_type:
        raise InputError(f"expected {kind}, found an array of {array.dtype}")
    made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element_type)
    ctypes.memmove(made.data_ptr(), tensor.raw_data, len(tensor.raw_data))
    return made


def _array(value: onnxruntime.OrtValue) -> Any:
    """A copy of the tensor in `value`."""
    import onnx
    import onnx_ir as ir
    from onnx import numpy_helper

    kind, sizes = value.element_type(), value.shape()
    count: int = math.prod(sizes)
    bits: int = ir.DataType(kind).bitwidth
    raw = ctypes.string_at(value.data_ptr(), (count * bits + 7) // 8)
    return numpy_helper.to_array(onnx.TensorProto(data_type=kind, dims=sizes, raw_data=raw))
