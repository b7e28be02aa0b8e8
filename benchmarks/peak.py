"""What of a processor's peak the network alone takes: operations a second against those of a product of matrices.

    python benchmarks/peak.py [--kernel 5 --kernel 3] [--filters 32 --filters 16] [--size 1024] [--json FILE]

CARE models of random weights as in `benchmarks/end_to_end.py`, on a tile that is in memory, with TensorFlow. An
operation is an addition or a multiplication of the network as CSBDeep writes it: a form that needs fewer of them for
the same output can come above the peak, which is the rate of the best of five products of square matrices in the same
precision.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path

from common import machine, print_head, print_row, write_record
from end_to_end import make_model

from phbatch.network.forms import PLAIN
from phbatch.network.model import open_model
from phbatch.network.tuning.form import measure_forms
from phbatch.network.unet import count_operations
from phbatch.words.choices import Precision

_SIDE, _TIMES = 4096, 5
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def measure_peak(precision: Precision) -> float:
    """Operations a second of a product of matrices."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((_SIDE, _SIDE), seed=1), precision)
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    multiply()
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        multiply().numpy()
        seconds.append(time.perf_counter() - start)
    return float(2 * _SIDE**3 / min(seconds))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", type=int, action="append", help="of a random model; may be repeated")
    parser.add_argument("--filters", type=int, action="append", help="of a random model; may be repeated")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; tiles of {arguments.size}^2")
    print_head(["kernel, filters", "precision", "form", "MPx/s", "GFLOP/s", "of a product of matrices"])
    peaks = {precision: measure_peak(precision) for precision in PRECISIONS}
    for precision, peak in peaks.items():
        print_row(["matrices", precision, "-", "-", f"{peak / 1e9:.0f}", "1"])
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kernel, filters in product(arguments.kernel or [5, 3], arguments.filters or [32, 16]):
            model = open_model(make_model(Path(scratch), kernel, filters))
            operations = 2 * count_operations(model.config)
            for precision in PRECISIONS:
                speeds = measure_forms(model, (arguments.size,) * 2, 1, "tensorflow", precision=precision)
                fastest = max(speeds, key=lambda speed: speed.mpx_per_s)
                for speed in (speed for speed in speeds if speed is fastest or speed.form == PLAIN):
                    rate = speed.mpx_per_s * 1e6 * operations
                    rows.append({"kernel": kernel, "filters": filters, "precision": precision, "form": speed.form})
                    rows[-1] |= {"mpx_per_s": speed.mpx_per_s, "flops": rate, "share": rate / peaks[precision]}
                    shares = f"{rate / 1e9:.0f}", f"{rate / peaks[precision]:.2f}"
                    print_row([f"{kernel}, {filters}", precision, speed.form, f"{speed.mpx_per_s:.2f}", *shares])
    write_record(arguments.json, peaks=peaks, rows=rows)


if __name__ == "__main__":
    main()
