"""The graph of a run, drawn for a few of its units: with graphviz where it is there, else as text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask
from dask.delayed import Delayed

from phbatch.computing.graph import Call, Graph, build_graph, join, name_units, stage_of, turn_there
from phbatch.computing.measuring import find_scale, measure_unit, merge_pools, pool_unit, scan_unit
from phbatch.computing.outcome import attempt
from phbatch.computing.tasks import restore_unit
from phbatch.planning.unit import Unit
from phbatch.running.begin import AcceptedRun, must_scan
from phbatch.words.errors import OutputError, UsageError, first_line
from phbatch.words.events import Notice

DRAWN = 4
"""Units that are drawn."""

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
    path = Path(path)
    if path.suffix.lower() not in (*_PICTURES, ".txt"):
        raise UsageError(f"--graph {path} ends in none of {', '.join(_PICTURES)} and .txt; give it such an ending.")
    graph = graph_of(accepted, accepted.resolved.geometry.units[:DRAWN])
    said = f"graph of the first {min(DRAWN, len(accepted.resolved.geometry.units))} units"
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
    measures = recipe.passes > 1 and accepted.given is None and not recipe.in_bands
    graph: Graph = {}
    before: list[str] = []
    if must_scan(accepted):
        before = _add(graph, accepted, scan_unit, units, before, "require-finite")
    if measures:
        before = _add(graph, accepted, measure_unit, units, before, "judge-series")
        if recipe.scope != "image":
            before = _add(graph, accepted, pool_unit, units, before, "pool-join")
            graph["pool-join"] = (partial(join, merge_pools), graph["pool-join"][1])
    elif (
        accepted.given is None
        and not (accepted.continued or recipe.in_bands)
        and recipe.rule.method not in ("fixed", "none")
    ):
        before = _add(graph, accepted, find_scale, units[:1], before, "require-scale")
    if recipe.in_bands and accepted.given is None:
        graph["measure"] = (_here("measure"), before)
        before = ["measure"]
    _add(graph, accepted, restore_unit, units, before, "commit")
    return graph


def _add(
    graph: Graph, accepted: AcceptedRun, task: Any, units: Sequence[Unit], before: list[str], end: str
) -> list[str]:
    """Add a stage, between what it waits for and what waits for it."""
    stage, done = stage_of(task), partial(attempt, task, accepted.job)
    added = build_graph(turn_there, [Call(name_units(stage, [unit]), done, [unit]) for unit in units])
    for key, call in added.items():
        graph[key] = (*call, before) if before else call
    graph[end] = (_here(end), list(added))
    return [end]


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
