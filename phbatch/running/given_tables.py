"""Tables of statistics that are given to a run instead of measuring: of one image, or of many below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phbatch.frames.table import StatisticsRow, StatisticsTable
from phbatch.places.place import Place
from phbatch.places.table_file import MEASURED, POSITION, Row, parse_measurement, read_rows
from phbatch.words.axes import FrameGrid
from phbatch.words.errors import InputError
from phbatch.words.events import Notice


def read_table(path: Place, grid: FrameGrid, required: Sequence[str]) -> StatisticsTable:
    """Read the statistics of a run from a file of `phbatch stats`, or from another output of phbatch.

    Parameters
    ----------
    path : Place
        See `phbatch.places.table_file.read_rows`.
    grid : FrameGrid
        Frames of the run; rows of other frames are passed over.
    required : sequence of str
        Columns that the normalization needs.

    Raises
    ------
    InputError
        A frame or a needed value is missing, or the table is of many images.
    """
    table = StatisticsTable(grid)
    for row in read_rows(path):
        if position := row.get(POSITION):
            raise InputError(
                f"{path} is a table of many images ({POSITION} {position}), and the input is one; give a table of"
                " it, which `phbatch stats` of it makes."
            )
        _take(path, table, row, required)
    _require_all(path, table)
    return table


def read_tables(
    path: Place, grids: Mapping[str, FrameGrid], required: Mapping[str, Sequence[str]]
) -> dict[str, StatisticsTable | InputError]:
    """As `read_table`, of many images: by the path of each its table, or why it has none.

    Raises
    ------
    InputError
        The table cannot be read, or is of one image.
    """
    found: dict[str, StatisticsTable | InputError] = {name: StatisticsTable(grid) for name, grid in grids.items()}
    for row in read_rows(path):
        position = row.get(POSITION)
        if not position:
            raise InputError(
                f"{path} is a table of one image, without {POSITION}, and the input is many; give a table of them,"
                " which `phbatch stats` of them makes."
            )
        table = found.get(position)
        if isinstance(table, StatisticsTable):
            try:
                _take(path, table, row, required[position])
            except InputError as error:
                found[position] = error
    for name, table in found.items():
        if isinstance(table, StatisticsTable):
            try:
                _require_all(path, table)
            except InputError as error:
                found[name] = error
    return found


def _take(path: Place, table: StatisticsTable, row: Row, required: Sequence[str]) -> None:
    """Take in a row of an image, unless its frame is none of the run's."""
    table.measured = _one_measurement(path, table.measured, row.get(MEASURED) or "")
    try:
        parsed = StatisticsRow.from_dict({"z": 0} | dict(row) if table.grid.planes == 1 else row)
        wanted = parsed.key in table.grid
    except KeyError as error:
        raise InputError(
            f"{path} has no column {error}, which says the frame of a row; name it in the first line."
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} has a row that is no row of statistics ({error}); correct it.") from error
    if not wanted:
        return
    lacking = [name for name in required if row.get(name) is None and not parsed.statistics.flags]
    if lacking:
        raise InputError(
            f"{path} has no {lacking[0]} of frame {parsed.key}, which the normalization needs; measure it with"
            " `phbatch stats`, or flag the frame.",
            frame=str(parsed.key),
        )
    if table.knows(parsed.key) and str(table.statistics(parsed.key)) != str(parsed.statistics):
        raise InputError(f"{path} has two rows of frame {parsed.key} that differ; leave one.", frame=str(parsed.key))
    table.put(parsed.as_dict())


def _require_all(path: Place, table: StatisticsTable) -> None:
    missing = table.first_unknown()
    if missing is not None:
        raise InputError(
            f"{path} has no row of frame {missing}; measure all frames of the run with `phbatch stats`.",
            frame=str(missing),
        )


def _one_measurement(path: Place, before: str, said: str) -> str:
    if before and said and before != said:
        raise InputError(f"{path} has rows that were measured differently; measure all with one `phbatch stats`.")
    return before or said


def require_same_measurement(path: str, table: StatisticsTable, expected: str, required: Sequence[str]) -> list[Notice]:
    """Refuse a table of another image, or of frames that were prepared otherwise than those of the run.

    Parameters
    ----------
    path : str
        For the message.
    table : StatisticsTable
        That was read; what it does not say of itself is not held against it.
    expected : str
        How the run would measure, by `phbatch.places.table_file.describe_measurement`.
    required : sequence of str
        Columns that the normalization needs.

    Returns
    -------
    list of Notice
        Warnings of what may be right.

    Raises
    ------
    InputError
        What differs, and how to mend it.
    """
    said, ours = parse_measurement(table.measured), parse_measurement(expected)
    names = ["downscale", "illumination"]
    if not {"median", "mode", "mad"}.isdisjoint(required):
        names.insert(0, "sigma")
    if said.get("illumination") == ours["illumination"] != "none":
        names.append("illumination-mode")
    for name in names:
        if name in said and said[name] != ours[name]:
            raise InputError(
                f"{path} was measured with {name} {said[name]} and this run has {name} {ours[name]}; give --{name}"
                f" {said[name]}, or measure again with `phbatch stats`."
            )
    shapes = [facts.get("shape", ours["shape"]).split("x") for facts in (said, ours)]
    if shapes[0][1:] != shapes[1][1:]:
        raise InputError(
            f"{path} is of an image of {said['shape']} (tczyx) and the input is {ours['shape']}; measure the input with"
            " `phbatch stats`."
        )
    differing = [f"{name} {said[name]}" for name in ("input", "shape") if name in said and said[name] != ours[name]]
    if not differing:
        return []
    return [Notice(f"{path} is of {', '.join(differing)}: make sure that it is of the same image.", warning=True)]
