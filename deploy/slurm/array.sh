#!/usr/bin/env bash
# Restore one image by the tasks of a job array, without a scheduler that must live, and come back when all are over.
set -euo pipefail
input=${1:?usage: array.sh INPUT OUTPUT PROFILE TASKS}
output=${2:?usage: array.sh INPUT OUTPUT PROFILE TASKS}
profile=${3:?usage: array.sh INPUT OUTPUT PROFILE TASKS}
tasks=${4:?usage: array.sh INPUT OUTPUT PROFILE TASKS}

phbatch submit "$input" "$output" --cluster slurm-array --profile "$profile" --workers "$tasks"
phbatch status "$output"
