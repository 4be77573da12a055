"""What `optimize` gives back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from flatfold.passes import Remark
    from flatfold.proof.certificate import Certificate, Entry
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.reference import Reference
    from flatfold.summary import Summary


@dataclass(frozen=True)
class Optimized:
    """A rewritten graph, every decision on the way to it, and the proof.

    `original` is the graph as it came; `training` the same without the exporter's clutter, which
    is what "before" means wherever counts and latencies are compared; `graph` the rewritten one.
    `reference` makes what computes the original in float64, if there is a module to do it.
    """

    name: str
    graph: ir.Model
    original: ir.Model
    training: ir.Model
    remarks: tuple[Remark, ...]
    equivalence: Equivalence
    changes: tuple[Entry, ...] | None = None
    reference: Callable[[], Reference | None] = field(
        default=lambda: None, repr=False, compare=False
    )

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        certificate: Mapping[str, Any] | None,
        original: ir.Model,
        training: ir.Model,
        graph: ir.Model,
    ) -> Optimized:
        """What `record()` and `certificate()` were written of, with its graphs at hand."""
        from flatfold.passes import Remark
        from flatfold.proof.certificate import Certificate
        from flatfold.proof.equivalence import Equivalence

        return cls(
            record["name"],
            graph,
            original,
            training,
            tuple(map(Remark.from_dict, record["remarks"])),
            Equivalence.from_dict(record["equivalence"]),
            None if certificate is None else Certificate.from_dict(certificate).changes,
        )

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The rewritten graph as an ONNX model with all weights in it; beyond 2 GiB use `save`."""
        import onnx_ir as ir

        return ir.to_proto(self.graph)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rewritten graph as an .onnx file, all or nothing.

        Weights of more than 1 GiB go to `<name>.data` beside it. Raises OutputError.
        """
        from flatfold.backends.model_file import save_model

        save_model(self.graph, Path(path))

    @cached_property
    def before(self) -> Summary:
        """Counts of the training form."""
        from flatfold.summary import summarise

        return summarise(self.training)

    @cached_property
    def after(self) -> Summary:
        """Counts of the rewritten graph."""
        from flatfold.summary import summarise

        return summarise(self.graph)

    def certificate(self) -> Certificate | None:
        """What was proved of each change between `training` and `graph`; None if nothing was."""
        from flatfold.proof.certificate import Certificate, fingerprint

        if self.changes is None:
            return None
        return Certificate(fingerprint(self.training), fingerprint(self.graph), self.changes)

    def record(self) -> dict[str, Any]:
        """What the manifest of an engine says about the graph: plain JSON values."""
        return {
            "name": self.name,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "equivalence": self.equivalence.to_dict(),
            "remarks": [asdict(remark) for remark in self.remarks],
        }
