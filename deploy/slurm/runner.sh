#!/usr/bin/env bash
#SBATCH --job-name=phbatch
#SBATCH --ntasks=6
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --output=phbatch-%j.log
# One allocation: the first task is Dask's scheduler, the second one runs phbatch, the others are workers.
#   sbatch runner.sh INPUT OUTPUT
# Where the time is over before the run is, submit it again: it continues.
set -euo pipefail
input=${1:?usage: sbatch runner.sh INPUT OUTPUT}
output=${2:?usage: sbatch runner.sh INPUT OUTPUT}
folder=${PHBATCH_DEPLOY:-$SLURM_SUBMIT_DIR}

srun "${PYTHON:-python}" "$folder/runner.py" "$input" "$output"
