"""Plates, collections and patterns that grow: what came since is appended, and the output ends as if all had been."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.outputs.positions import PositionsOutput
from phbatch.places.own import ROOT_DOCUMENTS
from phbatch.planning import units
from phbatch.running import accept_positions, follow, watching
from phbatch.words.events import Notice
from tests.handmade import CommandLine, write_model
from tests.test_plates import make_image, make_plate, objects
from tests.test_resume import files

OPTIONS: dict[str, Any] = {"model": "none", "workers": 1, "command": "same"}
SIZE = 16
TIMES = 3


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame is a unit of its own; a clock that does not know how loaded the machine is."""
    monkeypatch.setattr(units, "_UNIT_PIXELS", SIZE**2)
    monkeypatch.setattr(follow, "LOOK_S", 0.01)
    monkeypatch.setattr(follow, "LOOK_AT_IMAGE_S", 0)
    monkeypatch.setattr(follow, "monotonic", (call / 100 for call in count()).__next__)


def make_whole(place: Path, wells: tuple[str, ...] = ("A/1", "B/2"), fields: int = 2, times: int = TIMES) -> Path:
    """A plate as it is once the microscope has ended, of one channel."""
    root = zarr.open_group(make_plate(place, wells, fields=fields, size=SIZE))
    random = np.random.default_rng(3)
    for well in wells:
        for field in range(fields):
            shutil.rmtree(place / well / str(field))
            frames = random.normal(1000, 30, (times, 1, SIZE, SIZE)).astype("uint16")
            make_image(root, f"{well}/{field}", frames)
    return place


class Microscope:
    """Writes a plate again, bit by bit."""

    def __init__(self, whole: Path, place: Path) -> None:
        self.whole, self.place = whole, place

    def list_wells(self, *wells: str) -> Microscope:
        """Write the plate's metadata as if it had these wells alone, and the wells with their fields."""
        shutil.copytree(self.whole, self.place, dirs_exist_ok=True, ignore=lambda *_: [*{p[0] for p in ("A/1", "B/2")}])
        root = zarr.open_group(self.place)
        ome: Any = root.attrs.asdict()["ome"]
        listed = [well for well in ome["plate"]["wells"] if well["path"] in wells]
        root.attrs["ome"] = ome | {"plate": ome["plate"] | {"wells": listed}}
        for well in wells:
            (self.place / well).mkdir(parents=True, exist_ok=True)
            shutil.copy(self.whole / well / "zarr.json", self.place / well)
        return self

    def begin(self, field: str, length: int = TIMES) -> Microscope:
        """Write the metadata of a field of so many times, and no frame."""
        shutil.copytree(self.whole / field, self.place / field, ignore=shutil.ignore_patterns("c"), dirs_exist_ok=True)
        self.lengthen(field, length)
        return self

    def lengthen(self, field: str, length: int) -> None:
        """Of the field's array, which then has so many times."""
        array = zarr.open_array(self.place / field / "0", mode="r+")
        array.resize((length, *array.shape[1:]))

    def write(self, field: str, *times: int) -> None:
        """Some frames."""
        for t in times:
            shutil.copytree(self.whole / field / f"0/c/{t}", self.place / field / f"0/c/{t}")

    def append(self, field: str, t: int) -> None:
        """A frame, to an array that grows with it."""
        self.lengthen(field, t + 1)
        self.write(field, t)


