"""The lane, upon a module of Dask's that is not documented: a unit that waits lets one other in, and comes back."""

from __future__ import annotations

import threading

from distributed.threadpoolexecutor import ThreadPoolExecutor

from phbatch.lane import come_back, waiting

LONG_S = 60.0


def test_a_unit_that_waits_lets_the_next_one_compute() -> None:
    pool, waits, came = ThreadPoolExecutor(1), threading.Event(), threading.Event()

    def first() -> str:
        with waiting():
            waits.set()
            assert came.wait(LONG_S), "the other unit did not start"
        come_back()
        return threading.current_thread().name

    def second() -> None:
        assert waits.wait(LONG_S)
        came.set()

    futures = pool.submit(first), pool.submit(second)
    assert futures[0].result(LONG_S).startswith("DaskThreadPoolExecutor")
    futures[1].result(LONG_S)
    assert pool.submit(lambda: 5).result(LONG_S) == 5
    pool.shutdown()


def test_as_many_compute_at_once_as_the_pool_has_threads_after_errors_too() -> None:
    pool, lock = ThreadPoolExecutor(2), threading.Lock()
    now, most = 0, 0

    def unit(index: int) -> None:
        nonlocal now, most
        try:
            with waiting():
                if index % 2:
                    raise OSError("try again")
        except OSError:
            pass
        come_back()
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.005)
        with lock:
            now -= 1

    for future in [pool.submit(unit, index) for index in range(20)]:
        future.result(LONG_S)
    pool.shutdown()
    assert most <= 2


def test_a_plain_loop_has_nothing_to_leave() -> None:
    with waiting():
        pass
    come_back()
