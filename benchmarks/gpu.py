"""A GPU, where one is present: forms of the network alone, from Zarr to Zarr, and against CSBDeep.

    python benchmarks/gpu.py [--backend jax] [--precision float16] [--size 2048] [--frames 48] [--runs 3] [--json FILE]
    python benchmarks/gpu.py --dry-run

(a) *Compute alone*: every form of the network, compiled by XLA, on frames that are on the device already, against the
plain form. (b) *End to end*: ``phbatch run`` to uint16 and to float32 against compute alone of the form that it chose.
(c) So its rate, and that over ``CARE.predict``, one frame after the other. (d) Compute alone against the device's own
rate of bfloat16 matrix products, counted in the plain network's operations; and where the time of a run went.

Where there is no GPU it says so and measures nothing. ``--dry-run`` goes the same ways on a CPU with tiny frames; its
numbers mean nothing. Every side is a process of its own, since a process has one backend and one policy of precision.
``--precision`` is that of compute alone, and that of the run where this phbatch has such an option.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from common import alternate, machine, measure, print_head, print_row, show_spread, spread_of_ratios, write_record
from end_to_end import make_model

import phbatch
from phbatch.network.forms import PLAIN, list_forms
from phbatch.network.model import open_model
from phbatch.network.unet import count_operations
from phbatch.tools.simulated import write_time_lapse
from phbatch.words.settings import RunSettings

START = """
import json, os, sys, time
os.environ["KERAS_BACKEND"] = backend = sys.argv[1]
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
import keras, numpy as np
from phbatch.network.device import describe_device
def median_seconds(function, calls=9):
    function()
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return sorted(found)[calls // 2]
if backend == "jax":
    import jax
    put, compile, wait = jax.device_put, jax.jit, jax.block_until_ready
else:
    import tensorflow as tf
    put, wait = tf.constant, lambda tensor: tf.reshape(tensor, [-1])[0].numpy()
    compile = lambda function: tf.function(function, jit_compile=describe_device(backend)[1], autograph=False)
"""

DEVICE = """
print(json.dumps(describe_device(backend)))
"""

COMPUTE = """
from phbatch.network.model import open_model
from phbatch.network.forms import build_form
from phbatch.network.weights import read_weights
folder, form, size, precision = sys.argv[2:]
if precision != "float32":
    keras.config.set_dtype_policy(f"mixed_{precision}")
model = open_model(folder)
network = build_form(model.config, read_weights(model.weights_path, model.config), form, (int(size),) * 2)
frame = put(np.random.default_rng(0).normal(size=(1, int(size), int(size), 1)).astype(precision))
predict = compile(lambda tiles: network(tiles, training=False))
print(json.dumps(median_seconds(lambda: wait(predict(frame)))))
"""

PRODUCT = """
size = int(sys.argv[2])
matrix = keras.ops.cast(put(np.random.default_rng(0).normal(size=(size, size)).astype("float32")), "bfloat16")
multiply = compile(lambda a: keras.ops.matmul(a, a))
print(json.dumps(2 * size**3 / median_seconds(lambda: wait(multiply(matrix)))))
"""

RUN = """
import phbatch, zarr
source, few, output, folder, dtype, options = sys.argv[2:]
options = json.loads(options) | {"model": folder, "dtype": dtype, "rescale": True, "backend": backend}
phbatch.run(few, output + ".few", **options)
os.sync()
result = phbatch.run(source, output, **options)
form = zarr.open_group(output, mode="r").attrs.asdict()["phbatch"]["network"]
busy = {stage: round(spent / result.restoring_seconds, 2) for stage, spent in result.stages.items()}
print(json.dumps([result.seconds, form, busy]))
"""

CSBDEEP = """
import zarr
from csbdeep.models import CARE
source, folder = sys.argv[2:]
frame = zarr.open_array(source + "/0", mode="r")[0]
model = CARE(None, name=os.path.basename(folder), basedir=os.path.dirname(folder))
print(json.dumps(median_seconds(lambda: model.predict(frame, "YX"), 3)))
"""


def compute_alone(backend: str, folder: Path, size: int, precision: str, runs: int) -> dict[str, Any]:
    """Rate of every form on the device, and over the plain one."""
    forms = list_forms(open_model(str(folder)).config)
    arguments = (str(size), precision)
    found = alternate(
        runs, {form: partial(measure, START + COMPUTE, backend, str(folder), form, *arguments) for form in forms}
    )
    return {
        form: {
            "mpx_per_s": round(size * size / statistics.median(times) / 1e6, 1),
            "over_plain": spread_of_ratios(found[PLAIN], times),
        }
        for form, times in found.items()
    }


def end_to_end(backend: str, folder: Path, size: int, frames: int, precision: str, runs: int) -> dict[str, Any]:
    """Seconds of runs to both dtypes and of one `CARE.predict`; the form, and the stages of the last run."""
    options = f'{{"precision": "{precision}"}}' if "precision" in RunSettings.model_fields else "{}"
    with tempfile.TemporaryDirectory() as scratch:
        source, few, output = (f"{scratch}/{name}.zarr" for name in ("in", "few", "out"))
        for path, count in ((source, frames), (few, 2)):
            write_time_lapse(path, phbatch.PhaseContrast(shape=(size, size), n_frames=count, seed=11))

        def run_phbatch(dtype: str) -> Any:
            for path in (output, f"{output}.few"):
                shutil.rmtree(path, ignore_errors=True)
            return measure(
                START + RUN, backend, source, few, output, str(folder), dtype, options, XDG_CACHE_HOME=scratch
            )

        found = alternate(runs, {dtype: partial(run_phbatch, dtype) for dtype in ("uint16", "float32")})
        loop = measure(START + CSBDEEP, "tensorflow", source, str(folder))
    rows: dict[str, Any] = {"care_predict_mpx_per_s": round(size * size / loop / 1e6, 2), "run_options": options}
    for dtype, results in found.items():
        seconds = statistics.median(result[0] for result in results)
        rows[dtype] = {
            "mpx_per_s": round(frames * size * size / seconds / 1e6, 1),
            "over_care_predict": round(frames * loop / seconds, 1),
            "form": results[-1][1],
            "busy": results[-1][2],
        }
    return rows


def compare(backend: str, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything of one backend and precision."""
    folder, size, runs = make_model(scratch, arguments.kernel, arguments.filters), arguments.size, arguments.runs
    alone = compute_alone(backend, folder, size, arguments.precision, runs)
    runs_found = end_to_end(backend, folder, size, arguments.frames, arguments.precision, runs)
    product = measure(START + PRODUCT, backend, str(256 if arguments.dry_run else 8192))
    operations = 2 * count_operations(open_model(str(folder)).config)
    for one in alone.values():
        one["of_matrix_product"] = round(one["mpx_per_s"] * 1e6 * operations / product, 3)
    for dtype in ("uint16", "float32"):
        one = runs_found[dtype]
        one["of_compute_alone"] = round(one["mpx_per_s"] / alone[one["form"]]["mpx_per_s"], 3)
    return {"alone": alone, "runs": runs_found, "matrix_product_tflops": round(product / 1e12, 2)}


def show(found: dict[str, Any]) -> None:
    """The tables."""
    print(f"bfloat16 matrix product: {found['matrix_product_tflops']} TFLOP/s")
    print_head(("compute alone", "MPx/s", "over plain (range)", "of the matrix product's rate"))
    for form, one in found["alone"].items():
        print_row((form, one["mpx_per_s"], show_spread(one["over_plain"]), one["of_matrix_product"]))
    print(
        f"CARE.predict: {found['runs']['care_predict_mpx_per_s']} MPx/s;"
        f" options of the runs {found['runs']['run_options']}"
    )
    print_head(("Zarr to Zarr, to", "form", "MPx/s", "of compute alone", "over CARE.predict", "threads busy, by stage"))
    for dtype in ("uint16", "float32"):
        one = found["runs"][dtype]
        rates = (one["mpx_per_s"], one["of_compute_alone"], one["over_care_predict"])
        print_row((dtype, one["form"], *rates, ", ".join(f"{stage} {part}" for stage, part in one["busy"].items())))


def main() -> None:
    """Print the tables, or that there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--precision", choices=("float32", "float16", "bfloat16"), default="float16")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on whatever there is")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device, on_gpu = measure(START + DEVICE, arguments.backend)
    if not on_gpu and not arguments.dry_run:
        print("skipped: no GPU")
        write_record(arguments.json, skipped="no GPU")
        return
    if arguments.dry_run:
        arguments.size, arguments.frames, arguments.filters, arguments.runs = 64, 2, 4, 1
        arguments.precision = arguments.precision if on_gpu else "float32"
        print("dry run: these numbers mean nothing")
    print(f"{device}, {machine()}; {arguments.backend}, {arguments.precision}")
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(arguments.backend, Path(scratch), arguments)
    show(found)
    write_record(
        arguments.json,
        device=device,
        backend=arguments.backend,
        precision=arguments.precision,
        dry=arguments.dry_run,
        **found,
    )


if __name__ == "__main__":
    main()