@contextmanager
def acting(actions: dict[int, Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """While inside, something happens just before looks at the plate, by their number; frames that each found."""
    numbers, found, real = count(), list[int](), watching.PositionsWatch.look

    def acted(self: watching.PositionsWatch) -> bool:
        actions.get(next(numbers), lambda: None)()
        moved = real(self)
        found.append(sum(image.seen.frames for image in self.images.values()))
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(watching.PositionsWatch, "look", acted)
        yield found


def fields_of(whole: Path) -> list[str]:
    return sorted(str(each.relative_to(whole)) for each in whole.glob("?/?/?"))


def require_equal(output: str | Path, whole: Path, **options: Any) -> None:
    """An output is that of the whole plate, and each field that of this field alone."""
    expected, alone = expected_of(whole, units._UNIT_PIXELS, **options)
    found = files(output)
    assert found.keys() == expected.keys()
    differing = {key for key in found if found[key] != expected[key]}
    assert differing <= {"zarr.json"}  # which names its input
    for field, chunks in alone.items():
        assert objects(Path(output) / field / "0") == chunks
    report = phbatch.verify(output, deep=2)
    assert (report.complete, report.damages) == (True, ())


@cache
def expected_of(whole: Path, unit_pixels: int, **options: Any) -> tuple[dict[str, bytes], dict[str, dict[str, bytes]]]:
    """Files of the output of a plate, and chunks of that of each of its fields alone, with units of so many pixels."""
    place = whole.with_name(f"{unit_pixels}-{options}")
    phbatch.run(whole, place / "expected.zarr", **OPTIONS | options)
    alone = {}
    for field in fields_of(whole):
        phbatch.run(whole / field, place / f"{field}.zarr", **OPTIONS | options)
        alone[field] = objects(place / f"{field}.zarr/0")
    return files(place / "expected.zarr"), alone


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Whole plates, which no test changes."""
    return cache(lambda **options: make_whole(tmp_path_factory.mktemp("whole") / "whole.zarr", **options))


@pytest.fixture
def whole(make: Callable[..., Path]) -> Path:
    return make()


def test_fields_are_restored_as_they_come_until_all_are_there(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All wells are listed and made before they have frames: the end is known. The folder of one comes later."""
    microscope, said = Microscope(whole, tmp_path / "p.zarr"), list[str]()
    microscope.list_wells("A/1", "B/2")
    fields = fields_of(whole)
    for field in fields[:3]:
        microscope.begin(field)
    actions: dict[int, Callable[[], object]] = {}
    for number, (t, field) in enumerate((t, field) for t in range(TIMES) for field in fields):
        actions[2 + 3 * number] = partial(microscope.write, field, t)
    actions[10] = lambda: microscope.begin(fields[3])
    with acting(actions, monkeypatch) as found:
        result = phbatch.run(
            tmp_path / "p.zarr",
            tmp_path / "o.zarr",
            follow=True,
            follow_timeout="10m",
            listener=lambda event: said.append(event.text) if isinstance(event, Notice) else None,
            **OPTIONS,
        )
    assert said[
        -1 - said[::-1].index("the input is taken as ended: all frames that its 4 images were made for are there.")
    ]
    assert len({*found}) > TIMES * len(fields) // 2
    assert (result.units_done, result.frames, result.exit_code) == (12, 12, 0)
    require_equal(result.output, whole)


@pytest.mark.parametrize("end", ["frames", "follow_timeout", "follow_until"])
def test_wells_that_are_listed_later_are_taken_up_and_arrays_grow(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr")
    first, second, third, fourth = fields_of(whole)
    microscope.list_wells("A/1")
    microscope.begin(first, 1)
    microscope.write(first, 0)
    actions: dict[int, Callable[[], object]] = {
        3: lambda: microscope.begin(second, 1).write(second, 0),
        6: lambda: microscope.append(first, 1),
        8: lambda: microscope.list_wells("A/1", "B/2").begin(third, 1).write(third, 0),
        11: lambda: microscope.begin(fourth, 1).write(fourth, 0),
    }
    late = [(field, t) for t in (1, 2) for field in (first, second, third, fourth) if (field, t) != (first, 1)]
    for number, (field, t) in enumerate(late):
        actions[12 + number] = partial(microscope.append, field, t)
    if end == "follow_until":
        actions[13 + len(late)] = (tmp_path / "ended").touch
    ends = {"frames": ":3", "follow_timeout": 0.5, "follow_until": tmp_path / "ended"}
    options: dict[str, Any] = {"follow_timeout": 60.0} | {end: ends[end]}
    with acting(actions, monkeypatch):
        result = phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", follow=True, **options, **OPTIONS)
    assert (result.frames, result.units_skipped, result.exit_code) == (12, 0, 0)
    require_equal(result.output, whole, **({"frames": ":3"} if end == "frames" else {}))


def test_stopped_anywhere_it_is_continued(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped again and again while frames come; what a plain run then does is nothing."""
    microscope, said = Microscope(whole, tmp_path / "p.zarr"), list[str]()
    microscope.list_wells("A/1", "B/2")
    frames = iter([(field, t) for t in range(TIMES) for field in fields_of(whole)])
    for field in fields_of(whole):
        microscope.begin(field)

    def write_next() -> None:
        if (pair := next(frames, None)) is not None:
            microscope.write(*pair)
        else:
            (tmp_path / "ended").touch()

    def stop_after(times: int) -> Callable[[], bool]:
        answers = iter([False] * times)
        return lambda: next(answers, True)

    result = None
    while result is None:
        try:
            with acting(dict.fromkeys(range(0, 100, 3), write_next), monkeypatch):
                result = phbatch.run(
                    tmp_path / "p.zarr",
                    tmp_path / "o.zarr",
                    follow=True,
                    follow_until=tmp_path / "ended",
                    stop=stop_after(6 + 3 * len(said)),
                    **OPTIONS,
                )
        except phbatch.InterruptedRunError as error:
            said.append(str(error))
            if (tmp_path / "o.zarr").exists():
                assert phbatch.verify(tmp_path / "o.zarr").damages == ()
    assert len(said) > 3
    require_equal(result.output, whole)
    assert phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS).units_done == 0


def test_what_is_repaired_meanwhile_has_no_frame_that_is_still_to_come(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr")
    microscope.list_wells("A/1", "B/2")
    first, second, third, fourth = fields_of(whole)
    for field in (first, second, third, fourth):
        microscope.begin(field)
    microscope.write(first, 0, 1)
    microscope.write(third, 0)
    answers = iter([False] * 30)
    with pytest.raises(phbatch.InterruptedRunError, match="with more to come"):
        phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", follow=True, stop=lambda: next(answers, True), **OPTIONS)
    shapes = {field: zarr.open_array(tmp_path / "o.zarr" / field / "0").shape[0] for field in (first, third)}
    assert shapes == {first: 2, third: 1}
    hurt = tmp_path / "o.zarr" / first / "0/c/1/0/0/0"
    kept = hurt.read_bytes()
    hurt.write_bytes(b"torn")
    assert [damage.unit for damage in phbatch.verify(tmp_path / "o.zarr").damages] == [f"{first}/t1/c0"]
    assert phbatch.repair(tmp_path / "o.zarr").units_done == 1
    assert hurt.read_bytes() == kept
    assert {field: zarr.open_array(tmp_path / "o.zarr" / field / "0").shape[0] for field in shapes} == shapes
    for field in (first, second, third, fourth):
        written = {first: 2, third: 1}.get(field, 0)
        microscope.write(field, *range(written, TIMES))
    result = phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    assert result.units_skipped == 3
    require_equal(result.output, whole)


def test_a_network_is_cut_alike_for_fields_of_any_number_of_frames(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr").list_wells("A/1", "B/2")
    first, second, third, fourth = fields_of(whole)
    microscope.begin(first).write(first, 0, 1, 2)
    actions: dict[int, Callable[[], object]] = {
        4: lambda: microscope.begin(third).write(third, 0, 1),
        8: lambda: microscope.write(third, 2),
        12: (tmp_path / "ended").touch,
    }
    for number, field in enumerate((second, fourth)):
        microscope.begin(field).write(field, 0)
        actions[9 + number] = partial(microscope.write, field, 1, 2)
    settled: list[str] = []
    real = accept_positions.settle_network
    monkeypatch.setattr(accept_positions, "settle_network", lambda run: settled.append(run.source.path) or real(run))
    options = OPTIONS | {"model": write_model(tmp_path / "m")}
    with acting(actions, monkeypatch):
        result = phbatch.run(
            tmp_path / "p.zarr", tmp_path / "o.zarr", follow=True, follow_until=tmp_path / "ended", **options
        )
    assert len({*settled}) == 1
    kinds = zarr.open_group(result.output).attrs.asdict()["phbatch"]["kinds"]
    assert len(kinds) == 1
    assert (result.units_done, result.exit_code) == (12, 0)
    assert phbatch.verify(result.output, deep=4).damages == ()


def restored_up_to(first: int, whole: Path, folder: Path) -> Microscope:
    """A plate of which some frames of every field are there, and are restored."""
    microscope = Microscope(whole, folder / "p.zarr").list_wells("A/1", "B/2")
    for field in fields_of(whole):
        microscope.begin(field, first).write(field, *range(first))
    phbatch.run(folder / "p.zarr", folder / "o.zarr", **OPTIONS)
    return microscope


@pytest.mark.parametrize(("first", "then"), [(16, 33), (20, 33), (3, 20)])
def test_a_finished_plate_takes_in_what_came_since(
    tmp_path: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, first: int, then: int
) -> None:
    """Sixteen frames are a unit: the last one may not be full, or all lie in one chunk, which is too short."""
    monkeypatch.setattr(units, "_UNIT_PIXELS", 16 * SIZE**2)
    whole = make(fields=1, times=then)
    microscope = restored_up_to(first, whole, tmp_path)
    microscope.lengthen("B/2/0", then)
    microscope.write("B/2/0", *range(first, then))
    result = phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    assert result.units_skipped == -(-first // 16) + first // 16
    microscope.lengthen("A/1/0", then)
    microscope.write("A/1/0", *range(first, then))
    phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    require_equal(tmp_path / "o.zarr", whole)


@pytest.mark.parametrize("first", [20, 3])
@pytest.mark.parametrize("point", range(6))
def test_killed_while_it_is_extended(
    tmp_path: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, first: int, point: int
) -> None:
    """Wherever it is killed, the output is known, can be repaired, and is continued."""
    monkeypatch.setattr(units, "_UNIT_PIXELS", 16 * SIZE**2)
    whole = make(fields=1, times=33)
    microscope = restored_up_to(first, whole, tmp_path)
    for field in fields_of(whole):
        microscope.lengthen(field, 33)
        microscope.write(field, *range(first, 33))
    calls = count()

    def dying(step: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == point:
                raise KeyboardInterrupt
            return step(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("_write", "commit"):
            patch.setattr(PositionsOutput, name, dying(getattr(PositionsOutput, name)))
        with pytest.raises(KeyboardInterrupt):
            phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    report = phbatch.verify(tmp_path / "o.zarr")
    if first == 20:
        names = {"/".join((field, name)) for field in fields_of(whole) for name in ("zarr.json", "0/zarr.json")}
        hurt = {damage.place for damage in report.damages if not damage.place.startswith("statistics/")}
        assert hurt <= {*ROOT_DOCUMENTS, *names}
        if point % 2:
            phbatch.repair(tmp_path / "o.zarr")
    phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    require_equal(tmp_path / "o.zarr", whole)


def test_what_depends_on_all_frames_is_neither_followed_nor_appended_to(tmp_path: Path, whole: Path) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr")
    microscope.list_wells("A/1", "B/2")
    for field in fields_of(whole):
        microscope.begin(field, 2)
        microscope.write(field, 0, 1)
    for options, says in (({"scope": "series"}, "scope series needs all"), ({"frames": "-2:"}, "counts from the end")):
        with pytest.raises(phbatch.UsageError, match=says):
            phbatch.run(tmp_path / "p.zarr", tmp_path / "n.zarr", follow=True, **OPTIONS | options)
    assert not (tmp_path / "n.zarr").exists()
    phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", scope="series", **OPTIONS)
    before = files(tmp_path / "o.zarr")
    microscope.append("B/2/1", 2)
    with pytest.raises(
        phbatch.OutputError, match="B/2/1 holds 2 frames along t and there are 3 now; with scope series"
    ):
        phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", scope="series", **OPTIONS)
    assert files(tmp_path / "o.zarr") == before


def test_frames_that_were_changed_are_not_appended_to(tmp_path: Path, whole: Path) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr")
    microscope.list_wells("A/1", "B/2")
    for field in fields_of(whole):
        microscope.begin(field, 2)
        microscope.write(field, 0, 1)
    phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    microscope.append("A/1/0", 2)
    array: Any = zarr.open_array(tmp_path / "p.zarr/A/1/0/0")
    array[0] = 7
    with pytest.raises(phbatch.OutputError, match="A/1/0/t0/c0 was changed after it was restored"):
        phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", **OPTIONS)
    with pytest.raises(phbatch.OutputError, match="begun differently"):
        phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", normalize="percentile", **OPTIONS)


def test_a_well_that_is_listed_and_has_no_folder_yet_is_waited_for(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames of the wells that are there are not all frames."""
    microscope = Microscope(whole, tmp_path / "p.zarr").list_wells("A/1", "B/2")
    shutil.rmtree(tmp_path / "p.zarr/B")
    first, second, *later = fields_of(whole)
    for field in (first, second):
        microscope.begin(field).write(field, *range(TIMES))

    def come() -> None:
        microscope.list_wells("A/1", "B/2")
        for field in later:
            microscope.begin(field).write(field, *range(TIMES))

    with acting({9: come}, monkeypatch):
        result = phbatch.run(tmp_path / "p.zarr", tmp_path / "o.zarr", follow=True, frames=f":{TIMES}", **OPTIONS)
    assert (result.units_done, result.exit_code) == (12, 0)
    require_equal(result.output, whole, frames=f":{TIMES}")


def test_a_collection_is_followed(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose images are numbered folders; each comes with its frames."""
    collection = {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
    zarr.create_group(tmp_path / "c.zarr", attributes=collection)
    fields = fields_of(whole)
    copies: dict[int, Callable[[], object]] = {
        3 * number: partial(shutil.copytree, whole / field, tmp_path / "c.zarr" / str(number))
        for number, field in enumerate(fields)
    }
    copies.pop(0)()
    copies[15] = (tmp_path / "ended").touch
    with acting(copies, monkeypatch):
        result = phbatch.run(
            tmp_path / "c.zarr", tmp_path / "o.zarr", follow=True, follow_until=tmp_path / "ended", **OPTIONS
        )
    assert (result.units_done, result.exit_code) == (12, 0)
    phbatch.run(tmp_path / "c.zarr", tmp_path / "expected.zarr", **OPTIONS)
    assert files(result.output) == files(tmp_path / "expected.zarr")


def test_images_of_a_folder_are_followed_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phbatch_command: CommandLine
) -> None:
    """A pattern matches nothing at first, then more and more; a field that never comes is named at the end."""
    frames = np.random.default_rng(5).normal(1000, 30, (2, SIZE, SIZE)).astype("uint16")
    (tmp_path / "day").mkdir()

    def make(name: str) -> None:
        zarr.create_array(tmp_path / "day" / name, data=frames, chunks=(1, SIZE, SIZE))

    real = follow._wait
    waits = count()

    def waiting(*arguments: Any) -> None:
        if next(waits) == 2:
            make("m1.zarr")
        real(*arguments)

    monkeypatch.setattr(follow, "_wait", waiting)
    arguments = ("run", f"{tmp_path}/day/*", tmp_path / "o.zarr", "--model", "none", "--axes", "tyx", "--no-report")
    ends = ("--follow", "--follow-until", tmp_path / "ended", "--workers", "1")
    with acting({4: lambda: make("m2.zarr"), 9: (tmp_path / "ended").touch}, monkeypatch):
        assert phbatch_command(*arguments, *ends) == 0
    assert "waiting up to 30 min for the input" in phbatch_command.err
    for name in ("m1", "m2"):
        phbatch.run(tmp_path / f"day/{name}.zarr", tmp_path / f"{name}.zarr", axes="tyx", **OPTIONS)
        assert objects(tmp_path / "o.zarr" / name / "0") == objects(tmp_path / f"{name}.zarr/0")


def test_what_never_came_is_named_at_the_end(tmp_path: Path, whole: Path, phbatch_command: CommandLine) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr")
    microscope.list_wells("A/1", "B/2")
    first, second, *_ = fields_of(whole)
    microscope.begin(first)
    microscope.write(first, 0, 1)
    microscope.begin(second)
    (tmp_path / "ended").touch()
    command = ("run", tmp_path / "p.zarr", "--model", "none", "--follow", "--follow-until", tmp_path / "ended")
    assert phbatch_command(*command, "--no-report", "--workers", "1") == 4
    assert "A/1/1 is left out" in phbatch_command.err
    assert "B/2/0 is left out" in phbatch_command.err
    assert zarr.open_array(tmp_path / "p.phbatch.zarr" / first / "0").shape[0] == 2


def test_a_listed_well_that_never_came_is_no_success(tmp_path: Path, whole: Path) -> None:
    microscope = Microscope(whole, tmp_path / "p.zarr").list_wells("A/1", "B/2")
    shutil.rmtree(tmp_path / "p.zarr/B")
    for field in fields_of(whole)[:2]:
        microscope.begin(field).write(field, 0, 1)
    (tmp_path / "ended").touch()
    result = phbatch.run(tmp_path / "p.zarr", follow=True, follow_until=str(tmp_path / "ended"), **OPTIONS)
    assert (result.exit_code, [*result.failed]) == (4, ["B/2"])
    assert "no field of it came" in result.failed["B/2"]
