"""The profile of a site: a TOML file with what a cluster is asked for there, so that nobody types it twice.

::

    kind = "slurm"            # or "slurm-array", "kubernetes"
    workers = 8
    gpus_per_worker = 1
    walltime = "4h"
    partition = "gpu"
    setup = ["module load cuda"]

    [run]                     # options of `phbatch run`
    precision = "float16"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from phbatch.clusters.settings import CLUSTER, ClusterSettings
from phbatch.words.errors import UsageError
from phbatch.words.settings import SETTINGS


@dataclass(frozen=True)
class Profile:
    """What a file says.

    Attributes
    ----------
    kind : str or None
        Of the cluster.
    cluster : dict
        Settings of `ClusterSettings`, as they are written.
    run : dict
        Options of a run, as they are written.
    """

    kind: str | None = None
    cluster: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: Profile) -> Profile:
        """Both, of which the other wins."""
        return Profile(other.kind or self.kind, self.cluster | other.cluster, self.run | other.run)


def profile_folders() -> Iterator[Path]:
    """Where a profile is looked for by its name: here, then the user's settings, then those of the machine."""
    yield Path.cwd()
    yield platformdirs.user_config_path("phbatch", appauthor=False)
    yield platformdirs.site_config_path("phbatch", appauthor=False)


def find_profile(name: str) -> Path:
    """The file of a profile: ``NAME.toml`` in the first of `profile_folders` that has it, or a path that ends so.

    Raises
    ------
    UsageError
        There is none.
    """
    if name.endswith(".toml"):
        return Path(name).expanduser()
    folders = [*profile_folders()]
    for folder in folders:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise UsageError(
        f"--profile {name} is not there; write {name}.toml into one of {', '.join(map(str, folders))}, or give a path"
        " that ends in .toml."
    )


def read_profile(name: str, option: str = "--profile") -> Profile:
    """Read a profile by its name or path.

    Raises
    ------
    UsageError
        It is not there, is no TOML, or holds a key that is none.
    """
    path = find_profile(name)
    try:
        with path.open("rb") as file:
            stored = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path} cannot be read as TOML ({error}); correct it or leave it out.") from error
    kind, run = stored.pop("kind", None), stored.pop("run", {})
    for names, table, command in ((stored, CLUSTER, "submit"), (run, SETTINGS, "run")):
        unknown = sorted(set(names) - table.keys())
        if unknown:
            raise UsageError(f"{unknown[0]!r} in {path} is no option of `phbatch {command} --help`; correct its name.")
    return Profile(kind, stored, run)


def write_profile(kind: str, cluster: ClusterSettings, run: Mapping[str, Any]) -> str:
    """The text of a profile: what `read_profile` reads again.

    Examples
    --------
    >>> from phbatch.clusters.settings import parse_cluster
    >>> print(write_profile("slurm", parse_cluster({"workers": 8, "setup": "module load cuda"}), {"tile": 512}))
    kind = "slurm"
    workers = 8
    setup = ["module load cuda"]
    <BLANKLINE>
    [run]
    tile = 512
    <BLANKLINE>
    """
    given = cluster.model_dump(mode="json", exclude_defaults=True)
    lines = [_line("kind", kind), *(_line(*each) for each in given.items()), "", "[run]"]
    return "\n".join([*lines, *(_line(name, value) for name, value in run.items() if value is not None)]) + "\n"


def _line(name: str, value: Any) -> str:
    return f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}"  # a string of JSON is one of TOML
