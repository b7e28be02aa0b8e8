"""The output of many images: their groups and those above them, one ledger and one table of statistics at the root."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.table import StatisticsTable
from phbatch.inputs.positions import Positions
from phbatch.kernels.stats import FLAG_NAMES
from phbatch.outputs.audit import record_small_objects
from phbatch.outputs.completing import display_windows, needs_windows
from phbatch.outputs.creation import (
    ATTRIBUTE,
    ZarrFormat,
    group_documents,
    holds_pixels,
    make_documents,
    read_output_attributes,
    remove_output,
)
from phbatch.outputs.image import OutputImage, describe_image, root_attributes
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.outputs.writer import Sink
from phbatch.places.lock import LOCK
from phbatch.places.ome import Version
from phbatch.places.own import PRIVATE, ROOT_DOCUMENTS, require_own
from phbatch.places.place import Place
from phbatch.places.plates import make_group_attributes
from phbatch.places.table_file import STATISTICS


@dataclass(frozen=True)
class PositionsOutput:
    """What of an output of many images is no pixel.

    Attributes
    ----------
    place : Place
        Of the root.
    positions : Positions
        Of the input.
    images : mapping of str to OutputImage
        By their paths in the output.
    version : {"0.4", "0.5"}
        Of OME-NGFF, everywhere in the output.
    """

    place: Place
    positions: Positions
    images: Mapping[str, OutputImage]
    version: Version
    _written: dict[str, bytes] = field(default_factory=dict)
    _made: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def create(self, provenance: Mapping[str, Any], known: Iterable[str] = (), changed: Collection[str] = ()) -> None:
        """Make the metadata appear, but that of images which are known and not changed; the root's own come last."""
        self._written.update(self._group_documents({"status": "creating"} | {"positions": provenance["positions"]}))
        root = {key: data for key, data in self._written.items() if key in ROOT_DOCUMENTS}
        if not known:
            self._write(root)
        there = {path for path in known if path not in changed}
        new: dict[str, bytes] = {}
        for path, image in self.images.items():
            documents = self._image_documents(path, image)
            self._written.update(documents)
            if path not in there:
                new |= documents
        groups = {key: data for key, data in self._written.items() if key not in root}
        self._write({key: data for key, data in groups.items() if key in new or not _is_of(key, self.images)})
        self.say(provenance)
        self.commit(complete=False)

    def say(self, provenance: Mapping[str, Any]) -> None:
        """Write what the root says of the run."""
        documents = self._group_documents(provenance)
        root = {key: documents[key] for key in ROOT_DOCUMENTS if key in documents}
        self._written.update(root)
        self._write(root)

    def finish(
        self,
        provenance: Mapping[str, Any],
        tables: Mapping[str, StatisticsTable],
        shown: Mapping[str, StatisticsTable],
    ) -> None:
        """Write the statistics of all images and the windows of their channels, and say that the output is complete."""
        columns = _columns(tables)
        facts = {"flag_bits": list(FLAG_NAMES), "frame_axes": ["position", "t", "c", "z"], "positions": [*tables]}
        Sink(self.place).write_table(STATISTICS, columns, facts | {"rows": sum(map(len, tables.values()))})
        changed: dict[str, bytes] = {}
        for path, image in self.images.items():
            if not needs_windows(image):
                continue
            channels = tuple(display_windows(image, tables[path], shown[path]))
            windowed = replace(image, metadata=replace(image.metadata, channels=channels))
            documents = {
                f"{path}/{name}": data
                for name, data in group_documents(image.zarr_format, root_attributes(windowed)).items()
            }
            changed |= {key: data for key, data in documents.items() if self._written.get(key) != data}
            self._written.update(documents)
        self._write(changed)
        Sink(self.place).remove_scratch()
        self.say(dict(provenance) | {"status": "complete"})
        self.commit(complete=True)

    def commit(self, *, complete: bool) -> None:
        """Put metadata and tables into the ledger, and whether they are the last ones."""
        commit_positions(self.place, self.images, complete=complete, durable=self._written)

    def _group_documents(self, provenance: Mapping[str, Any]) -> dict[str, bytes]:
        groups: dict[str, dict[str, Any]] = {path: {} for path in _folders(self.images)} | make_group_attributes(
            self.positions.kind,
            self.positions.attributes,
            self.positions.wells,
            list(self.images),
            self.version,
        )
        groups[""] = dict(groups.get("", {})) | {ATTRIBUTE: dict(provenance)}
        zarr_format: ZarrFormat = 2 if self.version == "0.4" else 3
        found: dict[str, bytes] = {}
        for path, attributes in (groups | {PRIVATE: {}}).items():
            found |= {
                f"{path}/{name}".lstrip("/"): data for name, data in group_documents(zarr_format, attributes).items()
            }
        return found

    def _image_documents(self, path: str, image: OutputImage) -> dict[str, bytes]:
        kind = repr(image)
        if kind not in self._made:
            groups, layouts = describe_image(image)
            self._made[kind] = make_documents(image.zarr_format, groups, layouts)
        return {f"{path}/{key}": data for key, data in self._made[kind].items()}

    def _write(self, documents: Mapping[str, bytes]) -> None:
        self.place.write_together(documents)


def commit_positions(output: Place, paths: Iterable[str], *, complete: bool, durable: Mapping[str, Any] = {}) -> None:
    """As `phbatch.outputs.image.commit_metadata`, of an output of many images."""
    images = set(paths)

    def is_image(path: str) -> bool:
        parts = path.split("/")
        return any("/".join(parts[:at]) in images and holds_pixels("/".join(parts[at:])) for at in range(1, len(parts)))

    found = record_small_objects(output, is_image, durable)
    Ledger(output).commit({"unit": METADATA, "complete": complete} | found)


def remove_positions(output: Place) -> None:
    """Remove an output of many images; where anything lies in it that no run wrote, nothing is removed."""
    recorded = read_output_attributes(output)
    if recorded is None:
        return
    paths = list(recorded.get("positions", ()))
    folders = _folders(paths)
    inside = {
        path: {PurePosixPath(each).name for each in (*paths, *folders) if _parent(each) == path} for path in folders
    }
    inside[""] = {each.split("/")[0] for each in paths} | ({"OME"} if paths else set())
    for path in paths:
        require_own(output / path)
    for path, names in inside.items():
        require_own(output / path, names)
    if not output.exists(LOCK):
        output.write(LOCK, b"{}")
    for path in paths:
        output.remove_folder(path)
    remove_output(output, inside[""])


def _folders(paths: Iterable[str]) -> list[str]:
    """The groups between the root and the images."""
    found = {}
    for path in paths:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                found[str(parent)] = True
    return sorted(found)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _is_of(key: str, images: Mapping[str, OutputImage]) -> bool:
    """Whether a document is of an image."""
    parts = key.split("/")
    return any("/".join(parts[:count]) in images for count in range(1, len(parts)))


def _columns(tables: Mapping[str, StatisticsTable]) -> Iterable[tuple[str, NDArray[Any]]]:
    """All tables one below the other: what a column is named, and its values."""
    each: Sequence[StatisticsTable] = list(tables.values())
    yield "position", np.repeat(np.arange(len(each), dtype=np.int32), [len(table) for table in each])
    take: Callable[[StatisticsTable, str], NDArray[Any]] = lambda table, name: (  # noqa: E731
        table.flag_bits if name == "flags" else table.column(name)
    )
    for name in max((table.names for table in each), key=len):
        yield name, np.concatenate([take(table, name) for table in each])
