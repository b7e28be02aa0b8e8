"""The kinds of clusters, by the names that a person gives."""

from __future__ import annotations

from phbatch.clusters.base import Kind
from phbatch.clusters.job_array import SlurmArray
from phbatch.clusters.kubernetes import Kubernetes
from phbatch.clusters.slurm import Slurm
from phbatch.words.errors import UsageError

KINDS: dict[str, Kind] = {"slurm": Slurm(), "slurm-array": SlurmArray(), "kubernetes": Kubernetes()}
"""Every kind; `--cluster` names one of them, or a profile that does."""


def kind_named(name: str | None) -> Kind:
    """The kind of that name.

    Raises
    ------
    UsageError
        There is none.
    """
    if name is None:
        raise UsageError(f"no cluster is named; give --cluster {'|'.join(KINDS)}, or --profile NAME with a kind.")
    if name not in KINDS:
        raise UsageError(
            f"--cluster {name} is no kind of cluster; give {', '.join(KINDS)}, or a file that ends in .toml."
        )
    return KINDS[name]
