"""Modules are named with the words of docs/glossary.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, read

PACKAGES = ("passes", "frontend", "backends", "flatfold")

# Other projects and formats, under their own names.
PRODUCTS = "cpu cuda html markdown onnxruntime onnxsim openvino pytorch tensorrt"
# Words that mean in a module's name what they mean in PyTorch, in ONNX and in every network.
NETWORKS = """
activation constant control conv convolution flow gather graph identity input layer model module
network node operator pooling sampling scatter shape tensor type weight
"""
# Words that mean what they mean in any program.
PROGRAMS = """
api array auto base build catalogue check cli code console data edit error exit external fact
field file inspect load machine option page process progress result rule run sentence system table
test text timing tool validate verify
"""
CHARTS = "block chart distribution waterfall"
PLAIN = set(f"{PRODUCTS} {NETWORKS} {PROGRAMS} {CHARTS}".split())

ROW = re.compile(r"^\| ([^|]+?) \| ([^|]+?) \|([^|]*)\|$", re.MULTILINE)


def entries() -> list[tuple[str, str]]:
    """(word or words, meaning) of each row, without the heads of the tables."""
    rows = [(term, meaning) for term, meaning, _ in ROW.findall(read("docs/glossary.md"))]
    return [row for row in rows if row[0] != "word"]


def terms() -> list[str]:
    return [term for row, _ in entries() for term in row.split(", ")]


def modules() -> list[str]:
    """Modules and folders, each by its path."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    files = {path for path in paths if not path.stem.startswith("__")}
    names = {str(path.relative_to(ROOT).with_suffix("")) for path in files}
    return sorted(names | {str(Path(name).parent) for name in names} - set(PACKAGES))


def forms(word: str) -> set[str]:
    """The word, and its plural."""
    return {word, f"{word}s", f"{word}es", f"{word[:-1]}ies"}


def words(module: str) -> list[str]:
    return Path(module).name.split("_")


@pytest.mark.parametrize("module", modules())
def test_a_module_is_named_with_words_of_the_glossary(module: str) -> None:
    known = PLAIN.union(*(term.split() for term in terms()))
    unknown = set(words(module)) - set().union(*map(forms, known))
    assert not unknown, f"{unknown}: add the word to docs/glossary.md, or use one that is there"


def test_each_word_has_one_row_and_its_meaning_is_a_sentence() -> None:
    assert sorted(terms()) == sorted(set(terms()))
    assert not PLAIN & set(terms())
    for term, meaning in entries():
        assert meaning[0].isupper() and meaning.endswith("."), term


def test_no_word_is_listed_as_plain_that_no_module_needs() -> None:
    used = {word for module in modules() for word in words(module)}
    assert {word for word in PLAIN if not forms(word) & used} == set()
