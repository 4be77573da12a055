"""onnxsim, an optional simplifier of a finished graph."""

from __future__ import annotations

import contextlib
import io

import onnx_ir as ir

from flatfold.errors import ExportError, InputError


def simplify(model: ir.Model) -> ir.Model:
    """`model` simplified by onnxsim, as a new model with the same inputs and outputs.

    In memory only: given a path, onnxsim follows external data out of the model's folder. The
    result is unverified. Raises `InputError` when the model is too large to serialize or onnxsim
    cannot be imported, and `ExportError` when onnxsim fails.
    """
    try:
        import onnxsim
    except Exception as error:
        raise InputError(
            f"onnxsim cannot be imported: {error}", hint="pip install onnxsim"
        ) from error
    proto = ir.serde.serialize_model(model)
    if proto.ByteSize() >= 2**31:
        raise InputError(
            f"the model has {proto.ByteSize()} bytes; onnxsim takes less than 2 GiB",
            hint="leave simplify out",
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            simplified, _ = onnxsim.simplify(proto, check_n=0)
        return ir.serde.deserialize_model(simplified)
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise ExportError(
            f"onnxsim failed: {text.splitlines()[0]}", hint="leave simplify out"
        ) from error
