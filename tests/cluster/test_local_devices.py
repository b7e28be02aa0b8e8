"""Several GPUs of one machine: a process each, which sees its own alone; on loopback, and gone with the run.

No GPU is needed: what is listed, and what a process says that it sees, is replaced.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest

import phbatch
from phbatch.computing import devices
from phbatch.planning import units
from phbatch.running import local
from phbatch.words.events import Event, Notice, UnitFinished
from tests.cluster import FRAMES
from tests.faults.inputs import files, make_input, units_of
from tests.forks import Forked, fork_command

LONG_S = 300.0


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as far as anybody can tell."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(local, "sees_device", lambda _: True)


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Where some processes listen."""
    found = set()
    for process in processes:
        found |= {tuple(each.laddr) for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.usefixtures("two")
def test_all_devices_are_used_each_by_a_process_that_loads_the_network_once(
    plain: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, options = plain
    monkeypatch.setenv("COUNT_LOADS", str(tmp_path / "loads.txt"))
    monkeypatch.setenv(
        "DASK_DISTRIBUTED__WORKER__PRELOAD", json.dumps([str(Path(__file__).with_name("count_loads.py"))])
    )
    this = psutil.Process()
    before, listened = this.children(recursive=True), listening([this])
    children: list[psutil.Process] = []
    addresses: set[tuple[str, int]] = set()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if isinstance(event, UnitFinished) and not children:
            children.extend(each for each in this.children(recursive=True) if each not in before)
            addresses.update(listening([this, *children]) - listened)

    result = phbatch.run(source, tmp_path / "out.zarr", listener=hear, workers=2, **options)
    assert (result.units_done, result.failed) == (FRAMES, {})
    assert Notice("devices: 2, 5, with a process each.") in heard
    loads = [line.split() for line in (tmp_path / "loads.txt").read_text(encoding="utf-8").splitlines()]
    assert sorted(device for _, device in loads) == ["2", "5"]
    assert max(Counter(process for process, _ in loads).values()) == 1
    assert {address for address, _ in addresses} == {"127.0.0.1"}
    assert psutil.wait_procs(children, timeout=60)[1] == []
    with monkeypatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        whole = phbatch.run(source, tmp_path / "loop.zarr", workers=1, **options)
    assert files(result.output) == files(whole.output)


def settings_of(**options: Any) -> phbatch.RunSettings:
    return phbatch.RunSettings(**options)


@pytest.mark.parametrize(
    ("visible", "options", "chosen"),
    [
        ("0,1", {}, ("0", "1")),
        ("0,1,2", {"devices": "all"}, ("0", "1", "2")),
        ("0,1,2", {"devices": "0, 2"}, ("0", "2")),
        ("0,1", {"devices": 1}, ("1",)),
        ("0,1", {"devices": [0, 1]}, ("0", "1")),
        ("GPU-8f4c,MIG-51a2", {}, ("GPU-8f4c", "MIG-51a2")),
        ("0", {}, ()),
        ("0", {"devices": "0"}, ()),
        ("", {}, ()),
        ("0,1,-1,2", {}, ("0", "1")),
        ("-1", {}, ()),
        ("0,1", {"model": "none"}, ()),
        ("0,1", {"scheduler": "tcp://127.0.0.1:1"}, ()),
    ],
    ids=str,
)
def test_devices_are_all_that_are_visible_or_those_that_are_named(
    visible: str, options: dict[str, Any], chosen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.choose_devices(settings_of(**options), "in.zarr", "out.zarr") == chosen


def test_what_lies_in_this_process_stays_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert devices.choose_devices(settings_of(), "memory://in.zarr", "out.zarr") == ()
    assert devices.choose_devices(settings_of(), "in.zarr", "memory://out.zarr") == ()
    assert devices.choose_devices(settings_of(), "in.zarr", "out.zarr", may_leave=False) == ()
    there = settings_of(devices="0").model_copy(update={"scheduler": "tcp://127.0.0.1:1"})  # of the environment, say
    with pytest.raises(phbatch.UsageError, match="devices=0 starts processes, which this run"):
        devices.choose_devices(there, "in.zarr", "out.zarr")


def test_a_run_that_dask_keeps_in_its_process_starts_no_other(
    plain: tuple[Path, dict[str, Any]], two: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, options = plain
    monkeypatch.setattr(local, "process_per_device", None)
    with dask.config.set(scheduler="threads"):
        assert phbatch.run(source, tmp_path / "out.zarr", workers=1, **options).units_done == FRAMES
        with pytest.raises(phbatch.UsageError, match="starts processes"):
            phbatch.plan(source, devices="2,5")


@pytest.mark.parametrize("listed", ["0\n1\n", "", "hang", None], ids=str)
def test_devices_are_listed_where_the_environment_names_none(
    listed: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_LISTING_S", 0.1 if listed == "hang" else 60.0)
    if listed is not None:
        command = tmp_path / "nvidia-smi"
        command.write_text("#!/bin/sh\nexec sleep 60" if listed == "hang" else f"#!/bin/sh\nprintf '{listed}'")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    expected = ("0", "1") if listed and listed != "hang" else ()
    assert devices.visible_devices() == expected
    assert devices.environment_of("1") == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"devices": "0,7"}, "names 7, and the GPUs that are visible are 0, 1; choose of these"),
        ({"devices": "0,0"}, "each once"),
        ({"devices": "0,,1"}, "names with commas"),
        ({"devices": "0", "scheduler": "tcp://127.0.0.1:1"}, "leave one out"),
        ({"devices": "0", "model": "none"}, "does nothing with model none"),
    ],
    ids=str,
)
def test_devices_that_cannot_be_are_refused_before_anything_is_written(
    given: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    source = make_input(tmp_path / "in.zarr", (2, 48, 40), (1, 48, 40))
    for function in (phbatch.run, phbatch.plan):
        with pytest.raises(phbatch.UsageError, match=sentence):
            function(source, tmp_path / "out.zarr", **given)  # type: ignore[operator]
    assert not (tmp_path / "out.zarr").exists()


def test_the_plan_is_that_of_one_process_and_starts_none(
    plain: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, options = plain
    options = {name: value for name, value in options.items() if name != "command"} | {"memory": "8GB"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    alone = phbatch.plan(source, tmp_path / "out.zarr", **options)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(local, "process_per_device", None)
    shared = phbatch.plan(source, tmp_path / "out.zarr", **options)
    assert (alone.allowed_mem, shared.allowed_mem) == (8_000_000_000, 4_000_000_000)
    assert "devices: 0, 1, with a process each: memory and workers are of one of them." in shared.notices


def test_gpus_that_the_backend_does_not_see_are_said_and_left(
    plain: tuple[Path, dict[str, Any]], two: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, options = plain
    monkeypatch.setattr(local, "sees_device", lambda _: False)
    result = phbatch.run(source, tmp_path / "out.zarr", listener=(heard := []).append, workers=1, **options)
    assert result.units_done == FRAMES
    texts = [event.text for event in heard if isinstance(event, Notice)]
    assert "there are GPUs (2, 5) and tensorflow sees none; the network computes on the cores." in texts
    with pytest.raises(phbatch.UsageError, match="tensorflow sees no GPU where 2 alone is visible"):
        phbatch.run(source, tmp_path / "out.zarr", devices="2,5", **options)


def test_without_certificates_one_gpu_is_used_and_said(
    plain: tuple[Path, dict[str, Any]], two: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, options = plain
    monkeypatch.setattr(local, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    result = phbatch.run(source, tmp_path / "out.zarr", listener=(heard := []).append, workers=1, **options)
    assert result.units_done == FRAMES
    texts = [event.text for event in heard if isinstance(event, Notice)]
    assert "of the GPUs 2, 5 one is used, since the package cryptography is missing; install it to use all." in texts
    with pytest.raises(phbatch.UsageError, match="needs the package cryptography"):
        phbatch.run(source, tmp_path / "out.zarr", devices="2,5", **options)


RUN = """
import os
from phbatch.planning import units
from phbatch.running import local, run
os.setsid()
units._UNIT_PIXELS = 1
run.choose_devices = lambda *_, **__: ("0", "1")
local.sees_device = lambda _: True
"""
"""Before the command line: a machine of two GPUs, whose runs need no network to use them."""


def start(source: Path, output: Path, folder: Path) -> Forked:
    """Start a run in a group of its own, as in a terminal; returns once its first unit is in the ledger."""
    (folder / "slow.py").write_text(
        "import time\nfrom phbatch.outputs.writer import Sink\nplace = Sink.place\n"
        "def dask_setup(worker):\n    Sink.place = lambda *encoded: time.sleep(0.5) or place(*encoded)\n"
    )
    preload = json.dumps([str(folder / "slow.py")])
    environment = {"DASK_DISTRIBUTED__WORKER__PRELOAD": preload}
    environment["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] = "5s"  # how long those that are left ask for the dead
    command = ["run", source, output, "--model", "none", "--workers", "1"]
    started = fork_command(*command, log=folder / "run.log", environment=environment, before=RUN)
    deadline = time.monotonic() + LONG_S
    while not (output.exists() and units_of(output)):
        assert started.poll() is None, (folder / "run.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_no_process_outlives_the_run_and_the_same_command_continues_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, output = make_input(tmp_path / "in.zarr", (60, 48, 40), (1, 48, 40)), tmp_path / "out.zarr"
    started = start(source, output, tmp_path)
    children = psutil.Process(started.pid).children(recursive=True)
    os.killpg(started.pid, number)
    said, _ = started.communicate(timeout=LONG_S)
    assert started.returncode == (130 if number == signal.SIGINT else -number), said
    assert len(children) >= 4
    assert psutil.wait_procs(children, timeout=LONG_S)[1] == []
    if number == signal.SIGINT:
        assert "Traceback" not in said
    monkeypatch.setattr(units, "_UNIT_PIXELS", 1)
    result = phbatch.run(source, output, model="none", workers=1)
    assert 0 < result.units_skipped < 60
    assert result.units_done + result.units_skipped == 60
    assert phbatch.verify(output).damages == ()
