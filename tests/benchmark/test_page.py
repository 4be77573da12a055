"""The page of a report: every part is there, well-formed, and nothing in it can act."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from itertools import pairwise
from typing import Any

import pytest

from flatfold.benchmark.html.page import page
from flatfold.benchmark.report import Report
from tests.benchmark import made
from tests.benchmark.html import Element, parsed
from tests.benchmark.made_parts import HOSTILE
from tests.benchmark.made_whole import whole

SHOWN = "</script><img src=x onerror=alert(1)>\\x1b[2J\\u202e\"'`|*_"  # HOSTILE, as text


@pytest.fixture(scope="module")
def text() -> str:
    return page([whole()])


@pytest.fixture(scope="module")
def tree(text: str) -> Element:
    return parsed(text)


def table(tree: Element, heading: str) -> Element:
    """The first table behind a heading."""
    order = list(tree.below())
    (start,) = (at for at, e in enumerate(order) if e.tag in ("h3", "h4") and e.text == heading)
    return next(element for element in order[start:] if element.tag == "table")


def cells(row: Element) -> list[str]:
    return [cell.text for cell in row.all("th", "td")]


def test_headings_are_in_order_and_every_link_leads_somewhere(tree: Element) -> None:
    levels = [int(e.tag[1]) for e in tree.all("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    names = [e.attributes["id"] for e in tree.below() if "id" in e.attributes]
    assert len(names) == len(set(names))
    links = [e.attributes["href"] for e in tree.all("a")]
    assert len(links) > 10
    assert {link.removeprefix("#") for link in links} <= set(names)


def test_the_order_of_the_parts(tree: Element) -> None:
    assert [e.text for e in tree.all("h3") if e.attributes.get("id")] == [
        "Time and correctness of every row",
        "How sure the times are",
        "What each rewrite contributed",
        "Where the time goes, before and after",
        "How near to the limit of this machine",
        "The graph before and after",
        "What would make it unfair",
    ]
    assert [e.text for e in tree.all("h2")][-2:] == ["Machine and options", "How it was measured"]


def test_the_headline_has_all_that_a_speed_needs(tree: Element) -> None:
    first, second = tree.all("article")
    for told in (
        *("1.32x faster than the training graph on ort-cpu, fp32, batch 1", "0.758x the time"),
        "95 % interval",
        *(
            "noise floor ±",
            "outputs sampled, graph certified",
            "Compared with onnxsim ort-cpu, fp32",
        ),
    ):
        assert told in first.text
    assert "openvino" in second.text


def test_the_rows_are_ordered_and_the_wrong_one_is_not_ranked(tree: Element) -> None:
    rows = table(tree, "Time and correctness of every row").all("tr")[1:]
    found = [cells(row) for row in rows]
    assert [row[0].split()[0] for row in found[:6]] == [
        *("flatfold", "onnxsim", "onnxslim", "onnxscript", "training", "faulty")
    ]
    ours, wrong, failed = found[0], found[5], found[6]
    assert ours[1] == "ort-cpu" and ours[2].startswith("21.7 ms [")
    assert ours[4:6] == ["1.32x faster", "fp32"] and ours[7] == "certified"
    assert wrong[3:5] == ["–", "WRONG"] and "WRONG" in wrong[6]
    assert failed[0] == SHOWN and failed[2:5] == ["not measured", "–", "failed"]
    assert rows[5].attributes["class"] == "wrong"


def test_tables_can_be_sorted_by_a_button_in_each_head(tree: Element) -> None:
    tables = tree.all("table", class_="sortable")
    assert len(tables) == 3
    for found in tables:
        for head in found.all("th", scope="col"):
            (button,) = head.all("button")
            assert button.text and head.attributes["aria-sort"] == "none"


def test_percentiles_of_too_few_runs_are_no_numbers() -> None:
    rows = table(parsed(page([made.report()])), "Tails, sizes and one-time costs").all("tr")
    ours = cells(rows[1])
    assert ours[0] == "flatfold" and ours[4:6] == ["20.0 ms", "n too small"]


def test_every_picture_says_what_it_is(tree: Element) -> None:
    pictures = tree.all("svg", role="img")
    assert len(pictures) >= 12
    for picture in pictures:
        named = picture.attributes.get("aria-label") or picture.all("title")[0].text
        assert named
    hidden = [e for e in tree.all("svg") if e not in pictures]
    assert all(e.attributes.get("aria-hidden") == "true" or e.all("title") for e in hidden)


def test_steps_and_moves_and_limits(tree: Element) -> None:
    steps = [cells(row) for row in table(tree, "What each rewrite contributed").all("tr")[1:]]
    assert steps[0][0] == "training graph"
    assert steps[1][1] == "61" and steps[1][-1] == "1.13x faster"
    moves = table(tree, "What changed most on ort-cpu").all("tr")[1:]
    assert cells(moves[0])[:4] == ["stage3.1", "1.30 ms", "920 us", "380 us"]
    limits = [cells(r) for r in table(tree, "How near to the limit of this machine").all("tr")]
    assert limits[1][0] == "flatfold" and limits[1][-1] == "67 %"


def test_blocks_are_drawn_or_counted(tree: Element) -> None:
    drawn, counted, strange = tree.all("details", class_="block")
    assert len(drawn.all("svg", class_="sketch")) == 2
    assert "merge-branches at 21 places" in drawn.text
    assert "ort-cpu and openvino" in {e.text for e in tree.all("h4")}, "it is the same for both"
    assert "before: 8 operators" in drawn.text and "after: 2 operators" in drawn.text
    assert "Too large to be drawn: 80 Conv." in counted.text
    assert "Too large to be drawn: 2 Relu." in strange.text, "a circle is drawn by nobody"


def test_nothing_is_loaded_and_nothing_of_others_runs(text: str, tree: Element) -> None:
    (policy,) = (e for e in tree.all("meta") if "http-equiv" in e.attributes)
    rules = policy.attributes["content"]
    assert rules.startswith("default-src 'none'; ") and "unsafe" not in rules
    for tag in ("style", "script"):
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in rules
    for element in tree.below():
        assert element.tag not in ("img", "link", "iframe", "object", "base", "form")
        for name, value in element.attributes.items():
            assert not name.startswith("on") and name not in ("src", "style")
            assert name != "href" or value.startswith("#")
    assert "://" not in text and "alert(1)>" not in text


def test_what_could_act_on_a_reader_is_written_out(text: str, tree: Element) -> None:
    assert not {"\x1b", "\u202e"} & set(text)
    assert SHOWN in tree.text
    assert HOSTILE not in tree.text


def test_the_same_report_gives_the_same_bytes(text: str) -> None:
    assert page([Report.from_json(whole().to_json())]) == text


@pytest.mark.parametrize(
    "change",
    [
        {"steps": (), "step_rows": (), "profiles": (), "moves": (), "changes": ()},
        {"rows": (), "pairs": (), "noise": None, "reference": ""},
        {"reason": "it could not be exported"},
    ],
)
def test_what_was_not_measured_is_left_out(change: dict[str, Any]) -> None:
    model = dataclasses.replace(whole().models[0], **change)
    tree = parsed(page([Report((model,))]))
    kept = {e.text for e in tree.all("h3") if e.attributes.get("id")}
    optional = {"steps": "What each rewrite contributed", "rows": "How sure the times are"}
    assert not {title for part, title in optional.items() if part in change} & kept
    assert "unknown processor" in tree.text
    assert change.get("reason", "") in tree.text


def test_several_reports_are_one_page_with_a_machine_each() -> None:
    other = dataclasses.replace(made.report(name="another"), environment={"processor": "a Z80"})
    tree = parsed(page([whole(), other]))
    titles = [e.text for e in tree.all("h2")]
    assert titles == [
        *("Contents", "Summary", "Report 1", "repvgg_a0", "Report 1: machine and options"),
        *("Report 2", "another", "Report 2: machine and options", "How it was measured"),
    ]
    assert "a Z80" in tree.text and tree.all("h1")[0].text == "repvgg_a0, another"


def test_a_report_of_many_models_stays_small() -> None:
    models = [dataclasses.replace(whole().models[0], model=f"net{n}") for n in range(8)]
    text = page([Report(tuple(models), whole().environment)])
    assert len(text) < 1_500_000
