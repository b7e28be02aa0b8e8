"""Workers of a cluster that is there, met before anything is written: those that cannot do the work are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker

import phbatch
from phbatch.computing import sight
from phbatch.computing.dashboard import dashboard_of
from phbatch.computing.machine import find_scheduler
from phbatch.network.model import bundled_models, open_model
from phbatch.places.place import Place
from phbatch.words.events import Event, Notice
from tests.cluster.dask_processes import open_processes
from tests.clusters import open_cluster
from tests.faults.inputs import make_input
from tests.handmade import write_model


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalCluster]:
    with open_cluster(2) as found:
        yield found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_input(tmp_path / "in.zarr", (4, 40, 40), (1, 40, 40))


# Where the scheduler is


def test_a_scheduler_is_named_by_its_file_by_the_environment_and_by_dasks_configuration(
    tmp_path: Path, source: Path, pair: LocalCluster
) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": pair.scheduler_address}))
    assert find_scheduler(str(file)) == pair.scheduler_address
    assert len(phbatch.statistics(source, scheduler=file)) == 4
    for configured in ({"scheduler-address": pair.scheduler_address}, {"scheduler-file": str(file)}):
        with dask.config.set(configured):
            assert find_scheduler(None) == pair.scheduler_address
            assert find_scheduler("tcp://10.0.0.1:1") == "tcp://10.0.0.1:1"
        with dask.config.set(configured | {"scheduler": "threads"}):
            assert find_scheduler(None) is None
    assert find_scheduler(None) is None


def test_tasks_of_the_host_stay_on_their_worker_whatever_dask_is_configured_with(pair: LocalCluster) -> None:
    with dask.config.set({"scheduler-address": "tcp://127.0.0.1:1"}), pair.get_client() as client:
        assert client.submit(find_scheduler, None, pure=False).result(timeout=60) is None


@pytest.mark.parametrize("text", [None, "nonsense", "[]", '{"workers": {}}'])
def test_a_file_that_names_no_scheduler_is_refused(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr("phbatch.computing.machine.ANSWER_S", 0.2)
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    heard: list[Event] = []
    with pytest.raises(phbatch.UsageError, match=r"names no Dask scheduler \(.+\); give the file that"):
        phbatch.run(source, model="none", scheduler=file, listener=heard.append)
    assert not (tmp_path / "in.phbatch.zarr").exists()
    assert [event.text.rpartition("; ")[2] for event in heard if isinstance(event, Notice)] == ["waiting 0.2 s for it."]


def test_a_scheduler_file_that_nobody_can_write_is_refused_at_once(tmp_path: Path, source: Path) -> None:
    heard: list[Event] = []
    with pytest.raises(phbatch.UsageError, match="it is not there"):
        phbatch.run(source, model="none", scheduler=tmp_path / "nowhere" / "scheduler.json", listener=heard.append)
    with pytest.raises(phbatch.UsageError, match="it is not there"):
        phbatch.plan(source, model="none", scheduler=tmp_path / "scheduler.json")
    assert heard == []


def test_where_the_pages_of_a_scheduler_are_is_said(source: Path, pair: LocalCluster) -> None:
    heard: list[Event] = []
    phbatch.run(source, model="none", scheduler=pair.scheduler_address, listener=heard.append)
    assert Notice(f"dashboard: {pair.dashboard_link}") in heard
    assert dashboard_of("tcp://127.0.0.1:1", {"services": {"dashboard": 1}}) == ""
    assert dashboard_of("tcp://127.0.0.1:1", {"services": {}}) == ""


# What a worker must see


def elsewhere(monkeypatch: pytest.MonkeyPatch, name: str, replacement: object) -> None:
    """In the workers alone, which look around by `sight._find_problem`, something of this module is another."""
    original = sight._find_problem

    def find_problem(*arguments: object) -> str:
        with pytest.MonkeyPatch.context() as there:
            there.setattr(sight, name, replacement)
            return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sight, "_find_problem", find_problem)


def refusal(source: Path, pair: LocalCluster, **options: object) -> str:
    """What a run is refused with, that must write nothing."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(phbatch.ClusterError) as caught:
        phbatch.run(source, scheduler=pair.scheduler_address, **({"model": "none"} | options))  # type: ignore[arg-type]
    assert sorted(source.parent.iterdir()) == before
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert all(worker.address in text for worker in pair.workers.values())
    return text


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both workers are in this process and look at once: what they find is to be the same."""
    monkeypatch.setattr(sight, "to_thread", _at_once)


async def _at_once(function: object, *arguments: object) -> object:
    return function(*arguments)  # type: ignore[operator]


@pytest.mark.usefixtures("one_at_a_time")
def test_workers_without_the_input_are_refused(
    source: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(place: Place, axes: str | None) -> None:
        raise phbatch.InputError(f"input {place} does not exist.")

    elsewhere(monkeypatch, "open_source", missing)
    text = refusal(source, pair)
    assert f"it does not see the input {source} (input {source} does not exist); mount it there under the" in text


@pytest.mark.usefixtures("one_at_a_time")
def test_workers_with_another_input_at_that_path_are_refused(
    tmp_path: Path, source: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_input(tmp_path / "other.zarr", (5, 40, 40), (1, 40, 40))
    opened = sight.open_source
    elsewhere(monkeypatch, "open_source", lambda place, axes: opened(Place.at(other), axes))
    assert f"it sees another input at {source}; mount it there" in refusal(source, pair)


@pytest.mark.usefixtures("one_at_a_time")
def test_workers_that_do_not_see_the_output_are_refused(
    source: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, "_holds", lambda *_: False)
    assert f"it does not see the output's folder {source.parent}, where a file was written" in refusal(source, pair)


def test_workers_whose_files_are_not_seen_are_refused(
    source: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = sight._holds
    monkeypatch.setattr(
        sight, "_holds", lambda meeting, token, address="": not address and holds(meeting, token, address)
    )
    assert f"what it writes to {source.parent} is not seen here; mount it there" in refusal(source, pair)


@pytest.mark.usefixtures("one_at_a_time")
def test_workers_with_another_model_are_refused(
    tmp_path: Path, source: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = write_model(tmp_path / "model"), phbatch.info("phase-2d")
    opened = sight.open_model
    elsewhere(monkeypatch, "open_model", lambda _: opened("phase-2d"))
    text = refusal(source, pair, model=model)
    assert f"its model {model} has other weights (sha256 {other['sha256'][:8]}, and " in text
    assert "copy it there" in text


def test_what_was_written_to_meet_is_removed_and_units_are_verified(source: Path, pair: LocalCluster) -> None:
    said: list[Event] = []
    output = source.parent / "deep" / "out.zarr"
    result = phbatch.run(source, output, model="none", scheduler=pair.scheduler_address, listener=said.append)
    assert phbatch.verify(output).damages == ()
    assert result.exit_code == 0
    assert not [event for event in said if isinstance(event, Notice) and event.warning]
    assert sorted(path.name for path in source.parent.iterdir()) == ["deep", "in.zarr"]
    assert not list(output.rglob("*.partial"))


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_is_named_and_another_is_its_folder(tmp_path: Path, name: str) -> None:
    """Where phbatch is installed is another place on every machine."""
    assert open_model(name).reference == Path(name)
    assert open_model(open_model(name).reference).sha256 == open_model(name).sha256
    other = write_model(tmp_path / name)
    assert open_model(other).reference == other


def test_a_worker_with_too_little_memory_is_left_out_and_the_plan_is_made_for_the_others(source: Path) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice) and event.warning:
            said.append(event.text)

    workers = {
        name: {"cls": Worker, "options": {"nthreads": 1, "memory_limit": limit, "host": "127.0.0.1"}}
        for name, limit in {"small": "250MB", "large": "8GB"}.items()
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "protocol": "tcp", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    with (
        dask.config.set({"distributed.worker.memory.pause": False}),  # both are in this process
        SpecCluster(workers, scheduler, silence_logs=50) as mixed,
    ):
        result = phbatch.run(source, model="none", scheduler=mixed.scheduler_address, listener=listen)
        small, large = (mixed.workers[name].address for name in workers)
    assert result.exit_code == 0
    (text,) = said
    assert text.startswith(f"worker {small} left out: it has 250.0 MB of memory and a unit takes ")
    assert large not in text


LACKING = {
    "phbatch": ("script", "sys.modules['phbatch'] = None", "it has no phbatch"),
    "numbers": (
        "preload",
        "from phbatch.computing import identity; identity.NUMBERS_VERSION = 99",
        "its phbatch computes other numbers (version 99 of them, and ",
    ),
    "input": (
        "preload",
        "from phbatch.computing import sight\ndef open_source(place, axes): raise FileNotFoundError(f'no {place}')\n"
        "sight.open_source = open_source",
        "it does not see the input ",
    ),
    "output": (
        "preload",
        "from phbatch.computing import sight\nsight._holds = lambda *_: False",
        "it does not see the output's folder ",
    ),
}
"""What a worker lacks, how that is brought about, and what is said."""


def test_processes_that_lack_something_are_left_out_and_the_one_that_does_not_does_the_work(
    tmp_path: Path, source: Path
) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice) and event.warning:
            said.append(event.text)

    with open_processes(tmp_path / "dask") as processes:
        for name, (how, code, _) in LACKING.items():
            processes.add("--name", name, script=code if how == "script" else "", preload=code * (how == "preload"))
        processes.add("--name", "small", "--memory-limit", "200MB", script="pass")  # what is forked holds more
        processes.add("--name", "whole")
        with Client(processes.address, set_as_default=False) as client:
            client.wait_for_workers(6, timeout=240)
            names = {each["name"]: address for address, each in client.scheduler_info()["workers"].items()}
        result = phbatch.run(source, model="none", scheduler=processes.file, listener=listen)
        assert all(process.poll() is None for process in processes.workers)  # nobody died of a question
    assert (result.exit_code, phbatch.verify(result.output).damages) == (0, ())
    expected = {name: sentence for name, (_, _, sentence) in LACKING.items()}
    expected["small"] = "it has 200.0 MB of memory and a unit takes "
    for name, sentence in expected.items():
        assert any(text.startswith(f"worker {names[name]} left out: {sentence}") for text in said), (name, said)
    assert not any(names["whole"] in text for text in said)
