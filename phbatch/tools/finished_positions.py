"""A run of many images as its output tells it afterwards, and each of its images as a run of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from phbatch.inputs.positions import find_positions
from phbatch.outputs.accounts import read_accounts
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.finished import Finished, FinishedPositions
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits, split_key
from phbatch.planning.units import Geometry
from phbatch.running.accept_positions import axes_of, geometries_of
from phbatch.tools.finished_run import FinishedRun
from phbatch.tools.unit_times import UnitTimes, read_units
from phbatch.words.errors import OutputError, PhbatchError
from phbatch.words.settings import parse_settings

_LEVELS = 3  # of a plate: row, well, field


class PositionsRun:
    """What the output of many images tells of the run that made it.

    Parameters
    ----------
    output : Place
        Its root.
    provenance : mapping
        What the root says of the run.
    input : str, optional
        The input, where it was moved.
    """

    def __init__(self, output: Place, provenance: Mapping[str, Any], input: str | None = None) -> None:
        self.output, self.provenance = output, provenance
        self.geometries = geometries_of(provenance)
        self.accounts = read_accounts(output)
        self._input = input or provenance["input"]
        self.input_problem = ""

    @cached_property
    def finished(self) -> FinishedPositions:
        """Units and statistics of all images."""
        return self._read[0]

    @property
    def times(self) -> UnitTimes:
        """When the units of all images were finished."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[FinishedPositions, UnitTimes]:
        units = PositionUnits(self.geometries)
        finished = FinishedPositions(units)
        return finished, read_units(Ledger(self.output).current(units), finished)

    @cached_property
    def input_root(self) -> Place | None:
        """What the paths of the input's images lie in; None where that is not there now."""
        settings = {name: self.provenance["settings"].get(name) for name in ("wells", "fields")}
        try:
            known = parse_settings(settings | {"storage_options": self.output.options})
            found = find_positions(self._input, known)
        except PhbatchError as error:
            self.input_problem = str(error)
            return None
        if found is None:
            self.input_problem = f"{self._input} holds no images, as it did; say where they are with --input."
        return found.root if found else None

    def image(self, path: str) -> FinishedRun:
        """One of the images, with the statistics that are known; units and times are told of all together."""
        finished = Finished(self.geometries[path])
        finished.table, finished.shown = self.finished.tables[path], self.finished.all_shown[path]
        finished.pieces = finished.table.known
        return _Image(self, path, finished, None)

    def image_alone(self, path: str, input: str | None = None) -> FinishedRun:
        """One of the images with its own units, of which the ledger of all tells; its input, where that was moved."""
        finished = Finished(self.geometries[path])
        return _Image(self, path, finished, read_units(self._records(path), finished), input)

    def _records(self, path: str) -> Iterator[dict[str, Any]]:
        for record in Ledger(self.output).current(PositionUnits({path: self.geometries[path]})):
            position, key = split_key(record["unit"])
            if position == path:
                yield record | {"unit": key}


class _Image(FinishedRun):
    """One of many images, as if it had been run alone."""

    def __init__(
        self, whole: PositionsRun, path: str, finished: Finished, times: UnitTimes | None, input: str | None = None
    ) -> None:
        provenance = whole.provenance
        kind = provenance["kinds"][provenance["positions"][path]["kind"]]
        cut, self._dtype = kind["cut"], kind.get("dtype", "numbers")
        tile = provenance["tile"] | {"shape": cut["tile"]} if provenance.get("tile") else None
        source = provenance["positions"][path]["input"]
        root = whole.input_root if input is None else None
        self.output = whole.output / path
        self.provenance = dict(provenance) | {
            "axes": axes_of(provenance, path),
            "geometry": whole.geometries[path].as_dict(),
            "input": str(root / source) if root else source,
            "tile": tile,
        }
        self.settings = provenance["settings"]
        self.geometry: Geometry = whole.geometries[path]
        self.finished = finished
        self.accounts = [_of_image(account, path) for account in whole.accounts]
        self.input_problem = whole.input_problem if input is None else ""
        self._input = input or self.provenance["input"]
        if times is not None:
            self.times = times
        if self.input_problem:
            self.source = None

    @property
    def dtype(self) -> str:
        """Of the input's pixels."""
        return str(self._dtype)


def _of_image(account: Mapping[str, Any], path: str) -> dict[str, Any]:
    failed = account.get("failed", {})
    return dict(account) | {"failed": {split_key(key)[1]: failed[key] for key in failed if split_key(key)[0] == path}}


def commonest(run: PositionsRun) -> list[str]:
    """Paths of the images of the kind that most are of."""
    kinds = Counter(found["kind"] for found in run.provenance["positions"].values())
    kind = kinds.most_common(1)[0][0]
    return [path for path, found in run.provenance["positions"].items() if found["kind"] == kind]


def open_finished(output: Place, input: str | None = None) -> FinishedRun | PositionsRun:
    """The run that made an output: of one image, of many, or of one among them, where its path is given.

    Raises
    ------
    OutputError
        There is no output of phbatch.
    """
    try:
        attributes = read_output_attributes(output)
    except OutputError:
        found = find_whole(output)
        if found is None:
            raise
        run, path = found
        if path not in run.geometries:
            example = f"{run.output}/{next(iter(run.geometries))}"
            raise OutputError(
                f"{output} is no image of the output {run.output}; give that, or one of its images, such as {example}."
            ) from None
        return run.image_alone(path, input)
    if attributes is not None and "kinds" in attributes:
        return PositionsRun(output, attributes, input)
    return FinishedRun(output, input)


def find_whole(output: Place) -> tuple[PositionsRun, str] | None:
    """The output of many images that a place lies in, and where it lies in it."""
    above, path = output.path.rstrip("/"), ""
    for _ in range(_LEVELS):
        above, _, name = above.rpartition("/")
        path = f"{name}/{path}".rstrip("/")
        if not above or above.endswith(":/"):
            return None
        place = Place.at(above, output.options)
        with suppress(OutputError):
            attributes = read_output_attributes(place)
            if attributes is not None and "kinds" in attributes:
                return PositionsRun(place, attributes), path
    return None
