"""Fixtures: an engine, and the folder of a saved one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flatfold.backends.base import Engine
from tests.backends.small_nets import build


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with build() as engine:
        yield engine


@pytest.fixture
def saved(engine: Engine, tmp_path: Path) -> Path:
    engine.save(tmp_path / "net")
    return tmp_path / "net"
