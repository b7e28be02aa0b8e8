"""What was measured on this machine before, in small JSON files of the user's cache directory.

A file that cannot be read is ignored, and one that cannot be written is not missed: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path


@dataclass(frozen=True)
class Remembered:
    """Numbers by name, of one case.

    Attributes
    ----------
    kind : str
        What was measured; the file's name begins with it.
    case : mapping
        All that the numbers depend on, as plain values.
    folder : Path or None
        Default: ``phbatch`` in the user's cache directory.
    """

    kind: str
    case: Mapping[str, Any]
    folder: Path | None = None

    @property
    def path(self) -> Path:
        """The file of the case."""
        digest = hashlib.sha256(json.dumps(self.case, sort_keys=True).encode()).hexdigest()[:16]
        return (self.folder or user_cache_path("phbatch")) / f"{self.kind}-{digest}.json"

    def recall(self) -> dict[str, float] | None:
        """The numbers; None where nobody measured, or the file is broken."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            relative = {str(name): float(number) for name, number in stored["relative"].items()}
            same = stored["case"] == self.case
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return relative if same and all(map(math.isfinite, relative.values())) else None

    def write(self, relative: Mapping[str, float]) -> None:
        """Remember the numbers; other processes see all of them or none."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.path.parent, prefix=self.path.stem, delete=False
            ) as file:
                json.dump({"case": self.case, "relative": relative}, file, indent=1)
            Path(file.name).replace(self.path)
