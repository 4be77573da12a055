"""A worker gives its cores back before another one runs."""

from __future__ import annotations

import threading
import time

from flatfold.comparing.worker import SETTLED_S, Worker


def spinning(seconds: float) -> threading.Thread:
    """A thread that waits actively for so long."""

    def spin() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    return thread


def test_it_waits_until_its_threads_rest() -> None:
    thread = spinning(0.15)
    Worker({}).settle()
    # It sleeps as the thread spins: what is left of it is less than a look.
    thread.join(0.1)
    assert not thread.is_alive()


def test_it_does_not_wait_for_ever() -> None:
    thread = spinning(4 * SETTLED_S)
    Worker({}).settle()
    assert thread.is_alive()
    thread.join()
