"""Preloaded by workers: a line in a file for every network that is loaded, with the process and what it may see."""

import os
from pathlib import Path
from typing import Any

from phbatch.network.predictor import Predictor


def dask_setup(worker: Any) -> None:
    """Count from now on."""
    load = Predictor.__init__

    def counting(self: Predictor, *arguments: Any, **options: Any) -> None:
        with Path(os.environ["COUNT_LOADS"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\n")
        load(self, *arguments, **options)

    Predictor.__init__ = counting  # type: ignore[method-assign]
