"""A lease on an object store: of runs that start at once exactly one gets it, whatever the order of their requests."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from obstore.exceptions import GenericError, NotSupportedError
from obstore.store import MemoryStore

from phbatch.places import lock
from phbatch.places.lock import LOCK, hold_output, read_token
from phbatch.places.object_store import swap_object
from phbatch.places.place import ObjectPlace, Place, Seen
from phbatch.words.errors import OutputError
from phbatch.words.given import parse_storage_options
from tests.faults.google_store import run_google_store
from tests.faults.stores import Bucket

GONE = json.dumps({"token": "dead", "host": socket.gethostname(), "process": 2**31 - 2, "beat": 3}).encode()


class Turns:
    """Lets the threads of some holders go on one request at a time, in a given order, until each has its answer."""

    def __init__(self, order: list[int]) -> None:
        self.order, self.answered, self.changed = deque(order), set[int](), threading.Condition()
        self.mine = threading.local()

    def wait(self) -> None:
        who = getattr(self.mine, "who", None)
        with self.changed:
            while who is not None and self.order and self.order[0] != who:
                if self.order[0] in self.answered:
                    self.order.popleft()
                else:
                    self.changed.wait()
            if who is not None and self.order:
                self.order.popleft()
            self.changed.notify_all()

    def answer(self) -> None:
        with self.changed:
            self.answered.add(self.mine.who)
            self.mine.who = None
            self.changed.notify_all()


class Store:
    """A store in memory; `way` is what it does with conditional writes."""

    def __init__(self, way: str = "", turns: Turns | None = None) -> None:
        self.way, self.turns, self.store = way, turns, MemoryStore()
        self.retry_config = {
            "max_retries": 3,
            "retry_timeout": MemoryTimeout(),
            "backoff": {"init_backoff": MemoryTimeout(0), "max_backoff": MemoryTimeout(0), "base": 1},
        }

    def get(self, key: str) -> Any:
        self._wait()
        return self.store.get(key)

    def put(self, key: str, data: bytes, *, mode: Any = "overwrite", use_multipart: bool = False) -> Any:
        self._wait()
        if mode != "overwrite" and self.way == "refuses":
            raise NotSupportedError("no conditions here")
        written = self.store.put(key, data, mode="overwrite" if self.way == "ignores" else mode)
        if self.way == "loses an answer" and b"beat" in data:
            self.way = ""
            raise GenericError("HTTP error: connection closed before message completed")
        return written

    def _wait(self) -> None:
        if self.turns is not None:
            self.turns.wait()


class MemoryTimeout:
    """As long as a timedelta."""

    def __init__(self, seconds: float = 60) -> None:
        self.seconds = seconds

    def total_seconds(self) -> float:
        return self.seconds


class MemoryPlace(ObjectPlace):
    """A place in one `Store`."""

    stores: dict[str, Store] = {}  # noqa: RUF012

    @property
    def client(self) -> Any:
        return self.stores[self.path]

    def names(self, folder: str = "") -> dict[str, bool]:
        return {}


@pytest.fixture(autouse=True)
def patient_leases() -> Iterator[None]:
    """A holder beats often, and nobody takes one for dead that a loaded machine keeps waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "BEAT_S", 0.02)
        patch.setattr(lock, "LEASE_S", 30)
        yield


def place_of(store: Store) -> Place:
    MemoryPlace.stores["memory"] = store
    return MemoryPlace("memory")


def start_at_once(place: Place, count: int, turns: Turns | None = None) -> list[str]:
    """Tokens of the runs that got the lease, of so many that ask for it and hold it until all have their answer."""
    held: list[str] = []
    asking, answered = threading.Barrier(count), threading.Barrier(count)

    def run(who: int) -> None:
        if turns is not None:
            turns.mine.who = who
        asking.wait()
        try:
            with hold_output(place, f"run {who}"):
                held.append(f"run {who}")
                if turns is not None:
                    turns.answer()
                answered.wait()
                assert read_token(place) == f"run {who}"
        except OutputError:
            if turns is not None:
                turns.answer()
            answered.wait()

    threads = [threading.Thread(target=run, args=(who,)) for who in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return held


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 1), min_size=4, max_size=12), st.sampled_from([None, b"{}", b"torn", GONE]))
@example([0, 1, 0, 1, 0, 0, 1, 1], None)  # one looks, the other takes it, and the first writes
@example([0, 1, 0, 0, 1, 1], None)
def test_in_any_order_of_requests_exactly_one_of_two_runs_holds(order: list[int], left: bytes | None) -> None:
    turns = Turns(order)
    store = Store(turns=turns)
    if left is not None:
        store.store.put(LOCK, left)
    place = place_of(store)
    assert len(start_at_once(place, 2, turns)) == 1
    assert read_token(place) is None
    with hold_output(place, "next"):
        assert read_token(place) == "next"


def test_of_runs_that_start_at_once_on_s3_exactly_one_holds(bucket: Bucket) -> None:
    options = parse_storage_options(bucket.options())
    for count in (2, 3, 4, 2, 3, 4):
        place = Place.at(bucket.url(f"{count}.zarr"), options)  # held before, the second time
        assert len(start_at_once(place, count)) == 1
        assert read_token(place) is None


def test_google_storage_counts_generations(tmp_path: Any) -> None:
    account, empty = tmp_path / "account.json", dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    with run_google_store() as url:
        account.write_text(json.dumps(empty | {"gcs_base_url": url, "disable_oauth": True}))
        place = Place.at("gs://plates/out.zarr", parse_storage_options({"token": str(account)}))
        first = place.swap(LOCK, b"1", place.look(LOCK))
        assert first is not None
        assert place.swap(LOCK, b"2", Seen(b"")) is None
        assert place.swap(LOCK, b"2", first) is not None
        assert place.swap(LOCK, b"3", first) is None
        assert place.read(LOCK) == b"2"
        place.remove([LOCK])
        assert len(start_at_once(place, 3)) == 1


def test_an_answer_that_is_lost_does_not_lose_the_lease() -> None:
    place = place_of(Store("loses an answer"))
    with hold_output(place, "first"):
        assert read_token(place) == "first"
        with pytest.raises(OutputError, match="another run"):
            hold_output(place, "second").__enter__()
    assert read_token(place) is None


@pytest.mark.parametrize("way", ["refuses", "ignores"])
def test_a_store_without_conditional_writes_gets_the_lease_that_is_read_back(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "phbatch")
    store = Store(way)
    place = place_of(store)
    with hold_output(place, "first"):
        assert read_token(place) == "first"
        with pytest.raises(OutputError, match="another run"):
            hold_output(place, "second").__enter__()
    assert read_token(place) is None
    assert len([text for text in caplog.messages if "no conditional writes" in text]) == 1
    with pytest.raises(NotImplementedError):
        swap_object(store, LOCK, b"", None, prove=False)


def test_a_holder_that_was_taken_for_dead_does_not_write_over_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(Store())
    seen = place.swap(LOCK, b"first", place.look(LOCK), settle_s=0.01)
    assert seen is not None
    taken = place.swap(LOCK, b"second", place.look(LOCK))
    assert taken is not None
    assert place.swap(LOCK, b"first again", seen) is None
    assert place.read(LOCK) == b"second"
