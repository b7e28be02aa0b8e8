"""Each image of many becomes the file that it becomes alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tifffile
import zarr

import phbatch
from tests.handmade import CommandLine
from tests.test_plates import make_plate, run

NAMES = {"A/1/0": "A01_f0", "A/1/1": "A01_f1", "A/2/0": "A02_f0", "A/2/1": "A02_f1", "B/1/0": "B01_f0"}


@pytest.mark.parametrize("imagej", [False, True], ids=["ome", "imagej"])
def test_a_plate_becomes_a_file_of_each_field(tmp_path: Path, imagej: bool) -> None:
    plate, folder, ending = make_plate(tmp_path / "p.zarr"), tmp_path / "files", "tif" if imagej else "ome.tif"
    found = phbatch.export(plate, folder, imagej=imagej)
    assert found["files"] == {path: f"{name}.{ending}" for path, name in (NAMES | {"B/1/1": "B01_f1"}).items()}
    assert sorted(path.name for path in folder.iterdir()) == sorted(found["files"].values())
    assert found["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    phbatch.export(plate / "A/2/1", tmp_path / "one.tif", imagej=imagej)
    with tifffile.TiffFile(folder / f"A02_f1.{ending}") as among, tifffile.TiffFile(tmp_path / "one.tif") as alone:
        assert (among.asarray() == alone.asarray()).all()
        assert among.series[0].axes == alone.series[0].axes


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, phbatch_command: CommandLine) -> None:
    plate, folder = make_plate(tmp_path / "p.zarr"), tmp_path / "files"
    assert phbatch_command("export", plate, folder, "--wells", "A1", "--fields", "1") == 0
    assert [path.name for path in folder.iterdir()] == ["A01_f1.ome.tif"]
    (folder / "A01_f1.ome.tif").write_bytes(b"kept")
    (plate / "A/2/0/0/c/0/0/0/0").write_bytes(b"torn")
    assert phbatch_command("export", plate, folder) == 4
    assert "files     5, 1 of them were there and are kept" in phbatch_command.out
    assert "A/2/0 is left out: " in phbatch_command.err
    assert sorted(path.name for path in folder.iterdir()) == [
        *("A01_f0.ome.tif", "A01_f1.ome.tif", "A02_f1.ome.tif", "B01_f0.ome.tif", "B01_f1.ome.tif")
    ]
    assert (folder / "A01_f1.ome.tif").read_bytes() == b"kept"
    assert phbatch_command("export", plate, folder, "--wells", "A1", "--overwrite", "--json") == 0
    assert json.loads(phbatch_command.out)["kept"] == 0
    assert (folder / "A01_f1.ome.tif").stat().st_size > 4


def test_what_is_not_finished_is_left_out(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1", "A/2"), fields=1), tmp_path / "o.zarr"
    (plate / "A/2/0/0/c/0/1/0/0").write_bytes(b"torn")
    assert run(plate, output, retries=0).exit_code == 4
    found = phbatch.export(output, tmp_path / "files")
    assert found["files"] == {"A/1/0": "A01_f0.ome.tif"}
    assert "A/2/0 has 1 of 2 units finished; call the run again" in found["left_out"]["A/2/0"]
    with pytest.raises(phbatch.InputError, match="A/2/0 has 1 of 2 units finished"):
        phbatch.export(output / "A/2/0", tmp_path / "one.tif")
    with pytest.raises(phbatch.InputError, match="has 1 of 2 units"):
        phbatch.export(output, tmp_path / "files", wells="A2")
    assert not (tmp_path / "one.tif").exists()


def test_collections_and_patterns(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr")
    assert phbatch.export(f"{plate}/A/*/0", tmp_path / "a")["files"].keys() == {"A/1/0", "A/2/0"}
    for name in ("m9", "m10"):
        zarr.create_array(tmp_path / f"day/{name}.zarr", shape=(2, 8, 8), dtype="uint8")
    found = phbatch.export(f"{tmp_path}/day/*", tmp_path / "b", axes="tyx")
    assert found["files"] == {"m9": "m9.ome.tif", "m10": "m10.ome.tif"}


def test_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", ("A/1",), fields=1)
    with pytest.raises(phbatch.OutputError, match="lies inside the input"):
        phbatch.export(plate, plate / "files")
    with pytest.raises(phbatch.OutputError, match="cannot be made"):
        phbatch.export(plate, tmp_path / "nowhere" / "files")
    with pytest.raises(phbatch.UsageError, match=r"does not end in .tif or .tiff"):
        phbatch.export(plate / "A/1/0", tmp_path / "files")
