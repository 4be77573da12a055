"""Remarks on equal blocks are grouped, and their places written as one pattern."""

from __future__ import annotations

from flatfold.explanation import innermost, patterns


def test_places_that_differ_in_numbers_are_one_pattern_with_a_count() -> None:
    blocks = [f"stages.{i}.blocks.{j}.bn" for i in range(2) for j in range(3)]
    assert patterns(["stem.0", *blocks, "node_12"]) == [
        "stem.0",
        "stages.*.blocks.*.bn (6)",
        "node_12",
    ]


def test_the_innermost_module_is_around_all_that_are_known() -> None:
    assert innermost(["a.b.c", "a.b.d", ""]) == "a.b"
    assert innermost(["a.b", "a.b"]) == "a.b"
    assert innermost(["a.b", "a.bc"]) == "a", "names are compared whole"
    assert innermost(["a", "b"]) == innermost(["", ""]) == innermost([]) == ""
