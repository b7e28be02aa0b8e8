"""Whether a tile and a batch fit into a GPU's memory, tried in a child process: a framework may abort, and not raise.

``python -m phbatch.network.tuning.memory_probe`` is the child: it predicts one batch of zeros and exits with 0, or
does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phbatch.network.backend import start_sparingly
from phbatch.network.predictor import Predictor
from phbatch.words.choices import Backend, Precision

TIMEOUT_S = 300.0
"""A child that takes longer counts as one that does not fit."""

COMMAND: Sequence[str] = (sys.executable, "-m", "phbatch.network.tuning.memory_probe")


def fits_on_device(
    folder: Path, tile: tuple[int, ...], batch: int, backend: Backend, form: str, precision: Precision
) -> bool:
    """Whether a child process could predict a batch; parameters as for `phbatch.network.predictor.Predictor`."""
    arguments = json.dumps([str(folder), tile, batch, backend, form, precision])
    try:
        child = subprocess.run([*COMMAND, arguments], capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except (subprocess.TimeoutExpired, OSError):
        return False
    return child.returncode == 0


def main() -> None:
    """Predict one batch."""
    start_sparingly()
    folder, tile, batch, backend, form, precision = json.loads(sys.argv[1])
    predictor = Predictor(Path(folder), tuple(tile), batch, backend, form, precision)
    predictor(np.zeros((batch, *tile, predictor.model.config.n_channel_in), np.float32))
    sys.exit(predictor.halved)


if __name__ == "__main__":
    main()
