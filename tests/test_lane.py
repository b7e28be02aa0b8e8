"""The lane: a unit that waits lets one other in, and comes back for its turn; nobody else's thread is touched."""

from __future__ import annotations

import threading

import pytest

from phbatch.computing.slots import come_back, has_left, in_lane, waiting

LONG_S = 60.0


def test_a_unit_that_waits_lets_the_next_one_compute() -> None:
    turn, waits, came = threading.Semaphore(1), threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        turn.acquire()
        with in_lane(turn.release, turn.acquire):
            with waiting():
                waits.set()
                assert came.wait(LONG_S), "the other unit did not start"
            come_back()
            order.append("first computes again")
            turn.release()

    def second() -> None:
        assert waits.wait(LONG_S)
        assert turn.acquire(timeout=LONG_S)
        order.append("second computes")
        came.set()
        turn.release()

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert order == ["second computes", "first computes again"]


def test_a_lane_is_left_once_and_after_an_error_the_turn_is_awaited() -> None:
    calls: list[str] = []
    with in_lane(lambda: calls.append("leave"), lambda: calls.append("come back")):
        with waiting(), waiting():
            assert has_left()
        come_back()
        come_back()
        assert not has_left()
        with pytest.raises(OSError, match="disk"), waiting():
            raise OSError("disk")
        assert not has_left()
    assert calls == ["leave", "come back"] * 2


def test_a_thread_of_somebody_else_stays_where_it_is() -> None:
    with waiting():
        assert not has_left()
    come_back()
    with in_lane(lambda: None, lambda: None):
        pass
    with waiting():
        assert not has_left()
