"""What comes from strangers is data: nothing in it is run, and nothing in it becomes a page's or a sheet's code."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import zarr

import phbatch
from phbatch.places.place import Place
from phbatch.places.table_file import csv_lines, read_rows, write_rows
from phbatch.report import save_comparison
from phbatch.tools.compare import compare_rules
from phbatch.words.events import UnitFinished
from tests.handmade import CONFIG, CommandLine, write_model


@pytest.fixture(autouse=True)
def _libraries_of_old(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let numcodecs and zarr load pickles, as older versions did: what is tested is that phbatch refuses them."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    with zarr.config.set({"array.allow_unsafe_pickle_decode": True}):
        yield


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._place,)


def array_with_a_trap(path: Path, trap: Path) -> Path:
    """An array of objects whose chunks are pickles."""
    zarr.create_array(path, shape=(2,), chunks=(2,), dtype="uint8", zarr_format=2, compressors=None, filters=None)
    content = json.loads((path / ".zarray").read_text())
    content |= {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}], "fill_value": ""}
    (path / ".zarray").write_text(json.dumps(content))
    (path / "0").write_bytes(pickle.dumps(Trap(trap)))
    return path


def test_the_trap_works(tmp_path: Path) -> None:
    path = array_with_a_trap(tmp_path / "trap.zarr", tmp_path / "TRAPPED")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever: what counts is that it was run
        zarr.open_array(path)[:]
    assert (tmp_path / "TRAPPED").exists()


@pytest.mark.parametrize("option", ["input", "--illumination", "--illumination group", "--stats"])
def test_no_pickle_is_loaded_from_a_zarr(
    phbatch_command: CommandLine, tmp_path: Path, source: Path, option: str
) -> None:
    trap = tmp_path / "TRAPPED"
    place = tmp_path / "hostile.zarr"
    if option in ("input", "--illumination"):
        array_with_a_trap(place, trap)
    else:
        inner = "statistics" if option == "--stats" else ""
        zarr.open_group(place, mode="w", zarr_format=2).require_group(inner or "unused").attrs["flag_bits"] = []
        array_with_a_trap(place / inner / ("t" if inner else "background"), trap)
    arguments = (place,) if option == "input" else (source, tmp_path / "out.zarr", option.split()[0], place)
    assert phbatch_command("run", *arguments, "--model", "none") == 3
    assert "pickle" in phbatch_command.err
    assert not trap.exists()


def test_no_port_is_listened_on(source: Path, tmp_path: Path) -> None:
    def listening() -> set[tuple[str, int]]:
        found = psutil.Process().net_connections(kind="inet")
        return {(place.laddr.ip, place.laddr.port) for place in found if place.status == psutil.CONN_LISTEN}

    def look(event: object) -> None:
        if isinstance(event, UnitFinished):
            seen.append(listening())

    before, seen = listening(), list[set[tuple[str, int]]]()
    phbatch.run(source, tmp_path / "out.zarr", model="none", workers=2, listener=look)
    assert seen
    assert all(found <= before for found in seen)


# --- models -----------------------------------------------------------------------------------------------------------


def refused(command: CommandLine, source: Path, model: Path, part: str) -> None:
    assert command("run", source, "--model", model) == 3
    assert part in command.err
    assert "Traceback" not in command.err
    assert command.err.strip().endswith(".")


@pytest.mark.parametrize(
    "change",
    [
        {"unet_n_depth": 8, "unet_n_first": 4096, "unet_kern_size": 31, "n_dim": 3},
        {"unet_n_depth": 10**9},
        {"unet_n_first": -1},
        {"unet_kern_size": 1e308},
        {"n_channel_in": "3"},
        {"n_dim": None},
        {"unet_last_activation": "__import__('os').system('true')"},
        {"unet_last_activation": ["relu"]},
        {"probabilistic": "yes"},
        {"unet_residual": []},
    ],
)
def test_absurd_configurations_are_refused(
    phbatch_command: CommandLine, tmp_path: Path, source: Path, change: dict[str, Any]
) -> None:
    model = write_model(tmp_path / "model")
    (model / "config.json").write_text(json.dumps(CONFIG | change))
    refused(phbatch_command, source, model, "config.json")


@pytest.mark.parametrize("file", ["config.json", "phbatch.json"])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' * 50_000, "\xff\xfe", "[]", '{"normalization": {"method": "os.system"}}']
)
def test_hostile_json_is_refused(
    phbatch_command: CommandLine, tmp_path: Path, source: Path, file: str, text: str
) -> None:
    model = write_model(tmp_path / "model")
    (model / file).write_text(text, encoding="latin-1")
    refused(phbatch_command, source, model, ".json")


def first_weight(file: h5py.File) -> str:
    """Path of a kernel."""
    found: list[str] = []
    file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None)
    return found[0]


def link_outside(path: Path) -> None:
    with h5py.File(path.parent / "secret.h5", "w") as other:
        other["data"] = np.ones(3)
    with h5py.File(path, "r+") as file:
        name = first_weight(file)
        del file[name]
        file[name] = h5py.ExternalLink(str(path.parent / "secret.h5"), "data")


def link_to_itself(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        name = first_weight(file)
        del file[name]
        file[name] = h5py.SoftLink(f"/{name}")


def data_in_another_file(path: Path) -> None:
    (path.parent / "secret").write_bytes(bytes(1 << 16))
    with h5py.File(path, "r+") as file:
        name = first_weight(file)
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype, external=[(str(path.parent / "secret"), 0, 1 << 16)])


def virtual_data(path: Path) -> None:
    with h5py.File(path.parent / "secret.h5", "w") as other:
        other["data"] = np.ones(1 << 16, "float32")
    with h5py.File(path, "r+") as file:
        name = first_weight(file)
        shape = file[name].shape
        del file[name]
        layout = h5py.VirtualLayout(shape, "float32")
        layout[...] = h5py.VirtualSource(str(path.parent / "secret.h5"), "data", shape=shape)
        file.create_virtual_dataset(name, layout)


def huge_dataset(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        name = first_weight(file)
        del file[name]
        file.create_dataset(name, (1 << 20, 1 << 20), "float32", chunks=(1, 1 << 10))


def objects(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        name = first_weight(file)
        del file[name]
        file.create_dataset(name, (3, 3), h5py.string_dtype())


def names_without_end(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        root = file.get("model_weights", file)
        root.attrs["layer_names"] = np.array([b"../.."] * 2000)


@pytest.mark.parametrize(
    "damage",
    [link_outside, link_to_itself, data_in_another_file, virtual_data, huge_dataset, objects, names_without_end],
)
def test_hostile_weights_are_refused(
    phbatch_command: CommandLine, tmp_path: Path, source: Path, damage: Callable[[Path], None]
) -> None:
    model = write_model(tmp_path / "model")
    damage(model / "weights_best.h5")
    refused(phbatch_command, source, model, "weights_best.h5")


# --- pages and sheets -------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://a","b")']


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_sheet_begins_a_formula(tmp_path: Path, formula: str) -> None:
    rows = [{formula: 1.5, "flags": [formula], "text": formula, "number": -1.5}]
    names = [formula, "flags", "text", "number"]
    write_rows(str(tmp_path / "t.csv"), names, rows)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        head, cells = csv.reader(file)
    assert [cell[0] for cell in (head[0], cells[1], cells[2])] == ["'"] * 3
    assert (cells[0], cells[3]) == ("1.5", "-1.5")
    assert "".join(csv_lines(names, rows)) == (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_ordinary_tables_are_unchanged(tmp_path: Path, source: Path) -> None:
    table = phbatch.statistics(source)
    write_rows(str(tmp_path / "t.csv"), table.names, table)
    assert "'" not in (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert [row["median"] for row in read_rows(Place.at(tmp_path / "t.csv"))] == [row["median"] for row in table]


def test_names_are_text_on_a_page(tmp_path: Path, source: Path) -> None:
    title = '<script>alert(1)</script>"onload="x.zarr'
    save_comparison(tmp_path / "page.html", compare_rules(str(source), samples=2), title)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'x.zarr"' not in page
    assert page.count("&lt;script&gt;") == 2
