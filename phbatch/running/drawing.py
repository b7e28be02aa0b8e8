"""The graph of a run, drawn for a few of its units: with graphviz where it is there, else as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import dask
from dask.delayed import Delayed

from phbatch.computing.graph import Call, Graph, build_graph, join, name_units, stage_of, turn_there
from phbatch.computing.measuring import (
    find_scale,
    measure_unit,
    merge_pools,
    pool_unit,
    scan_position_unit,
    scan_unit,
)
from phbatch.computing.outcome import attempt
from phbatch.computing.tasks import restore_position_unit, restore_unit
from phbatch.planning.unit import Unit
from phbatch.running.accept_positions import AcceptedPositions
from phbatch.running.begin import AcceptedRun, must_scan
from phbatch.words.errors import OutputError, UsageError, first_line
from phbatch.words.events import Notice

DRAWN = 4
"""Units that are drawn."""

_IMAGES = 2  # of many, of which some are drawn

_PICTURES = (".svg", ".png", ".pdf")


def draw_plan(accepted: AcceptedRun, path: str | Path) -> Notice:
    """Draw what a run would compute for its first units.

    Parameters
    ----------
    accepted : AcceptedRun
        The run.
    path : str or Path
        A file that ends in .svg, .png or .pdf, or in .txt for the text form, which takes the place of a picture where
        graphviz is missing.

    Returns
    -------
    Notice
        Where the graph is.

    Raises
    ------
    UsageError
        `path` has another ending.
    OutputError
        It cannot be written.
    """
    units = accepted.resolved.geometry.units[:DRAWN]
    return _draw(graph_of(accepted, units), f"graph of the first {len(units)} units", Path(path))


def draw_plans(accepted: AcceptedPositions, path: str | Path) -> Notice:
    """As `draw_plan`, of the first units of the first images of a run of many."""
    some = first_units(accepted)
    said = f"graph of the first {sum(map(len, some.values()))} units of {' and '.join(some)}"
    return _draw(graph_of_positions(accepted, some), said, Path(path))


def _draw(graph: Graph, said: str, path: Path) -> Notice:
    if path.suffix.lower() not in (*_PICTURES, ".txt"):
        raise UsageError(f"--graph {path} ends in none of {', '.join(_PICTURES)} and .txt; give it such an ending.")
    try:
        if path.suffix.lower() in _PICTURES:
            try:
                dask.visualize(
                    Delayed("commit", graph),
                    filename=str(path.with_suffix("")),
                    format=path.suffix[1:].lower(),
                    engine="graphviz",
                    collapse_outputs=True,
                    function_attributes={key: {"label": key, "shape": "box"} for key in graph},
                )
            except (ImportError, RuntimeError):
                path = path.with_suffix(".txt")
                said += ", as text since graphviz is missing (`pip install graphviz`, and its program dot)"
            else:
                return Notice(f"{said}: {path}.")
        path.write_text(as_text(graph), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({first_line(error)}); give --graph another place.") from error
    return Notice(f"{said}: {path}.")


def graph_of(accepted: AcceptedRun, units: Sequence[Unit]) -> Graph:
    """The tasks of some units, stage by stage, by what a dashboard calls them.

    A run computes one stage after the other, and what joins them is done by whoever called it.
    """
    recipe = accepted.resolved.recipe
    graph: Graph = {}
    before: list[str] = []
    if must_scan(accepted):
        before = _join(graph, "require-finite", _add(graph, accepted, scan_unit, units, before))
    if recipe.passes > 1 and accepted.given is None and not recipe.in_bands:
        before = _measure(graph, accepted, units, before)
    elif (
        accepted.given is None
        and not (accepted.continued or recipe.in_bands)
        and recipe.rule.method not in ("fixed", "none")
    ):
        before = _join(graph, "require-scale", _add(graph, accepted, find_scale, units[:1], before))
    if recipe.in_bands and accepted.given is None:
        before = _join(graph, "measure", before)
    _join(graph, "commit", _add(graph, accepted, restore_unit, units, before))
    return graph


def graph_of_positions(accepted: AcceptedPositions, some: Mapping[str, Sequence[Unit]]) -> Graph:
    """As `graph_of`, of units of several images, by their paths: what is measured of an image joins in its own name."""
    graph: Graph = {}
    before: list[str] = []
    scanned = [(accepted.runs[path], units) for path, units in some.items() if must_scan(accepted.runs[path])]
    if scanned:
        keys = [key for run, units in scanned for key in _add(graph, run, scan_position_unit, units, before)]
        before = _join(graph, "require-finite", keys)
    restored: list[str] = []
    for path, units in some.items():
        run = accepted.runs[path]
        measures = run.resolved.recipe.passes > 1 and run.given is None
        known = _measure(graph, run, units, before, f"-{path}") if measures else before
        restored += _add(graph, run, restore_position_unit, units, known)
    _join(graph, "commit", restored)
    return graph


def first_units(accepted: AcceptedPositions) -> dict[str, list[Unit]]:
    """Those that are drawn, by the path of their image, in the names that they have among all."""
    paths = list(islice(accepted.runs, _IMAGES))
    found = {path: accepted.runs[path].resolved.geometry.units[: DRAWN // len(paths)] for path in paths}
    return {path: [replace(unit, key=f"{path}/{unit.key}") for unit in units] for path, units in found.items()}


def _measure(
    graph: Graph, accepted: AcceptedRun, units: Sequence[Unit], before: list[str], image: str = ""
) -> list[str]:
    """Add the stages that measure an image; what they join in ends in its name."""
    before = _join(graph, f"judge-series{image}", _add(graph, accepted, measure_unit, units, before))
    if accepted.resolved.recipe.scope != "image":
        pooled = _add(graph, accepted, pool_unit, units, before)
        before = [f"pool-join{image}"]
        graph[before[0]] = (partial(join, merge_pools), pooled)
    return before


def _add(graph: Graph, accepted: AcceptedRun, task: Any, units: Sequence[Unit], before: list[str]) -> list[str]:
    """Add the tasks of a stage, which wait for those before; their names."""
    stage, done = stage_of(task), partial(attempt, task, accepted.job)
    added = build_graph(turn_there, [Call(name_units(stage, [unit]), done, [unit]) for unit in units])
    for key, call in added.items():
        graph[key] = (*call, before) if before else call
    return list(added)


def _join(graph: Graph, name: str, awaited: list[str]) -> list[str]:
    """Add what waits for a stage; its name, for the next one."""
    graph[name] = (_here(name), awaited)
    return [name]


def _here(name: str) -> Any:
    """What whoever called the run does between the stages, under its name."""

    def here(*_: Any) -> None:
        """Nothing: the graph is drawn, and not computed."""

    here.__name__ = name.replace("-", "_")
    return here


def as_text(graph: Graph) -> str:
    """One line for each task: its name, and those that it waits for.

    Examples
    --------
    >>> print(as_text({"restore-t0/c0": (len,), "commit": (len, ["restore-t0/c0"])}), end="")
    restore-t0/c0
    commit <- restore-t0/c0
    """
    lines = []
    for key, (_, *arguments) in graph.items():
        awaited = [name for each in arguments if isinstance(each, list) for name in each]
        lines.append(f"{key} <- {', '.join(awaited)}" if awaited else key)
    return "\n".join(lines) + "\n"
