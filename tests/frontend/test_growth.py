"""The work of reading a graph grows no faster than the graph."""

from __future__ import annotations

import itertools
import sys

from flatfold.frontend import canonicalize
from tests.frontend.execution import from_text


def test_work_grows_linearly_with_the_graph() -> None:
    """In calls of functions, which are the same however busy the machine is."""

    def calls(length: int) -> int:
        body = " ".join(f"v{i + 1} = Relu (v{i})" for i in range(length))
        model = from_text(f"g (float[2] v0) => (float[2] v{length}) {{ {body} }}")
        count = itertools.count()
        sys.setprofile(lambda *_: next(count))
        try:
            canonicalize(model)
        finally:
            sys.setprofile(None)
        return next(count)

    calls(10)  # import what the first call imports
    assert calls(2000) < 4.4 * calls(500)
