"""Parts of a graph that the folding library would change, and must not."""

from __future__ import annotations

import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text


@pytest.mark.parametrize("attributes", ["saturate = 0", 'round_mode = "down"'])
def test_a_castlike_keeps_its_rounding(attributes: str) -> None:
    model = from_text(
        f"""<ir_version: 13, opset_import: ["" : 25]>
        g (float[4] x, float8e5m2[1] like) => (float8e5m2[4] y) {{
            y = CastLike <{attributes}> (x, like)
        }}"""
    )
    node = model.graph.node(0)
    before = {name: attribute.value for name, attribute in node.attributes.items()}
    canonicalize(model)
    (node,) = model.graph
    after = {name: attribute.value for name, attribute in node.attributes.items()}
    after.pop("to", None)
    assert after == before


def test_a_castlike_without_such_attributes_is_a_cast() -> None:
    model = from_text("g (int32[3] x, float[1] like) => (float[3] y) { y = CastLike (x, like) }")
    assert_same_function(model)
    assert counts(model) == {"Cast": 1}
