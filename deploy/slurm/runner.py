"""What every task of `runner.sh` begins with; Dask's SLURMRunner decides which one it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dask_jobqueue.slurm import SLURMRunner
from distributed import Client

import phbatch

if __name__ == "__main__":
    file = Path(f"scheduler-{os.environ['SLURM_JOB_ID']}.json").absolute()
    network = {"interface": os.environ.get("PHBATCH_INTERFACE")}  # such as ib0
    workers = network | {"nthreads": int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))}
    with (
        SLURMRunner(scheduler_file=str(file), scheduler_options=network, worker_options=workers) as runner,
        Client(runner) as client,
        phbatch.report.ProgressReport() as listener,
    ):
        client.wait_for_workers(runner.n_workers)
        result = phbatch.run(sys.argv[1], sys.argv[2], client=client, listener=listener)
    sys.exit(result.exit_code)
