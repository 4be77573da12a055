"""Reports as one HTML file that loads nothing else.

The names in a model come from its author and may be hostile: the templates escape every value, and
control characters are replaced before. The Content-Security-Policy of the page allows only its
style and its script. It can be read without the script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from flatfold.benchmark.machine import machine
from flatfold.benchmark.report import Report
from flatfold.benchmark.views import facts, sentences
from flatfold.text import clean, one_line

if TYPE_CHECKING:
    from jinja2 import Environment


SHOWN = 12  # rows of a long table
LONGEST = 500  # characters; a longer text is shortened to one line


def page(reports: Sequence[Report]) -> str:
    """The page of one report, or of several one after the other."""
    text = (
        environment()
        .get_template("page.html.jinja")
        .render(
            reports=reports,
            policy=policy(_file("page.css"), _file("page.js")),
            style=_literal("page.css"),
            script=_literal("page.js"),
        )
    )
    return f"{text.rstrip()}\n"


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: only this style and this script."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def environment() -> Environment:
    """The templates, with the modules that they call."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from flatfold import text as units
    from flatfold.benchmark.html import (
        blocks,
        charts,
        distributions,
        intervals,
        layers,
        roofline,
        waterfall,
    )

    def shown(value: Any) -> Any:
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        text = one_line(value) if "\n" in value or len(value) > LONGEST else clean(value)
        return text.replace(" %", "\u00a0%")  # no line begins with the sign

    templates = Environment(
        loader=PackageLoader("flatfold.benchmark", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    modules = (blocks, charts, distributions, intervals, layers, roofline, waterfall)
    templates.globals.update({module.__name__.rpartition(".")[2]: module for module in modules})
    words = {"machine": machine, "facts": facts, "units": units, "sentences": sentences}
    templates.globals.update(words, shown_rows=SHOWN)
    return templates


def _file(name: str) -> str:
    return files("flatfold.benchmark.html").joinpath(name).read_text(encoding="utf-8")


def _literal(name: str) -> Any:
    """A file of this package, which needs no escaping."""
    from markupsafe import Markup

    return Markup(_file(name))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
