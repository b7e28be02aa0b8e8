"""A part of an output that tasks share, and the proof of the whole where it was the last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from phbatch.places.place import Place
from phbatch.running.parts import do_part
from phbatch.tools.verify import verify
from phbatch.words.events import Listener, Stop
from phbatch.words.option_types import PartOptions
from phbatch.words.results import PartResult


class TaskOptions(PartOptions, total=False):
    """Settings, and what is none."""

    input: str | Path | None


def do_and_verify(
    output: Place, part: int | str, listener: Listener, stop: Stop, **options: Unpack[TaskOptions]
) -> PartResult:
    """Do what is missing of a part, and verify the output where that finished it; as `phbatch.run_part`."""
    result, finished = do_part(output, part, options, listener, stop)
    if not finished:
        return result
    return replace(result, verified=verify(output.path, storage_options=options.get("storage_options")))
