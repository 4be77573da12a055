"""What a compiled model of OpenVINO says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flatfold.backends.base import precision_of
from flatfold.backends.openvino_maker import TARGET
from flatfold.errors import BuildError

if TYPE_CHECKING:
    import onnx_ir as ir

_NO_STEPS = ("Input", "Const", "Output")
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def step_count(compiled: Any) -> int:
    """The steps that OpenVINO runs: layers with what was fused into them, and reorders."""
    operators = compiled.get_runtime_model().get_ops()
    kinds = (operator.get_rt_info()["layerType"].astype(str) for operator in operators)
    return sum(kind not in _NO_STEPS for kind in kinds)


def precision_said(compiled: Any, model: ir.Model) -> str:
    """What the compiled model says it runs in, which may not be what was asked for."""
    said = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    found = _PRECISIONS.get(said, said)
    return f"{found}+int8" if "int8" in precision_of(model) else found


def output_places(compiled: Any, names: list[str]) -> dict[str, int]:
    """The position of each output of the graph among those of the compiled model."""
    ports = {name: i for i, port in enumerate(compiled.outputs) for name in port.get_names()}
    if lost := [name for name in names if name not in ports]:
        raise BuildError(
            f"openvino lost the output {lost[0]!r}",
            where=f"target {TARGET}",
            hint="please report it with the model to the makers of openvino; ort-cpu may do",
        )
    return {name: ports[name] for name in names}
