"""An input that grows: what came since is appended, and the output ends byte for byte as if all had been there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import phbatch
from phbatch.outputs import completing
from phbatch.outputs import image as output_image
from phbatch.places import own
from phbatch.planning import units
from phbatch.running import follow, watching
from phbatch.words.events import Notice
from tests.test_resume import files

OPTIONS: dict[str, Any] = {"model": "none", "workers": 1, "command": "same"}
LENGTH = 256  # of a frame that is a unit of its own


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen frames of a movie are a unit, and one of those that are `noisy`."""
    monkeypatch.setattr(units, "_UNIT_PIXELS", LENGTH**2)


def movie(times: int, length: int = LENGTH // 4) -> np.ndarray:
    return np.random.default_rng(0).normal(1000, 30, (times, length, length)).astype("uint16")


def write(path: Path, frames: np.ndarray, **options: Any) -> zarr.Array[Any]:
    array = zarr.create_array(path, shape=frames.shape, dtype=frames.dtype, chunks=(1, *frames.shape[1:]), **options)
    array[:] = frames
    return array


def grow(array: zarr.Array[Any], frames: np.ndarray) -> None:
    first = array.shape[0]
    array.resize(frames.shape)
    array[first:] = frames[first:]


@pytest.mark.parametrize(
    ("first", "then", "options"),
    [
        (16, 33, {}),
        (20, 33, {"dimension_names": ("t", "y", "x")}),  # the last unit is not full
        (3, 20, {}),  # all frames lie in one chunk, which is too short
        (5, 6, {"zarr_format": 2}),
    ],
)
def test_a_finished_output_takes_in_what_came_since(
    tmp_path: Path, first: int, then: int, options: dict[str, Any]
) -> None:
    frames = movie(then)
    array = write(tmp_path / "a.zarr", frames[:first], **options)
    phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", axes="tyx", **OPTIONS)
    before = {key: data for key, data in files(tmp_path / "out.zarr").items() if key == "0/c/0/0/0"}
    grow(array, frames)
    result = phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", axes="tyx", **OPTIONS)
    assert result.units_skipped == first // 16
    whole = phbatch.run(tmp_path / "a.zarr", tmp_path / "whole.zarr", axes="tyx", **OPTIONS)
    assert files(result.output) == files(whole.output)
    if first >= 16:
        assert before.items() <= files(result.output).items()
    report = phbatch.verify(result.output, deep=1)
    assert report.complete
    assert report.damages == ()
    again = phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", axes="tyx", **OPTIONS)
    assert again.units_done == 0


@pytest.mark.parametrize("point", [1, 3, 4, 5])
def test_killed_while_it_is_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int) -> None:
    """Wherever it is killed, the output is known, can be repaired, and is continued."""
    frames = movie(33)
    array = write(tmp_path / "a.zarr", frames[:20])
    phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", **OPTIONS)
    grow(array, frames)
    calls = iter(range(100))

    def dying(name: str, step: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == point:
                raise KeyboardInterrupt(name)
            return step(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("update_attributes", "extend"):
            patch.setattr(output_image.Sink, name, dying(name, getattr(output_image.Sink, name)))
        for module in (output_image, completing):
            patch.setattr(module, "commit_metadata", dying("commit", output_image.commit_metadata))
        patch.setattr(output_image.Ledger, "retract", dying("retract", output_image.Ledger.retract))
        with pytest.raises(KeyboardInterrupt):
            phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", **OPTIONS)
    hurt = {damage.place for damage in phbatch.verify(tmp_path / "out.zarr").damages}
    assert hurt <= {*own.ROOT_DOCUMENTS, "0/zarr.json"}
    if point % 2:
        phbatch.repair(tmp_path / "out.zarr")
    result = phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", **OPTIONS)
    whole = phbatch.run(tmp_path / "a.zarr", tmp_path / "whole.zarr", **OPTIONS)
    assert files(result.output) == files(whole.output)
    assert phbatch.verify(result.output).damages == ()


@pytest.mark.parametrize("pools", [{"scope": "series"}, {"smooth_time": 3}, {"bad_frames": "skip"}])
def test_what_depends_on_all_frames_is_not_appended_to(tmp_path: Path, pools: dict[str, Any]) -> None:
    frames = movie(18, 64)
    array = write(tmp_path / "a.zarr", frames[:16])
    result = phbatch.run(tmp_path / "a.zarr", **OPTIONS, **pools)
    grow(array, frames)
    whole = files(result.output)
    with pytest.raises(phbatch.OutputError, match="those that came since change all others"):
        phbatch.run(tmp_path / "a.zarr", **OPTIONS, **pools)
    assert files(result.output) == whole


def test_frames_that_were_changed_are_not_appended_to(tmp_path: Path) -> None:
    frames = movie(33)
    array = write(tmp_path / "a.zarr", frames[:16])
    result = phbatch.run(tmp_path / "a.zarr", **OPTIONS)
    whole = files(result.output)
    grow(array, frames)
    array[3] = frames[4]
    with pytest.raises(phbatch.OutputError, match="was changed after it was restored"):
        phbatch.run(tmp_path / "a.zarr", **OPTIONS)
    assert files(result.output) == whole


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that does not know how loaded the machine is."""
    monkeypatch.setattr(follow, "LOOK_S", 0.01)
    monkeypatch.setattr(follow, "monotonic", (call / 100 for call in count()).__next__)


@contextmanager
def acting(look: dict[int, Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """While inside, something happens just before looks at the input, by their number; the frames that each found."""
    numbers, found, real = count(), list[int](), watching.Arrival.look

    def acted(self: watching.Arrival) -> watching.Arrived:
        look.get(next(numbers), lambda: None)()
        seen = real(self)
        found.append(seen.frames)
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(watching.Arrival, "look", acted)
        yield found


def noisy(times: int, channels: int = 0) -> np.ndarray:
    shape = (times, channels, LENGTH, LENGTH) if channels else (times, LENGTH, LENGTH)
    return np.random.default_rng(1).integers(900, 1100, shape, dtype="uint16")


def made_for(path: Path, frames: np.ndarray, chunk_t: int = 1) -> zarr.Array[Any]:
    """An array that is as long as it will be, and empty."""
    chunks = (chunk_t, *([1] * (frames.ndim - 3)), LENGTH // 2, LENGTH)
    return zarr.create_array(path, shape=frames.shape, dtype=frames.dtype, chunks=chunks)


@pytest.mark.usefixtures("quick")
def test_frames_are_restored_as_they_come_until_all_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One channel of two is restored, and the other comes late: it is not waited for."""
    frames, said = noisy(5, 2), list[str]()
    array = made_for(tmp_path / "a.zarr", frames)

    def write(t: int, c: int) -> Callable[[], object]:
        return lambda: array.__setitem__((t, c), frames[t, c])

    def half() -> None:
        array[2, 0, : LENGTH // 2] = frames[2, 0, : LENGTH // 2]  # one of two chunks

    looks = {0: write(0, 0), 3: write(1, 0), 6: half, 9: write(2, 0), 12: write(3, 0), 13: write(4, 0)}
    options = OPTIONS | {"channel": 0, "axes": "tcyx"}
    with acting(looks, monkeypatch) as found:
        result = phbatch.run(
            tmp_path / "a.zarr",
            tmp_path / "out.zarr",
            follow=True,
            listener=lambda event: said.append(event.text) if isinstance(event, Notice) else None,
            **options,
        )
    assert sorted({*found}) == [0, 1, 2, 3, 4, 5] or sorted({*found}) == [0, 1, 2, 3, 5]
    assert found[6:9] == [2, 2, 2]
    assert (result.units_done, result.frames) == (5, 5)
    assert said[-1] == "the input is taken as ended: all 5 frames that it was made for are there."
    whole = phbatch.run(tmp_path / "a.zarr", tmp_path / "whole.zarr", **options)
    assert files(result.output) == files(whole.output)
    assert phbatch.verify(result.output).damages == ()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("end", ["frames", "follow_timeout", "follow_until"])
def test_an_array_that_grows_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """Small frames are restored in groups that share a chunk, and the rest of them at the end."""
    frames = movie(36)
    array = write(tmp_path / "a.zarr", frames[:3])
    ends = {"frames": ":36", "follow_timeout": 0.5, "follow_until": tmp_path / "ended"}
    options: dict[str, Any] = {"follow_timeout": 60.0} | {end: ends[end]}
    lengths = {2: 15, 4: 17, 7: 33, 9: 36}
    looks: dict[int, Callable[[], object]] = {
        number: lambda length=length: grow(array, frames[:length]) for number, length in lengths.items()
    }
    if end == "follow_until":
        looks[12] = (tmp_path / "ended").touch
    with acting(looks, monkeypatch):
        result = phbatch.run(tmp_path / "a.zarr", tmp_path / "out.zarr", follow=True, **options, **OPTIONS)
    assert result.units_skipped == 0
    assert result.frames == 36
    options = {"frames": ":36"} if end == "frames" else {}
    whole = phbatch.run(tmp_path / "a.zarr", tmp_path / "whole.zarr", **options, **OPTIONS)
    assert files(result.output) == files(whole.output)


@pytest.mark.usefixtures("quick")
def test_a_chunk_of_many_frames_counts_once_the_next_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer writes it anew with every frame. What never comes is not restored."""
    frames = noisy(9)
    array = made_for(tmp_path / "a.zarr", frames, chunk_t=3)
    looks: dict[int, Callable[[], object]] = {2 * t: lambda t=t: array.__setitem__(t, frames[t]) for t in range(5)}
    with acting(looks, monkeypatch) as found:
        result = phbatch.run(tmp_path / "a.zarr", follow=True, follow_timeout=0.5, **OPTIONS)
    assert {*found[:6]} == {0}
    assert {*found[6:]} == {3}
    assert result.frames == 6
    expected = phbatch.run(tmp_path / "a.zarr", tmp_path / "whole.zarr", frames=":6", **OPTIONS)
    left, right = (zarr.open_array(f"{found.output}/0", mode="r")[:] for found in (result, expected))
    np.testing.assert_array_equal(left, right)
    again = phbatch.run(tmp_path / "a.zarr", frames=":6", **OPTIONS)
    assert (again.units_skipped, again.units_done) == (2, 0)


@pytest.mark.usefixtures("quick")
def test_stopped_anywhere_it_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped again and again while frames come, and ends as a plain run over the whole."""
    frames, written, said = noisy(6), count(), list[str]()
    array = made_for(tmp_path / "a.zarr", frames)

    def stop_after(times: int) -> Callable[[], bool]:
        said = iter([False] * times)
        return lambda: next(said, True)

    def write_next() -> None:
        if (t := next(written)) < len(frames):
            array[t] = frames[t]

    result = None
    while result is None:
        try:
            with acting(dict.fromkeys(range(0, 100, 3), write_next), monkeypatch):
                result = phbatch.run(
                    tmp_path / "a.zarr",
                    tmp_path / "out.zarr",
                    follow=True,
                    follow_timeout=1,
                    stop=stop_after(3 + 2 * len(said)),
                    **OPTIONS,
                )
        except phbatch.InterruptedRunError as error:
            said.append(str(error))
            if (tmp_path / "out.zarr").exists():
                assert phbatch.verify(tmp_path / "out.zarr").damages == ()
    assert len(said) > 3
    whole = phbatch.run(tmp_path / "a.zarr", tmp_path / "whole.zarr", **OPTIONS)
    assert files(result.output) == files(whole.output)


@pytest.mark.usefixtures("quick")
def test_an_input_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    frames, said = movie(2, 64), list[str]()
    with pytest.raises(phbatch.InputError, match=r"a\.zarr does not exist"):
        phbatch.run(tmp_path / "a.zarr", follow=True, follow_timeout=0.05, **OPTIONS)

    def listener(event: Any) -> None:
        said.append(getattr(event, "text", ""))
        if said[-1].startswith("waiting up to 10 min for the input"):
            threading.Timer(0.1, write, (tmp_path / "a.zarr", frames)).start()

    result = phbatch.run(
        tmp_path / "a.zarr", follow=True, follow_timeout="10m", frames=":2", listener=listener, **OPTIONS
    )
    assert result.frames == 2
    assert said[0].startswith("waiting")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scope": "series"}, "scope series needs all of them"),
        ({"illumination": "temporal"}, "illumination temporal needs all of them"),
        ({"frames": "-2:"}, "counts from the end"),
    ],
)
def test_what_needs_all_frames_is_not_followed(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    write(tmp_path / "a.zarr", movie(9, 64))
    with pytest.raises(phbatch.UsageError, match=says):
        phbatch.run(tmp_path / "a.zarr", follow=True, **OPTIONS, **options)
    with pytest.raises(phbatch.UsageError, match=r"add follow"):
        phbatch.run(tmp_path / "a.zarr", follow_timeout="1m", **OPTIONS)
    with pytest.raises(phbatch.UsageError, match="follow=True does nothing where tasks share"):
        phbatch.begin_parts(tmp_path / "a.zarr", parts=2, follow=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.usefixtures("quick")
def test_a_folder_of_tiffs_is_followed_and_a_single_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noisy(4)
    folder = tmp_path / "tiffs"
    folder.mkdir()

    def save(t: int) -> None:
        tifffile.imwrite(folder / f"t{t:03}.tif", frames[t], photometric="minisblack")

    save(0)
    looks: dict[int, Callable[[], object]] = {3 * t: lambda t=t: save(t) for t in range(1, 4)}
    with acting(looks, monkeypatch):
        result = phbatch.run(folder, tmp_path / "out.zarr", follow=True, frames=":4", pattern="t{t}.tif", **OPTIONS)
    whole = phbatch.run(folder, tmp_path / "whole.zarr", frames=":4", pattern="t{t}.tif", **OPTIONS)
    assert files(result.output) == files(whole.output)
    assert (result.units_done, result.frames) == (4, 4)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    with pytest.raises(phbatch.UsageError, match="share a file that changes with each"):
        phbatch.run(tmp_path / "a.tif", follow=True, **OPTIONS)
