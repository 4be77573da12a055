"""Links, files, commands and codes on the pages exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
import typer

from flatfold import errors
from flatfold.__main__ import app
from flatfold.cli import exit_codes
from flatfold.passes.pipeline import SILENT
from flatfold.passes.remark import HINTS
from tests.docs.markdown import PAGES, ROOT, blocks, headings, prose, read

ADDED = {block.file for block in blocks("CONTRIBUTING.md") if block.file}
SHELL = ("console", "text", "sh")

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:[\w.-]+/)*[\w.-]+\.(?:py|md|toml|txt|svg|in)|(?:[\w-]+/)+")
_VERB = re.compile(r"(?<![\w/.-])flatfold ([a-z]+)\b((?: +[^\s`|#]+)*)")
_MAKE = re.compile(r"\bmake ([a-z-]+)\b")
_ROW = re.compile(r"^\| `?([A-Z0-9-]+)`? \|(.*)\|$", re.MULTILINE)


def commands(page: str) -> Iterator[str]:
    """Inline code, and the lines of shell blocks."""
    yield from _CODE.findall(prose(page))
    for block in blocks(page):
        if block.language in SHELL:
            yield from block.text.splitlines()


def anchor(heading: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        file, _, place = link.partition("#")
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.is_file(), f"{page} links to {link}"
        if place:
            anchors = {anchor(text) for _, text in headings(str(target.relative_to(ROOT)))}
            assert place in anchors, f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    named = {name for name in _CODE.findall(prose(page)) if _PATH.fullmatch(name)}
    missing = {name for name in named - ADDED if not (ROOT / name).exists()}
    written = {name for name in missing if name.startswith("build/")}
    assert not missing - written, f"{page} names what is not there"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page: str) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in commands(page):
        for verb, rest in _VERB.findall(line):
            assert verb in verbs, f"{page}: flatfold {verb}"
            below = getattr(verbs[verb], "commands", {})  # those of a verb that has verbs
            command = below.get(rest.split()[0], verbs[verb]) if rest.split() else verbs[verb]
            known = {o for param in command.params for o in (*param.opts, *param.secondary_opts)}
            used = set(re.findall(r"(?<!\S)--[a-z-]+", rest))
            assert used <= known, f"{page}: flatfold {verb} has no {used - known}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    rules = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    used = {target for line in commands(page) for target in _MAKE.findall(line)}
    assert used <= rules, f"{page}: make {used - rules}"


def test_readme_shows_every_verb_and_target_a_user_starts_with() -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    shown = {verb for line in commands("README.md") for verb, _ in _VERB.findall(line)}
    assert shown == verbs
    assert "make engine MODEL=repvgg_a0" in read("README.md")


def test_reasons_for_declining_are_those_in_the_source() -> None:
    listed = [code for code, _ in reasons()]
    assert sorted(listed) == sorted(set(listed)), "a code is listed twice"
    assert set(listed) == decline_codes()
    rows = {code: [cell.strip() for cell in rest.split("|")] for code, rest in reasons()}
    hinted = {code: cells for code, cells in rows.items() if len(cells) == 2}
    assert all(meaning for meaning, *_ in rows.values())
    assert {code: hint for code, (_, hint) in hinted.items()} == HINTS
    assert set(rows) - set(hinted) == set(SILENT)


def test_error_codes_are_those_of_the_classes() -> None:
    rows = {code: rest.split("|") for code, rest in table("Error codes")}
    listed = {
        code: (name.strip(" `"), int(exit_code)) for code, (name, exit_code, _) in rows.items()
    }
    assert listed == {kind.code: (kind.__name__, kind.exit_code) for kind in error_classes()}


def test_exit_codes_are_those_of_the_process() -> None:
    ends = {exit_codes.OK, exit_codes.INTERNAL, exit_codes.USAGE, exit_codes.INTERRUPTED}
    possible = ends | {kind.exit_code for kind in error_classes()}
    assert {int(code) for code in codes_under("Exit codes")} == possible
    sentence = re.search(r"^Exit codes: .*$", read("README.md"), re.MULTILINE)
    assert sentence
    assert {int(code) for code in re.findall(r"\d+", sentence[0])} == possible


def reasons() -> list[tuple[str, str]]:
    return [row for row in table("Reasons for declining") if row[0] != "code"]


def error_classes() -> list[type[errors.FlatfoldError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, errors.FlatfoldError)]


def decline_codes() -> set[str]:
    """The first argument of every Decline(...) and Kept(...) in the source, always a literal."""
    codes = set()
    folders = ("passes", "flatfold/proof", "flatfold/quantizing")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in (*paths, ROOT / "flatfold/narrowing.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Decline", "Kept"):
                code = node.args[0]
                assert isinstance(code, ast.Constant), f"{path}:{node.lineno}"
                codes.add(code.value)
    return codes


def table(heading: str) -> list[tuple[str, str]]:
    """(code, other cells) of the tables under a heading of docs/errors.md."""
    places = headings("docs/errors.md")
    index = [text for _, text in places].index(heading)
    end = places[index + 1][0] if index + 1 < len(places) else None
    return _ROW.findall(prose("docs/errors.md")[places[index][0] : end])


def codes_under(heading: str) -> list[str]:
    return [code for code, _ in table(heading)]
