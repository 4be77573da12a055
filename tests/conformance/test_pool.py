"""Cases that crash, hang or raise, each without harm to the next."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.conformance.__main__ import moved, report
from tests.conformance.pool import CRASH, HANG, run_all
from tests.conformance.suite import BETWEEN, ERROR, PASS, PLAIN, THROUGH, Outcome

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def tenfold(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 5:
        time.sleep(60)
    return 10 * task


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_task_has_its_result(jobs: int) -> None:
    found = dict(run_all(range(8), tenfold, jobs=jobs, seconds=1.0))
    expected: dict[int, int | str] = {task: 10 * task for task in range(8)}
    assert found == {**expected, 3: CRASH, 5: HANG}


def test_nothing_to_do() -> None:
    assert list(run_all([], tenfold, jobs=2, seconds=1.0)) == []


def test_a_case_that_left_is_named() -> None:
    plain = {"a": Outcome(PASS), "b": Outcome(PASS), "c": Outcome(ERROR)}
    through = {"a": Outcome(PASS), "b": Outcome(CRASH), "c": Outcome(PASS)}
    found = {PLAIN: plain, THROUGH: through, BETWEEN: plain}
    assert moved(found, PLAIN, THROUGH) == ["b"]
    assert moved(found, THROUGH, PLAIN) == ["c"]
    assert "  b: crash " in report(found)
