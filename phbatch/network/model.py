"""A model folder: ``config.json`` and weights as CSBDeep writes them, and ``phbatch.json`` about the training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phbatch.network.unet import NetworkConfig, parse_config
from phbatch.words.errors import ModelError
from phbatch.words.given import first_problem
from phbatch.words.normalization import Normalization

BUNDLED = Path(__file__).parents[1] / "models"
"""Folder of the models that come with phbatch."""

DEFAULT_MODEL = "phase-2d-real"
"""Bundled model that is used where none is named."""

SIDECAR = "phbatch.json"
_BEST = "weights_best.h5"
_WEIGHT_PATTERNS = ("*.h5", "*.hdf5")  # those of CSBDeep


@dataclass(frozen=True)
class Model:
    """A CARE model on disk.

    Attributes
    ----------
    name : str
        Of the folder.
    folder : Path
        Where it is.
    config : NetworkConfig
        The architecture.
    weights_path : Path
        The weights that CSBDeep itself would load: of the HDF5 files with ``best`` in their name, or else of all, the
        newest.
    sha256 : str
        Of the weight file, in hexadecimal.
    normalization : Normalization or None
        The rule of the training, from ``phbatch.json``; None where nobody wrote it down.
    facts : mapping
        All of ``phbatch.json``.
    choice : str
        Which weights were chosen, and why; empty where there was no choice but ``weights_best.h5``.
    """

    name: str
    folder: Path
    config: NetworkConfig
    weights_path: Path
    sha256: str
    normalization: Normalization | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    choice: str = ""

    @property
    def reference(self) -> Path:
        """What opens it on another machine: one that comes with phbatch lies where phbatch is installed there."""
        return Path(self.name) if self.folder == BUNDLED / self.name else self.folder


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with phbatch."""
    return tuple(sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "config.json").exists()))


def find_folder(name: str | Path) -> Path:
    """Folder of a model, by its name where it comes with phbatch, else by its path."""
    return BUNDLED / name if str(name) in bundled_models() else Path(name).expanduser().resolve()


def open_model(name: str | Path) -> Model:
    """Open a bundled model or a CSBDeep model folder; no network is built and no framework is loaded.

    Parameters
    ----------
    name : str or Path
        A name of `bundled_models`, or a folder.

    Raises
    ------
    ModelError
        No such model, no configuration, no weights, or a folder of another kind.

    Examples
    --------
    >>> open_model("phase-2d").config.n_dim
    2
    """
    folder = find_folder(name)
    if not folder.is_dir():
        raise ModelError(
            f"model {str(name)!r} is no folder and no bundled model; the bundled ones: {', '.join(bundled_models())}."
        )
    _refuse_other_kinds(folder)
    document = _read_json(folder / "config.json")
    config = parse_config(document)
    weights_path, choice = _find_weights(folder, document.get("train_checkpoint"))
    sidecar = folder / SIDECAR
    facts = _read_json(sidecar) if sidecar.exists() else {}
    return Model(
        name=folder.name,
        folder=folder,
        config=config,
        weights_path=weights_path,
        sha256=hashlib.sha256(weights_path.read_bytes()).hexdigest(),
        normalization=_read_normalization(facts, sidecar),
        facts=facts,
        choice=choice,
    )


def _find_weights(folder: Path, checkpoint: Any) -> tuple[Path, str]:
    """The weights that CSBDeep's ``CARE(None, name)`` loads; of two of one age the one that ``config.json`` names."""
    files = [
        path
        for pattern in _WEIGHT_PATTERNS
        for path in sorted(folder.glob(pattern))
        if path.is_file() and not path.name.startswith("._")  # what macOS leaves on other file systems
    ]
    if not files:
        others = ", ".join(sorted(path.name for path in folder.iterdir())[:6])
        raise ModelError(
            f"{folder} holds no weights; copy {_BEST} or another .h5 or .hdf5 file of CSBDeep beside its config.json"
            f" (it holds {others})."
        )
    best = [path for path in files if "best" in path.name]
    chosen = max(best or files, key=lambda path: (path.stat().st_mtime, path.name == checkpoint, path.name == _BEST))
    left = [path.name for path in files if path != chosen]
    if chosen.name == _BEST and len(best) < 2:
        return chosen, ""
    reason = f"and not {', '.join(left[:4])}" if left else "the only weights there are"
    rule = f" (as CSBDeep: {'best in its name' if best else 'no name with best'}, the newest)" if left else ""
    return chosen, f"{chosen.name}, {reason}{rule}"


def _refuse_other_kinds(folder: Path) -> None:
    if (folder / "config.json").exists():
        return
    if (folder / "saved_model.pb").exists():
        raise ModelError(
            f"{folder} is a TensorFlow SavedModel; give the CSBDeep folder with config.json and weights_best.h5."
        )
    if (folder / "rdf.yaml").exists() or (folder / "bioimageio.yaml").exists():
        raise ModelError(
            f"{folder} is a bioimage.io package; give the CSBDeep folder with config.json and weights_best.h5."
        )
    raise ModelError(
        f"{folder} holds no config.json; give a CSBDeep model folder with config.json and weights_best.h5."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no readable JSON ({error}); copy the model folder again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__} and not an object; copy the model folder again.")
    return content


def _read_normalization(facts: Mapping[str, Any], path: Path) -> Normalization | None:
    if "normalization" not in facts:
        return None
    try:
        return Normalization.model_validate(facts["normalization"])
    except ValidationError as error:
        raise ModelError(f"normalization in {path} is not valid: {first_problem(error)}") from error
