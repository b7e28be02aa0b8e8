"""Dask clusters of the tests: on free ports of this machine, never on that of somebody's dashboard."""

from __future__ import annotations

from typing import Any

from distributed import LocalCluster, Nanny, Scheduler, SpecCluster, Worker


def open_cluster(workers: int, threads: int = 1, **options: Any) -> LocalCluster:
    """Scheduler and workers in this process, which are reached through sockets all the same."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        **options,
    )


def open_mixed(processes: bool = False, **workers: dict[str, Any]) -> SpecCluster:
    """Workers of several kinds, by their names and the options of each; in this process, or each in one of its own."""
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    kind = Nanny if processes else Worker
    return SpecCluster(
        workers={name: {"cls": kind, "options": here | {"nthreads": 1} | options} for name, options in workers.items()},
        scheduler={"cls": Scheduler, "options": here},
        silence_logs=50,
    )
