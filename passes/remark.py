"""What is said about a decision, and what new nodes remember of the nodes they replaced."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from flatfold.passes.cost.model import Cost

HINTS: dict[str, str] = {
    "ALONE": "put the normalization right behind a layer that nothing else reads",
    "ASKED": "leave it out of keep_float to give it the precision of the others",
    "ATTRIBUTE": "export the model again, and check this node with onnx.checker",
    "AUTO-PAD": "export with explicit pads, or give the model a fixed input size",
    "BORDER": "pad in the first of the two layers only",
    "BORDER-BIAS": "drop the bias in front of the padding, or pad by what it makes of zero",
    "BROADCAST": "export with fixed sizes, or with one name for dimensions that are equal",
    "CEIL-MODE": "use ceil_mode=False, which is the same where the windows fit the map",
    "CHANNELS": "give the branches the same channels",
    "CODES": "quantise another model if the scales are to change",
    "COMPOSITE": "nothing to do: a factor in the next layer would save less than the kernel",
    "CONTROL-FLOW": "export the model without the condition, if it is known",
    "CONSTANT": "add or append constants by an operator of their own, behind the data",
    "COST": "name the target that will run the model, if it is another",
    "COUNT-PAD": "use count_include_pad=True, or pad in front of the pool",
    "DROP": "allow a larger drop to compute more of it in 8 bits",
    "DTYPE": "fold before the model is quantised or cast, or declare the type of the value",
    "FRACTION": "round the offsets or the grid to whole pixels",
    "INFINITE": "limit the value by a Clip in front of where it is copied",
    "LAYOUT": "use one layout, channels first or channels last, for both operators",
    "MATMUL": "use a weight of two axes, which torch.nn.Linear has",
    "NO-GAIN": "nothing to do: what has no gain on these data is left out",
    "NONFINITE": "repair the channel that is named in the checkpoint, or prune it",
    "NOT-CONSTANT": "make it a constant; --constant-defaults does so for inputs with defaults",
    "NOT-PER-CHANNEL": "use one number per channel, or one for all",
    "NOT-HOMOGENEOUS": "use Relu, LeakyRelu or PRelu, if the ranges of the channels matter",
    "OLD-OPSET": "export with opset 13 or later, or use onnx.version_converter",
    "OUTPUT": "remove the output from the graph if nobody needs it",
    "OVERFLOW": "clip the scale that is too large, or use a wider type",
    "PAD-MODE": "pad with zeros on the spatial axes, inside the layer",
    "RANGE": "use bf16, or give data (calibration) whose values are smaller",
    "ROUNDING": "use bf16, or fp32 as it is",
    "SHAPE": "export with fixed sizes, or run ONNX shape inference",
    "SHARED": "give each reader a copy of its own, if that is worth it",
    "SIZE": "export with a fixed input size",
    "SLICE": "use a range that runs forwards, holds something and leaves the batch alone",
    "SLOWER": "build with another target, or without timing (--no-time)",
    "SOURCES": "let the branches read one value, if that was meant",
    "STRIDE": "give the branches the same stride",
    "SWEEPS": "optimize the result once more",
    "TIED": "put a layer of one tap behind the value that is added",
    "TRAINING-MODE": "call model.eval() before the export",
    "TRANSPOSED": "transpose the weight instead of the data",
    "UNDERFLOW": "prune the channel, or use a wider type",
    "UNPROVED": "give the input a fixed size",
    "UPSAMPLE": "put the pointwise layer in front of the transposed one",
}


REWRITE_KEY, REPLACED_KEY, SCOPE_KEY = "flatfold.rewrite", "flatfold.replaced", "flatfold.scope"


@dataclass(frozen=True)
class Remark:
    """One decision: a rewrite applied at a node, or missed and why, with the cost on both sides."""

    rewrite: str
    node: str
    applied: bool
    code: str
    reason: str
    before: Cost = field(default_factory=Cost)
    after: Cost = field(default_factory=Cost)
    replaced: tuple[str, ...] = ()
    hint: str = ""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Remark:
        """The remark of which `content` is `dataclasses.asdict`, JSON in between or not."""
        costs = {side: Cost(**content[side]) for side in ("before", "after")}
        return cls(**{**content, **costs, "replaced": tuple(content["replaced"])})


TAKEN_BACK = "exact, but slower when it was timed: taken back"


def taken_back(place: str, rewrite: str = "") -> Remark:
    """The remark on a rewrite, or on all of them, that was not used because it was timed."""
    return Remark(rewrite, place, False, "SLOWER", TAKEN_BACK, hint=HINTS["SLOWER"])


def census(nodes: Sequence[ir.Node]) -> str:
    """Operator counts, most frequent first: "Conv x2, Add"."""
    counts = Counter(node.op_type for node in nodes)
    return ", ".join(f"{op} x{n}" if n > 1 else op for op, n in counts.most_common())


def origins(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """Names of the nodes of the original graph that these stand for, each once."""
    names: dict[str, None] = {}
    for node in nodes:
        earlier = node.metadata_props.get(REPLACED_KEY)
        names.update(dict.fromkeys(_listed(earlier) or [node.name or ""]))
    return tuple(names)


def _listed(text: str | None) -> list[str]:
    """The names in a node's metadata, which any file may bring along and fill with anything."""
    try:
        names = json.loads(text) if text else []
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
