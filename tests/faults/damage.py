"""What a bad disk, a bad program or a bad person makes of a valid image: damages, each drawn by a seed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import zarr
from zarr.codecs import ZstdCodec

KINDS = ("array2", "array3", "sharded3", "ome04", "ome05")
"""Valid images that are damaged: bare arrays of Zarr 2 and 3, one of them sharded, and OME-Zarr 0.4 and 0.5."""

Damage = Callable[[Path, Random], None]
DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {}
"""By name: what it does to the folder of an image, and the kinds of image that it fits."""

OME = ("ome04", "ome05")


def make_image(folder: Path, kind: str) -> Path:
    """A small valid image, ``folder/in.zarr``."""
    draw = np.random.default_rng(5)
    frames = draw.integers(400, 600, (3, 40, 36), dtype="uint16")
    zarr_format = 2 if kind in ("array2", "ome04") else 3
    compressor = numcodecs.Zstd(3) if zarr_format == 2 else ZstdCodec(level=3)
    options: dict[str, Any] = {"chunks": (1, 20, 36), "compressors": compressor}
    if kind == "sharded3":
        options["shards"] = (1, 40, 36)
    path = folder / "in.zarr"
    if kind not in OME:
        zarr.create_array(path, data=frames, zarr_format=zarr_format, **options)
        return path
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=frames, **options)
    axes = [{"name": "t", "type": "time"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]}
    image = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [level]}]}
    if kind == "ome05":
        del image["multiscales"][0]["version"]
        group.attrs["ome"] = {"version": "0.5"} | image
    else:
        group.attrs.update(image)
    return path


def damage(name: str, *kinds: str) -> Callable[[Damage], Damage]:
    """Register a damage."""

    def register(function: Damage) -> Damage:
        DAMAGES[name] = function, kinds or KINDS
        return function

    return register


def array_folder(path: Path) -> Path:
    """Folder of the array of level 0."""
    return path / "0" if (path / "0").is_dir() and not (path / ".zarray").exists() else path


def array_file(path: Path) -> Path:
    """Metadata file of the array."""
    folder = array_folder(path)
    return next(folder / name for name in ("zarr.json", ".zarray") if (folder / name).exists())


def group_file(path: Path) -> Path:
    """File of the OME attributes."""
    return next(path / name for name in (".zattrs", "zarr.json") if (path / name).exists())


def chunk_files(path: Path) -> list[Path]:
    """Files of the chunks."""
    folder = array_folder(path)
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr.")))


def edit_array(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the metadata of the array."""
    file = array_file(path)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_image(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the OME attributes."""
    file = group_file(path)
    content = json.loads(file.read_text())
    ome = content["attributes"]["ome"] if file.name == "zarr.json" else content
    change(ome)
    file.write_text(json.dumps(content))


def any_metadata(path: Path, draw: Random) -> Path:
    """Metadata file of the array, or that of the image."""
    return draw.choice([array_file(path), group_file(path)]) if (path / "0").is_dir() else array_file(path)


# --- text that is no metadata -----------------------------------------------------------------------------------------


@damage("truncated metadata")
def _(path: Path, draw: Random) -> None:
    file = any_metadata(path, draw)
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data) - 2)])


@damage("metadata that are no UTF-8")
def _(path: Path, draw: Random) -> None:
    file = any_metadata(path, draw)
    data = bytearray(file.read_bytes())
    at = data.index(b'"') + 1
    data[at:at] = bytes([0xFF, 0xFE, draw.randrange(128, 192)])
    file.write_bytes(bytes(data))


@damage("metadata nested too deep")
def _(path: Path, draw: Random) -> None:
    file, depth = any_metadata(path, draw), draw.randrange(20_000, 200_000)
    key = draw.choice(["attributes", "shape", "multiscales"])
    text = file.read_text().rstrip().removesuffix("}")
    file.write_text(f'{text}, "{key}": {"[" * depth}{"]" * depth}}}')


@damage("metadata of another type")
def _(path: Path, draw: Random) -> None:
    array_file(path).write_text(draw.choice(["[]", "3", '"text"', "null", "true", "[[1]]"]))


@damage("metadata of random bytes")
def _(path: Path, draw: Random) -> None:
    array_file(path).write_bytes(draw.randbytes(draw.randrange(400)))


# --- metadata of arrays that lie --------------------------------------------------------------------------------------


@damage("array metadata without a key")
def _(path: Path, draw: Random) -> None:
    keys = ["shape", "chunks", "dtype"] if array_file(path).name == ".zarray" else ["shape", "data_type", "chunk_grid"]
    edit_array(path, lambda content: content.pop(draw.choice(keys)))


@damage("array metadata with a value of another type")
def _(path: Path, draw: Random) -> None:
    wrong = draw.choice([None, "text", 1.5, True, {"a": 1}, [[1], [2]], [None, None, None], ["a", "b", "c"]])
    keys = ["shape", "chunks", "dtype"] if array_file(path).name == ".zarray" else ["shape", "data_type", "codecs"]
    edit_array(path, lambda content: content.update({draw.choice(keys): wrong}))


@damage("huge declared shape")
def _(path: Path, draw: Random) -> None:
    size = draw.choice([10**7, 2**31, 2**40, 2**62, 2**63, 10**30])
    edit_array(path, lambda content: content.update(shape=[draw.choice([3, size]), size, size]))


@damage("huge number of frames")
def _(path: Path, draw: Random) -> None:
    edit_array(path, lambda content: content.update(shape=[draw.choice([10**7, 2**31, 2**62]), 40, 36]))


@damage("negative or fractional shape")
def _(path: Path, draw: Random) -> None:
    edit_array(path, lambda content: content.update(shape=[3, draw.choice([-40, -1, 0, 40.5, -(2**70)]), 36]))


@damage("other number of dimensions")
def _(path: Path, draw: Random) -> None:
    edit_array(path, lambda content: content.update(shape=[3] * draw.choice([0, 1, 4, 7, 500])))


@damage("chunks that cannot be")
def _(path: Path, draw: Random) -> None:
    def change(content: dict[str, Any]) -> None:
        wrong = draw.choice([[0, 20, 36], [-1, 20, 36], [1, 2**40, 2**40], [2**63, 1, 1], [1, 20], [1, 1e9, 36], []])
        if "chunks" in content:
            content["chunks"] = wrong
        else:
            content["chunk_grid"]["configuration"]["chunk_shape"] = wrong

    edit_array(path, change)


@damage("chunks larger than memory")
def _(path: Path, draw: Random) -> None:
    def change(content: dict[str, Any]) -> None:
        huge = [1, draw.choice([10**6, 10**7]), draw.choice([10**6, 10**8])]
        if "chunks" in content:
            content["chunks"] = huge
            return
        for codec in content["codecs"]:
            if codec["name"] == "sharding_indexed":
                codec["configuration"]["chunk_shape"] = huge
        content["chunk_grid"]["configuration"]["chunk_shape"] = huge

    edit_array(path, change)


@damage("dtype that is none")
def _(path: Path, draw: Random) -> None:
    old = draw.choice(["|V8", "quux", "|O", "<u3", "|S0", [["a", "<i2"]], "<M8[D]", ""])
    new = draw.choice(["uint7", "quux", "string", "complex64", "r16", {"name": "struct"}, ""])
    edit_array(path, lambda content: content.update(dtype=old) if "dtype" in content else content.update(data_type=new))


@damage("dtype of another size than the chunks")
def _(path: Path, draw: Random) -> None:
    old, new = draw.choice([("<f8", "float64"), ("<u4", "uint32"), ("|u1", "uint8")])
    edit_array(path, lambda content: content.update(dtype=old) if "dtype" in content else content.update(data_type=new))


@damage("unknown format")
def _(path: Path, draw: Random) -> None:
    edit_array(path, lambda content: content.update(zarr_format=draw.choice([0, 1, 4, "3", None, 10**20])))


@damage("node of another type", "array3", "sharded3", "ome05")
def _(path: Path, draw: Random) -> None:
    edit_array(path, lambda content: content.update(node_type=draw.choice(["group", "plate", None, 3])))


@damage("fill value that cannot be")
def _(path: Path, draw: Random) -> None:
    wrong = draw.choice(["text", [1], {"a": 1}, 10**30, -5])
    edit_array(path, lambda content: content.update(fill_value=wrong))


# --- codecs -----------------------------------------------------------------------------------------------------------


def set_compressor(path: Path, old: Any, new: Any) -> None:
    """Name another compressor than that of the chunks."""

    def change(content: dict[str, Any]) -> None:
        if "compressor" in content:
            content["compressor"] = old
            return
        inner = next((codec for codec in content["codecs"] if codec["name"] == "sharding_indexed"), None)
        codecs = inner["configuration"]["codecs"] if inner else content["codecs"]
        codecs[-1] = new

    edit_array(path, change)


@damage("unknown codec")
def _(path: Path, draw: Random) -> None:
    name = draw.choice(["nonesuch", "", "../../etc/passwd", "os.system"])
    set_compressor(path, {"id": name}, {"name": name, "configuration": {}})


@damage("codec without sense")
def _(path: Path, draw: Random) -> None:
    wrong = draw.choice([3, "zstd", None, [], {"configuration": {}}, {"name": None, "id": None}])
    set_compressor(path, 3 if wrong is None else wrong, wrong)


@damage("wrong codec")
def _(path: Path, draw: Random) -> None:
    old, new = draw.choice(
        [
            ({"id": "gzip", "level": 1}, {"name": "gzip", "configuration": {"level": 1}}),
            (
                {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
                {
                    "name": "blosc",
                    "configuration": {
                        "cname": "lz4",
                        "clevel": 5,
                        "shuffle": "shuffle",
                        "typesize": 2,
                        "blocksize": 0,
                    },
                },
            ),
            (None, {"name": "crc32c"}),
        ]
    )
    set_compressor(path, old, new)


@damage("codec that runs a pickle", "array2", "ome04")
def _(path: Path, draw: Random) -> None:
    trap, codec = _Trap(path.parent).pickled(), {"id": "pickle", "protocol": 5}
    if draw.random() < 0.5:
        set_compressor(path, codec, None)
    else:
        edit_array(path, lambda content: content.update(filters=[codec]))
        trap = numcodecs.Zstd().encode(trap)
    for file in chunk_files(path):
        file.write_bytes(trap)


class _Trap:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pickled(self) -> bytes:
        text = f"open({str(self._folder / 'TRAPPED')!r}, 'w')"
        return b"cbuiltins\neval\n(V" + text.encode("raw_unicode_escape") + b"\ntR."


# --- chunks -----------------------------------------------------------------------------------------------------------


@damage("truncated chunk")
def _(path: Path, draw: Random) -> None:
    file = draw.choice(chunk_files(path))
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data))])


@damage("chunk of random bytes")
def _(path: Path, draw: Random) -> None:
    file = draw.choice(chunk_files(path))
    file.write_bytes(draw.randbytes(draw.choice([1, 15, 16, 17, 1000, 100_000])))


@damage("compressed bomb")
def _(path: Path, draw: Random) -> None:
    if draw.random() < 0.5:
        set_compressor(path, {"id": "gzip", "level": 1}, {"name": "gzip", "configuration": {"level": 1}})
        bomb = make_bomb("gzip")
    else:
        bomb = make_bomb("zstd")
    for file in chunk_files(path):
        file.write_bytes(make_shard([bomb, bomb]) if is_sharded(path) else bomb)


@damage("compressed bomb behind a good chunk", "sharded3")
def _(path: Path, draw: Random) -> None:
    for file in chunk_files(path):
        good = numcodecs.Zstd(3).encode(bytes(1440))
        file.write_bytes(make_shard([good, make_bomb("zstd")]))


def is_sharded(path: Path) -> bool:
    """Whether the chunks lie in shards."""
    return "sharding_indexed" in array_file(path).read_text()


def make_shard(chunks: list[bytes]) -> bytes:
    """A shard of encoded chunks, its index at the end with a checksum."""
    ends = np.cumsum([len(chunk) for chunk in chunks])
    index = b"".join(
        int(number).to_bytes(8, "little")
        for end, chunk in zip(ends, chunks, strict=True)
        for number in (end - len(chunk), len(chunk))
    )
    return b"".join(chunks) + bytes(index) + _checksum(index)


@cache
def make_bomb(codec: str) -> bytes:
    """A gigabyte of zeros, compressed."""
    if codec == "zstd":
        return bytes(numcodecs.Zstd(1).encode(bytes(1 << 30)))
    part, packer, checksum = bytes(1 << 24), zlib.compressobj(1, wbits=-15), 0
    packed = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)  # which may be repeated as it is
    for _ in range(64):
        checksum = zlib.crc32(part, checksum)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + 64 * packed + b"\x03\x00" + struct.pack("<II", checksum, 1 << 30)


@damage("blosc header that claims two gigabytes")
def _(path: Path, draw: Random) -> None:
    set_compressor(
        path,
        {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
        {
            "name": "blosc",
            "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0},
        },
    )
    data = bytearray(numcodecs.Blosc("lz4").encode(bytes(1440)))
    data[4:8] = draw.choice([2**31 - 17, 2**31 - 1, 2**32 - 1, 2**20]).to_bytes(4, "little")
    for file in chunk_files(path):
        file.write_bytes(bytes(data))


@damage("shard whose index lies", "sharded3")
def _(path: Path, draw: Random) -> None:
    file = draw.choice(chunk_files(path))
    data = bytearray(file.read_bytes())
    start = len(data) - 4 - 16 * 2
    for at in range(start, len(data) - 4, 8):
        data[at : at + 8] = draw.choice([0, 1, 2**31, 2**62, 2**63, 2**64 - 2]).to_bytes(8, "little")
    if draw.random() < 0.7:
        data[-4:] = data[start : start + 4]  # no checksum of theirs
    file.write_bytes(bytes(data))


@damage("chunk that is a folder")
def _(path: Path, draw: Random) -> None:
    file = draw.choice(chunk_files(path))
    file.unlink()
    file.mkdir()


@damage("chunk that links to itself")
def _(path: Path, draw: Random) -> None:
    file = draw.choice(chunk_files(path))
    file.unlink()
    file.symlink_to(file)


# --- OME metadata -----------------------------------------------------------------------------------------------------


@damage("scale that cannot be", *OME)
def _(path: Path, draw: Random) -> None:
    def change(ome: dict[str, Any]) -> None:
        transform = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
        wrong = draw.choice([-0.5, float("nan"), float("inf"), "half", None, [1], 10**400])
        transform["scale"][draw.randrange(3)] = wrong

    edit_image(path, change)


@damage("transformations that cannot be", *OME)
def _(path: Path, draw: Random) -> None:
    wrong = draw.choice(
        [
            [{"type": "rotation"}],
            [{"type": "scale", "scale": [1.0] * 7}],
            [{"type": "scale"}],
            {"type": "scale"},
        ]
    )
    edit_image(path, lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=wrong))


@damage("axes that cannot be", *OME)
def _(path: Path, draw: Random) -> None:
    wrong: Any = draw.choice(["ttx", "yx", "qyx", "tczyxs", "", None, 3, ["t", "y", "x"], [{}, {}, {}]])
    kinds = {"t": "time", "c": "channel"}
    if isinstance(wrong, str):
        wrong = [{"name": name, "type": kinds.get(name, "space")} for name in wrong]
    edit_image(path, lambda ome: ome["multiscales"][0].update(axes=wrong))


@damage("datasets that cannot be", *OME)
def _(path: Path, draw: Random) -> None:
    wrong = draw.choice([[], None, 3, [{}], [None], "0", [{"path": 3}]])
    edit_image(path, lambda ome: ome["multiscales"][0].update(datasets=wrong))


@damage("cyclic or foreign path of the level", *OME)
def _(path: Path, draw: Random) -> None:
    wrong = draw.choice(["", ".", "..", "../in.zarr", "../in.zarr/0", "0/../0", "/etc", "1", "0" * 5000, "a/b/c", "\0"])
    edit_image(path, lambda ome: ome["multiscales"][0]["datasets"][0].update(path=wrong))


@damage("cyclic link in the group", *OME)
def _(path: Path, draw: Random) -> None:
    folder = path / "0"
    for file in sorted(folder.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    folder.rmdir()
    folder.symlink_to(draw.choice([folder, path]))


@damage("multiscales that cannot be", *OME)
def _(path: Path, draw: Random) -> None:
    edit_image(path, lambda ome: ome.update(multiscales=draw.choice([None, 3, [], [None], [3], {}, "text", [[]]])))


def _checksum(data: bytes | bytearray) -> bytes:
    """CRC32C, which numcodecs 0.15 has only beside another library."""
    return int(google_crc32c.value(bytes(data))).to_bytes(4, "little")
