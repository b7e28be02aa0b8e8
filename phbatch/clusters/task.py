"""A task that shares an output with others: it does its part, and says and hears beside the output how it goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from phbatch.clusters.beside import Jobs
from phbatch.clusters.controller import Voice
from phbatch.clusters.kinds import KINDS
from phbatch.places.place import Place
from phbatch.tools.parts import TaskOptions, do_and_verify
from phbatch.words.errors import InterruptedRunError, first_line
from phbatch.words.events import Event, Listener, Stop, ignore, never
from phbatch.words.options import parse_options
from phbatch.words.results import PartResult


def run_part(
    output: str | Path,
    part: int | str,
    *,
    listener: Listener = ignore,
    stop: Stop = never,
    **options: Unpack[TaskOptions],
) -> PartResult:
    """Do what is missing of one part of an output that `begin_parts` made, with the settings that it was begun with.

    Tasks may run at once or one after the other, die, and be started again: each holds its part alone. The last one
    that ends finishes the output and verifies it; where that one died, any part that is run again does, and
    `phbatch.run` with the arguments of `begin_parts`. Where statistics must be known first, a task measures its part,
    and restores it once all parts are measured.

    Parameters
    ----------
    output : str or Path
        Of `begin_parts`.
    part : int or str
        From 1 on, as ``3`` or as ``"3/5"``; how many there are is known from the output.
    listener : callable
        Called with every event.
    stop : callable
        As for `phbatch.run`.
    **options
        `input` where it was moved; `model`, `memory`, `workers`, `threads`, `retries`, `storage_options` as for
        `phbatch.run`.

    Returns
    -------
    PartResult
        Its `waiting` names the parts that must be measured first; `missing` counts the units that others have to do.

    Raises
    ------
    OutputError
        Another task holds the part, a run the whole output, or it was not begun for parts.
    PhbatchError
        What `phbatch.run` would refuse: the input was changed, the model is gone.
    InterruptedRunError
        `stop` said so; what was finished is committed.

    Examples
    --------
    >>> import tempfile, zarr, numpy as np, phbatch
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (3, 1024, 1024)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames, chunks=(1, 1024, 1024))
    >>> begun = phbatch.begin_parts(folder / "a.zarr", parts=2, model="none", workers=1)
    >>> run_part(begun.output, 2).missing, run_part(begun.output, 1).verified.damages
    (2, ())
    """
    settings = parse_options("run_part", {name: value for name, value in options.items() if name != "input"})
    place = Place.at(output, settings.storage_options)
    jobs = Jobs(place)
    record = jobs.submitted()
    if not record:
        return do_and_verify(place, part, listener, stop, **options)
    who = f"part-{str(part).partition('/')[0]}-{os.getpid()}"  # of two tasks of one part, the second is refused
    voice = Voice(jobs, who, {"job": KINDS[record["kind"]].here()})
    voice.say("running")

    def hear(event: Event) -> None:
        voice.hear(event)
        listener(event)

    with voice.speaking():
        try:
            result = do_and_verify(place, part, hear, lambda: stop() or voice.cancelled(), **options)
        except InterruptedRunError as error:
            voice.say("cancelled" if voice.cancelled() else "stopped", error=str(error))
            raise
        except BaseException as error:
            voice.say("failed", error=first_line(error))
            raise
        voice.say("done" if result.exit_code == 0 else "ended with failures")
    return result
