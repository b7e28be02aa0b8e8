"""Sources of every layout read the same; sinks write whole chunks by rename; the ledger survives damage."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.inputs.image import Source, open_source
from phbatch.outputs.creation import ArrayLayout, create_output
from phbatch.outputs.ledger import Ledger, decode_records, encode_record
from phbatch.outputs.writer import Sink
from phbatch.places.ome import ImageMetadata, make_image_attributes
from phbatch.places.place import Place
from phbatch.words.axes import to_region
from phbatch.words.errors import InputError, OutputError
from tests.handmade import write_model
from tests.outputs import statistics_of

IMAGE = np.random.default_rng(0).integers(0, 60000, (2, 3, 4, 9, 7), dtype="uint16")
EVERYTHING = to_region((0,) * 5, IMAGE.shape)


def read_all(source: Source) -> np.ndarray:
    return source.read(to_region((0,) * 5, source.shape))


@pytest.mark.parametrize("order", list(permutations("tczyx")), ids="".join)
def test_any_order_of_axes_reads_the_same(tmp_path: Path, order: tuple[str, ...]) -> None:
    stored = IMAGE.transpose(["tczyx".index(axis) for axis in order])
    zarr.create_array(tmp_path / "in.zarr", data=stored, chunks=tuple(-(-size // 2) for size in stored.shape))
    source = open_source(Place.at(tmp_path / "in.zarr"), "".join(order))
    np.testing.assert_array_equal(read_all(source), IMAGE)
    assert source.chunks == tuple(-(-size // 2) for size in IMAGE.shape)


@pytest.mark.parametrize("axes", ["yx", "tyx", "zyx", "cyx", "tcyx", "czyx", "xy", "ytx"])
def test_absent_axes_have_length_one(tmp_path: Path, axes: str) -> None:
    present = tuple(slice(None) if axis in axes else 0 for axis in "tczyx")
    ordered = [axis for axis in "tczyx" if axis in axes]
    stored = IMAGE[present].transpose([ordered.index(axis) for axis in axes])
    zarr.create_array(tmp_path / "in.zarr", data=stored)
    found = read_all(open_source(Place.at(tmp_path / "in.zarr"), axes))
    kept = tuple(slice(None) if axis in axes else slice(0, 1) for axis in "tczyx")
    np.testing.assert_array_equal(found, IMAGE[kept])


@pytest.mark.parametrize(
    "options",
    [
        {"zarr_format": 2},
        {"zarr_format": 2, "order": "F"},
        {"zarr_format": 3},
        {"zarr_format": 3, "shards": (2, 2, 4, 10, 8)},
        {"zarr_format": 2, "compressors": None},
        {"zarr_format": 3, "compressors": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f8", "i1"])
def test_formats_orders_and_byte_orders(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    image = (IMAGE % 100).astype(dtype)
    array = zarr.create_array(
        tmp_path / "in.zarr", shape=image.shape, chunks=(1, 2, 2, 5, 4), dtype=np.dtype(dtype), **options
    )
    array[:] = image
    source = open_source(Place.at(tmp_path / "in.zarr"))
    assert source.dtype.isnative
    np.testing.assert_array_equal(read_all(source), image)


@pytest.mark.parametrize(("key", "part"), [("plate", "field of a well"), ("bioformats2raw.layout", "INPUT/0")])
def test_other_groups_are_named(tmp_path: Path, key: str, part: str) -> None:
    zarr.open_group(tmp_path / "in.zarr", mode="w").attrs["ome"] = {key: 3}
    with pytest.raises(InputError, match=part):
        open_source(Place.at(tmp_path / "in.zarr"))


def test_a_group_of_arrays_names_them(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "in.zarr", mode="w").create_array("raw", data=IMAGE)
    with pytest.raises(InputError, match="INPUT/raw"):
        open_source(Place.at(tmp_path / "in.zarr"))
    assert open_source(Place.at(tmp_path / "in.zarr" / "raw")).shape == IMAGE.shape


def make_ome(path: Path, version: str, image: np.ndarray, axes: str = "tcyx") -> None:
    channel = {"label": "phase", "color": "FFFFFF", "window": {"start": 0.0, "min": 0.0, "end": 9.0, "max": 9.0}}
    metadata = ImageMetadata(
        axes,
        (30.0, 1.0, 0.65, 0.65),
        (5.0, 0.0, 1.0, 2.0),
        ("second", None, "micrometer", "micrometer"),
        ({**channel}, {**channel, "label": "GFP"}),
        "position 3",
    )
    attributes = make_image_attributes(metadata, version)  # type: ignore[arg-type]
    layout = ArrayLayout("0", axes, image.shape, (1, 1, *image.shape[2:]), str(image.dtype))
    create_output(Place.at(path), 2 if version == "0.4" else 3, {"": attributes | {"mine": 1}}, [layout])
    zarr.open_array(path, path="0", mode="r+")[:] = image


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_are_carried_over(tmp_path: Path, version: str) -> None:
    make_ome(tmp_path / "in.zarr", version, IMAGE[:, :2, 0])
    result = phbatch.run(tmp_path / "in.zarr", model="none")
    before, after = open_source(Place.at(tmp_path / "in.zarr")), open_source(Place.at(result.output))
    for name in ("axes", "scale", "translation", "units", "channel_names", "name", "version"):
        assert getattr(after.metadata, name) == getattr(before.metadata, name)
    assert after.array.metadata.zarr_format == before.array.metadata.zarr_format
    assert after.shape == before.shape
    yaozarrs.validate_zarr_store(result.output)
    window = after.metadata.channels[0]["window"]
    assert window["min"] < window["start"] < 1 < window["end"] <= window["max"] < 100


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_selected_frames_and_channel_move_the_time_axis(tmp_path: Path, version: str) -> None:
    image = np.tile(IMAGE[:, :2, 0], (5, 1, 1, 1))
    make_ome(tmp_path / "in.zarr", version, image)
    result = phbatch.run(tmp_path / "in.zarr", model="none", normalize="none", frames="1:9:3", channel="GFP")
    found = open_source(Place.at(result.output))
    assert found.metadata.scale[0] == 90
    assert found.metadata.translation[0] == 35
    assert found.metadata.channel_names == ("GFP",)
    assert found.metadata.version == version
    yaozarrs.validate_zarr_store(result.output)
    np.testing.assert_array_equal(read_all(found)[:, 0, 0], image[1:9:3, 1])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_uncertainty_is_an_image_of_its_own(tmp_path: Path, version: str) -> None:
    make_ome(tmp_path / "in.zarr", version, IMAGE[:, :2, 0])
    model = write_model(tmp_path / "model", unet_n_depth=1, probabilistic=True)
    result = phbatch.run(tmp_path / "in.zarr", model=model, uncertainty=True)
    yaozarrs.validate_zarr_store(result.output)
    yaozarrs.validate_zarr_store(f"{result.output}/uncertainty")
    scale = read_all(open_source(Place.at(f"{result.output}/uncertainty")))
    assert scale.shape == (2, 2, 1, 9, 7)
    assert (scale >= 1e-3).all()


def test_provenance(tmp_path: Path, frames: np.ndarray) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames[:, :20], chunks=(1, 20, 36))
    result = phbatch.run(tmp_path / "in.zarr", model="phase-2d")
    group = zarr.open_group(result.output, mode="r")
    facts = group.attrs.asdict()["phbatch"]
    assert facts["status"] == "complete"
    assert facts["command"].startswith("phbatch.run(")
    assert len(facts["model"]["sha256"]) == 64
    assert {"phbatch", "numpy", "zarr", "keras"} <= set(facts["versions"])
    assert facts["statistics"] == "see the arrays of the group statistics"
    assert group["statistics/median"].shape == (3,)
    np.testing.assert_array_equal(group["statistics/divisor"][:], np.float32(group["statistics/median"][:]))
    assert not (Path(result.output) / ".phbatch" / "scratch").exists()


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_urls_give_the_same_numbers(tmp_path: Path, frames: np.ndarray, direction: str) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    local = phbatch.run(tmp_path / "in.zarr", tmp_path / "local.zarr", model="none")
    source, output = str(tmp_path / "in.zarr"), str(tmp_path / "out.zarr")
    if direction != "out":
        source = f"memory://{tmp_path.name}/in.zarr"
        zarr.create_array(source, data=frames, chunks=(1, 40, 36))
    if direction != "in":
        output = f"memory://{tmp_path.name}/out.zarr"
    result = phbatch.run(source, output, model="none")
    np.testing.assert_array_equal(
        read_all(open_source(Place.at(result.output))), read_all(open_source(Place.at(local.output)))
    )
    facts = zarr.open_group(result.output, mode="r").attrs.asdict()["phbatch"]
    assert facts["status"] == "complete"
    assert statistics_of(result.output) == statistics_of(local.output)
    assert phbatch.run(source, output, model="none").units_skipped == result.units
    assert phbatch.run(source, output, model="none", overwrite=True).units_done == result.units


def layout_output(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], zarr_format: int = 3) -> Sink:
    metadata = ImageMetadata.bare("tyx")
    attributes = make_image_attributes(metadata, "0.4" if zarr_format == 2 else "0.5")
    layouts = [ArrayLayout("0", "tyx", shape, chunks, "uint16")]
    create_output(Place.at(folder), zarr_format, {"": attributes}, layouts)  # type: ignore[arg-type]
    return Sink(Place.at(folder))


@pytest.mark.parametrize("zarr_format", [2, 3])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(1, 20)), st.data())
def test_many_writers_of_whole_chunks_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, zarr_format: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    folder = tmp_path_factory.mktemp("sink") / "out.zarr"
    sink = layout_output(folder, shape, chunks, zarr_format)
    image = np.random.default_rng(0).integers(0, 60000, shape, dtype="uint16")

    def write(start: int) -> None:
        stop = min(start + chunks[0], shape[0])
        region = to_region((start, 0, 0, 0, 0), (stop, 1, 1, *shape[1:]))
        sink.write("0", "tyx", region, image[start:stop, np.newaxis, np.newaxis])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(0, shape[0], chunks[0])))
    np.testing.assert_array_equal(zarr.open_array(folder, path="0")[:], image)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (2, 3), (2, 2), (1, 4), (3, 5)])
def test_writes_of_parts_of_chunks_are_refused(tmp_path: Path, start: int, stop: int) -> None:
    sink = layout_output(tmp_path / "out.zarr", (5, 8, 8), (2, 8, 8))
    block = np.zeros((stop - start, 1, 1, 8, 8), "uint16")
    with pytest.raises(OutputError, match="whole chunks"):
        sink.write("0", "tyx", to_region((start, 0, 0, 0, 0), (stop, 1, 1, 8, 8)), block)


def test_a_chunk_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    sink = layout_output(tmp_path / "out.zarr", (40, 256, 256), (1, 256, 256))
    image = np.random.default_rng(0).integers(0, 60000, (256, 256), dtype="uint16")
    done = threading.Event()
    torn: list[str] = []

    def watch() -> None:
        sizes: dict[str, int] = {}
        while not done.is_set():
            for path in (tmp_path / "out.zarr" / "0" / "c").rglob("0"):
                if path.is_file():
                    size = path.stat().st_size
                    if sizes.setdefault(str(path), size) != size:
                        torn.append(str(path))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for t in range(40):
        sink.write("0", "tyx", to_region((t, 0, 0, 0, 0), (t + 1, 1, 1, 256, 256)), image[None, None, None])
    done.set()
    watcher.join()
    assert torn == []
    assert (zarr.open_array(tmp_path / "out.zarr", path="0")[:] == image).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), max_size=6), st.data())
def test_a_torn_ledger_loses_at_most_its_last_record(records: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = [encode_record(record) for record in records]
    text = b"".join(lines)
    cut = data.draw(st.integers(0, len(text)))
    found = list(decode_records(BytesIO(text[:cut])))
    assert found == records[: len(found)]
    whole = 0
    for line in lines:
        cut -= len(line)
        whole += cut >= 0
    assert whole <= len(found) <= whole + 1


@given(st.binary(max_size=200))
def test_unknown_text_in_a_ledger_is_passed_over(noise: bytes) -> None:
    good = encode_record({"unit": "t0"})
    assert {"unit": "t0"} in list(decode_records(BytesIO(noise + b"\n" + good)))


@given(st.integers(0, 8 * 31 - 1))
def test_a_flipped_bit_costs_one_record(bit: int) -> None:
    first, second = encode_record({"unit": "t0", "n": 12345}), encode_record({"unit": "t1"})
    broken = bytearray(first)
    broken[bit // 8] ^= 1 << bit % 8
    assert {"unit": "t1"} in list(decode_records(BytesIO(bytes(broken) + second))) or broken[-1:] != b"\n"
    assert {"unit": "t0", "n": 12345} not in list(decode_records(BytesIO(bytes(broken))))


@pytest.mark.parametrize("place", ["local", "memory"])
def test_several_writers_share_a_ledger(tmp_path: Path, place: str) -> None:
    output = str(tmp_path / "out.zarr") if place == "local" else f"memory://{tmp_path.name}/ledger.zarr"
    assert Ledger(Place.at(output)).records() == {}
    writers = [Ledger(Place.at(output)), Ledger(Place.at(output))]
    for index in range(6):
        writers[index % 2].commit({"unit": f"t{index}", "value": index})
    writers[0].commit({"unit": "t5", "value": 50})
    found = Ledger(Place.at(output)).records()
    assert sorted(found) == [f"t{index}" for index in range(6)]
    assert [found[f"t{index}"]["value"] for index in range(5)] == list(range(5))


def test_a_ledger_of_damaged_files_goes_on(tmp_path: Path) -> None:
    first = Ledger(Place.at(tmp_path))
    for index in range(3):
        first.commit({"unit": f"t{index}"})
    (file,) = (tmp_path / ".phbatch" / "ledger").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-4])
    (file.parent / "foreign.jsonl").write_bytes(b"\x00\xff no record\n00000000 {}\n")
    second = Ledger(Place.at(tmp_path))
    assert sorted(second.records()) == ["t0", "t1"]
    second.commit({"unit": "t2"})
    assert sorted(Ledger(Place.at(tmp_path)).records()) == ["t0", "t1", "t2"]
