"""Options from a dictionary, and from the command line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from flatfold.backends.options import parse_options, read_options
from flatfold.errors import InputError, UnknownName


@dataclass(frozen=True)
class Options:
    threads: int = 2
    share: float = 0.5
    fast: bool = False
    place: str = ""


def test_written_options_have_the_types_of_their_defaults():
    written = ["threads=4", "share=1", "fast=True", "place=a=b"]
    found = read_options(Options, written, "test")
    assert parse_options(Options, found, "test") == Options(4, 1.0, True, "a=b")
    assert read_options(Options, [], "test") == {}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("threads", "expected an option as name=value, found 'threads'"),
        ("threads=two", "'threads': expected a whole number, found 'two'"),
        ("threads=1.5", "'threads': expected a whole number, found '1.5'"),
        ("share=x", "'share': expected a number, found 'x'"),
        ("fast=1", "'fast': expected true or false, found '1'"),
    ],
)
def test_what_cannot_be_read_is_said(written, message):
    with pytest.raises(InputError) as caught:
        read_options(Options, [written], "test")
    assert message in caught.value.cause


def test_an_unknown_name_brings_the_near_ones():
    with pytest.raises(UnknownName) as caught:
        read_options(Options, ["thread=4"], "test")
    assert caught.value.near[0] == "threads"
