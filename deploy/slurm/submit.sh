#!/usr/bin/env bash
# Restore all images of a folder, one after the other, each on workers of its own; what is finished is done at once.
set -euo pipefail
folder=${1:?usage: submit.sh FOLDER PROFILE}
profile=${2:?usage: submit.sh FOLDER PROFILE}

for image in "$folder"/*.zarr; do
    if [[ $image = *.phbatch.zarr ]]; then
        continue # an output
    fi
    phbatch submit "$image" --profile "$profile"
    phbatch verify "${image%.zarr}.phbatch.zarr"
done
