"""Bad input: one clear sentence, exit code 3, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.planning.memory import RESERVED_BYTES, RESERVED_NETWORK_BYTES, format_bytes
from tests.forks import Forked
from tests.handmade import CONFIG, CommandLine, write_model, write_weights


def make(path: Path, data: np.ndarray, **options: Any) -> Path:
    zarr.create_array(path, data=data, **options)
    return path


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file in a folder with its bytes, every folder with None."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(command: CommandLine, folder: Path, *arguments: object, part: str) -> None:
    """The command exits with 3, says one sentence that holds `part`, and leaves every file as it was."""
    before = contents(folder)
    assert command("run", *arguments) == 3
    lines = [line for line in command.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert part in lines[0]
    assert lines[0].endswith(".")
    assert command.err.splitlines()[-1] == lines[0]
    assert "Traceback" not in command.err
    assert "unexpected" not in command.err
    assert contents(folder) == before


def missing_array(folder: Path) -> Path:
    group = zarr.open_group(folder / "in.zarr", mode="w", zarr_format=3)
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    return folder / "in.zarr"


def text_file(folder: Path) -> Path:
    (folder / "in.zarr").write_text("no zarr")
    return folder / "in.zarr"


def empty_folder(folder: Path) -> Path:
    (folder / "in.zarr").mkdir()
    return folder / "in.zarr"


def broken_metadata(folder: Path) -> Path:
    (folder / "in.zarr").mkdir()
    (folder / "in.zarr" / "zarr.json").write_text('{"zarr_format": 3,')
    return folder / "in.zarr"


def with_ome(value: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        zarr.open_group(folder / "in.zarr", mode="w").attrs["ome"] = value
        return folder / "in.zarr"

    return build


def strange_axis(folder: Path) -> Path:
    path = missing_array(folder)
    group = zarr.open_group(path, mode="r+")
    ome = group.attrs.asdict()["ome"]
    ome["multiscales"][0]["axes"] = [{"name": "angle", "type": "other"}, *ome["multiscales"][0]["axes"]]
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1.0, 1.0, 1.0]
    group.attrs["ome"] = ome
    group.create_array("0", shape=(2, 4, 4), dtype="uint16")
    return path


@pytest.mark.parametrize(
    ("build", "options", "part"),
    [
        (lambda folder: folder / "nowhere.zarr", (), "does not exist"),
        (text_file, (), "Zarr"),
        (empty_folder, (), "holds no Zarr"),
        (broken_metadata, (), "cannot be read as Zarr"),
        (with_ome(None), (), "no OME-Zarr image"),
        (with_ome(3), (), "no OME-Zarr image"),
        (with_ome({"multiscales": []}), (), "metadata are invalid at multiscales"),
        (lambda folder: "nowhere://in.zarr", (), "Protocol not known"),
        (missing_array, (), "that array is missing"),
        (strange_axis, (), "axis 'angle' is unknown"),
        (lambda f: make(f / "in.zarr", np.ones((2, 2, 8, 8), "uint16")), (), "no axes in its metadata"),
        (lambda f: make(f / "in.zarr", np.ones((2, 8, 8), "uint16")), ("--axes", "qyx"), "'q'"),
        (lambda f: make(f / "in.zarr", np.ones((2, 8, 8), "uint16")), ("--axes", "tcyx"), "name 4 dimensions"),
        (lambda f: make(f / "in.zarr", np.ones((8, 8), "uint16")), ("--axes", "yy"), "twice"),
        (lambda f: make(f / "in.zarr", np.ones((8,), "uint16")), (), "1 dimensions"),
        (lambda f: make(f / "in.zarr", np.ones((0, 8, 8), "uint16"), chunks=(1, 8, 8)), (), "length zero"),
        (lambda f: make(f / "in.zarr", np.ones((2, 8, 8), "complex64")), (), "no real number"),
        (lambda f: make(f / "in.zarr", np.ones((2, 8, 8), "bool")), (), "no real number"),
        (lambda f: make(f / "in.zarr", np.ones((2, 8, 8), "uint16")), ("--frames", "5:9"), "selects none"),
        (lambda f: make(f / "in.zarr", np.ones((2, 8, 8), "uint16")), ("--channel", "GFP"), "is not there"),
    ],
)
def test_inputs(
    phbatch_command: CommandLine,
    tmp_path: Path,
    build: Callable[[Path], Path | str],
    options: tuple[str, ...],
    part: str,
) -> None:
    source = build(tmp_path)
    refused(phbatch_command, tmp_path, source, tmp_path / "out.zarr", "--model", "none", *options, part=part)


@pytest.mark.parametrize("dtype", ["S4", "U4", "datetime64[s]"])
def test_dtypes_that_are_no_numbers(phbatch_command: CommandLine, tmp_path: Path, dtype: str) -> None:
    zarr.create_array(tmp_path / "in.zarr", shape=(2, 8, 8), chunks=(1, 8, 8), dtype=dtype, zarr_format=2)
    refused(phbatch_command, tmp_path, tmp_path / "in.zarr", "--model", "none", part="no real number")


def test_a_real_process_says_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phbatch", "run", str(tmp_path / "nowhere.zarr"), str(tmp_path / "out.zarr")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 3
    assert shown.stdout == ""
    assert shown.stderr.startswith(f"error: {tmp_path}/nowhere.zarr does not exist; ")
    assert len(shown.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("workers", [1, 2])
def test_nan_names_the_frame_and_skip_passes_it_through(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray, bad: float, workers: int
) -> None:
    image = frames.astype("float32")
    image[1, 3, 4] = bad
    source = make(tmp_path / "in.zarr", image, chunks=(1, 40, 36))
    arguments = (source, tmp_path / "out.zarr", "--model", "none", "--workers", workers)
    refused(phbatch_command, tmp_path, *arguments, part="frame t1/c0/z0 holds NaN or infinity")
    assert phbatch_command("run", *arguments, "--nan", "skip") == 0
    assert "flagged t1/c0/z0: nonfinite" in phbatch_command.out
    written = zarr.open_array(tmp_path / "out.zarr", path="0")[:]
    assert written[1].tobytes() == image[1].tobytes()
    assert np.isfinite(written[[0, 2]]).all()


def test_integers_cannot_hold_nan_and_say_so(phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray) -> None:
    image = frames.astype("float32")
    image[1, 3, 4:7] = np.nan, np.inf, -np.inf
    source = make(tmp_path / "in.zarr", image)
    options = ("--model", "none", "--nan", "skip", "--rescale", "--dtype", "uint16", "--json")
    assert phbatch_command("run", source, tmp_path / "out.zarr", *options) == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert (record["flagged"], record["clipped"]) == ({"t1/c0/z0": ["nonfinite"]}, 3)
    written = zarr.open_array(tmp_path / "out.zarr", path="0")[:]
    assert written[1, 3, 4:7].tolist() == [0, 65535, 0]
    kept = np.isfinite(image)
    np.testing.assert_array_equal(written[kept], frames[kept])


def test_overwriting_with_a_bad_input_keeps_the_old_output(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray
) -> None:
    phbatch.run(make(tmp_path / "good.zarr", frames), tmp_path / "out.zarr", model="none")
    image = frames.astype("float32")
    image[2, 0, 0] = np.nan
    arguments = (make(tmp_path / "in.zarr", image), tmp_path / "out.zarr", "--model", "none", "--overwrite")
    refused(phbatch_command, tmp_path, *arguments, part="frame t2/c0/z0 holds NaN or infinity")
    refused(phbatch_command, tmp_path, *arguments[:-1], part="was begun differently")


def test_an_output_that_was_only_begun_is_replaced_by_good_input_alone(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray
) -> None:
    zarr.open_group(tmp_path / "out.zarr", mode="w", attributes={"phbatch": {"status": "creating"}})
    image = frames.astype("float32")
    image[2, 0, 0] = np.nan
    bad, good = make(tmp_path / "bad.zarr", image), make(tmp_path / "good.zarr", frames)
    arguments = (tmp_path / "out.zarr", "--model", "none")
    refused(phbatch_command, tmp_path, bad, *arguments, part="frame t2/c0/z0 holds NaN or infinity")
    assert phbatch_command("run", good, *arguments) == 0


@pytest.mark.parametrize("model", ["none", "phase-2d"])
def test_frames_without_a_scale_are_flagged_and_unchanged(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray, model: str
) -> None:
    frames[0] = 0
    frames[1] = 77
    mostly_zero = np.zeros((1, 40, 36), "uint16")
    mostly_zero[0, 5, 5:20] = 9
    source = make(tmp_path / "in.zarr", np.concatenate([frames, mostly_zero]), chunks=(1, 40, 36))
    assert phbatch_command("run", source, tmp_path / "out.zarr", "--model", model, "--json") == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert record["flagged"] == {"t0/c0/z0": ["zero", "constant"], "t1/c0/z0": ["constant"], "t3/c0/z0": ["unscaled"]}
    written = zarr.open_array(tmp_path / "out.zarr", path="0")[:]
    np.testing.assert_array_equal(written[[0, 1]], frames[[0, 1]])
    np.testing.assert_array_equal(written[3], mostly_zero[0])
    assert np.median(written[2]) == pytest.approx(1, abs=0.1)


def without_weights(folder: Path) -> Path:
    (write_model(folder) / "weights_best.h5").unlink()
    return folder


def of_another_network(folder: Path) -> Path:
    write_weights(write_model(folder) / "weights_best.h5", CONFIG | {"unet_n_first": 4})
    return folder


def truncated(folder: Path) -> Path:
    path = write_model(folder) / "weights_best.h5"
    path.write_bytes(path.read_bytes()[:3000])
    return folder


def foreign(**keys: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG | keys))
        return folder

    return build


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (lambda folder: folder, "no folder and no bundled model"),
        (without_weights, "holds no weights"),
        (of_another_network, "belong to another network"),
        (truncated, "truncated"),
        (foreign(proj_n_depth=4), "ProjectionCARE"),
        (foreign(n2v_perc_pix=1.5), "N2V"),
        (foreign(n_rays=32), "StarDist"),
        (foreign(unet_kern_size=4), "unet_kern_size = 4"),
        (lambda folder: write_model(folder, n_channel_in=3), "takes 3 channels and 1 are given"),
        (lambda folder: write_model(folder, n_dim=3, axes="ZYXC"), "is 3D"),
    ],
)
def test_models(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray, build: Callable[[Path], Path], part: str
) -> None:
    source = make(tmp_path / "in.zarr", frames)
    refused(phbatch_command, tmp_path, source, "--model", build(tmp_path / "model"), part=part)


def test_output_inside_the_input_and_the_other_way_round(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray
) -> None:
    source = make(tmp_path / "in.zarr", frames)
    for output, part in (
        (source / "out.zarr", "inside the input"),
        (source, "inside the input"),
        (tmp_path, "inside the output"),
    ):
        for extra in ((), ("--overwrite",)):
            refused(phbatch_command, tmp_path, source, output, "--model", "none", *extra, part=part)


def test_other_spellings_of_a_place_inside_the_input(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "in.zarr", frames)
    (tmp_path / "link.zarr").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    for output in ("link.zarr/out.zarr", f"file://{source}/out.zarr", "other/../in.zarr/out.zarr", "in.zarr/"):
        refused(phbatch_command, tmp_path, source, output, "--model", "none", part="inside the input")
    refused(phbatch_command, tmp_path, "link.zarr", source / "out.zarr", "--model", "none", part="inside the input")


def test_an_output_url_of_no_known_kind(phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray) -> None:
    source = make(tmp_path / "in.zarr", frames)
    refused(
        phbatch_command, tmp_path, source, "nowhere://out.zarr", "--model", "none", part="nowhere://out.zarr cannot be"
    )


@pytest.mark.parametrize("extra", [(), ("--overwrite",)])
def test_an_output_that_is_not_ours_is_left_alone(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray, extra: tuple[str, ...]
) -> None:
    source = make(tmp_path / "in.zarr", frames)
    folder = tmp_path / "holidays"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"sea")
    for output in (folder, make(tmp_path / "other.zarr", frames), folder / "photo.jpg"):
        refused(
            phbatch_command, tmp_path, source, output, "--model", "none", *extra, part="is not an output of phbatch"
        )
    assert (folder / "photo.jpg").read_bytes() == b"sea"


def test_a_place_that_cannot_be_written(phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray) -> None:
    source = make(tmp_path / "in.zarr", frames)
    (tmp_path / "file").write_text("")
    refused(
        phbatch_command, tmp_path, source, tmp_path / "file" / "out.zarr", "--model", "none", part="cannot be written"
    )


def test_no_write_permission(tmp_path: Path, frames: np.ndarray) -> None:
    # Permissions do not bind root: the child drops to a user of its own where it can.
    place = Path(tempfile.gettempdir()).resolve() / f"phbatch-permission-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        source = make(place / "in.zarr", frames)
        locked = place / "locked"
        locked.mkdir()
        for path in place.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        locked.chmod(0o555)
        drop = "os.setuid(65534);" if os.geteuid() == 0 else ""
        # A first run loads every library, which the other user may not be allowed to read.
        code = (
            "import os, sys, phbatch; source, output = sys.argv[1:]\n"
            "phbatch.run(source, source + '-first', model='none')\n"
            f"{drop}\n"
            "try: phbatch.run(source, output, model='none')\n"
            "except phbatch.PhbatchError as error: print(error, file=sys.stderr, flush=True); os._exit(error.exit_code)"
        )
        child = Forked(code, [str(source), str(locked / "out.zarr")])
        _, errors = child.communicate(300)
        assert child.returncode == 3, errors
        assert "cannot be written" in errors
        assert "Traceback" not in errors
        assert list(locked.iterdir()) == []
    finally:
        shutil.rmtree(place)


def test_memory_too_small_names_the_largest_part(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray
) -> None:
    source = make(tmp_path / "in.zarr", frames)
    libraries = format_bytes(RESERVED_BYTES + RESERVED_NETWORK_BYTES)
    part = f"the libraries themselves, {libraries}: raise --memory"
    refused(phbatch_command, tmp_path, source, "--memory", "10MB", part=part)
    zarr.create_array(tmp_path / "big.zarr", shape=(40, 2048, 2048), chunks=(40, 2048, 2048), dtype="uint16")
    arguments = (tmp_path / "big.zarr", "--model", "none", "--memory", "1GB")
    refused(phbatch_command, tmp_path, *arguments, part="store the input in smaller chunks")
    arguments = (make(tmp_path / "wide.zarr", np.ones((1, 2048, 2048), "uint8")), "--memory", "2GB", "--tile", "2048")
    refused(phbatch_command, tmp_path, *arguments, part="lower --tile")
