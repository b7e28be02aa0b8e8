"""What 16 bit floats cost a network in accuracy, and what ways of computing its first layer gain: emulated, on a CPU.

    python benchmarks/half_precision.py [--model phase-2d] [--size 256] [--json FILE]

Products are summed in float32, as matrix units do, and what leaves a layer is rounded to 16 bits, once before its bias
and once after; kernels, biases and the input are rounded, too, and the last layer is float32. Frames are divided by the
median of their smoothed background, simulated ones, and crops of the real ones below ``PHBATCH_DATA`` where they are.
The *first layer in float32* is given the input as it is. *Centred*, it is given the input less 1, the background, with
the border padded by -1, and its bias has what that took away: equal in exact arithmetic.

Errors are the 99.9th percentile of the differences to float32, over the standard deviation of what the network returns
and over that of what it takes away.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from common import machine, print_head, print_row, write_record
from numpy.typing import NDArray

from phbatch.kernels.intensity import make_affine
from phbatch.kernels.stats import measure_frame
from phbatch.network.model import open_model
from phbatch.network.unet import NetworkConfig
from phbatch.network.weights import Weights, read_weights
from phbatch.simulate import PhaseContrast
from phbatch.words.normalization import Normalization

DATA = Path(os.environ.get("PHBATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = ("t98g", "caulobacter", "ecoli", "yeast")
SIMULATED: dict[str, dict[str, Any]] = {"sparse": {"density": 0.02, "illumination": 0.0}, "crowded": {}}
WAYS = ("as it is", "first layer in float32", "centred")
KINDS = ("float16", "bfloat16")


def frames(size: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names and normalized frames."""
    for title, options in SIMULATED.items():
        movie = PhaseContrast(shape=(size, size), seed=5, background_electrons=600.0, **options)
        yield f"simulated, {title}", normalized(movie.frame(0))
    for name in REAL:
        found = sorted(DATA.glob(f"{name}/*.tif"))
        if found:
            image = tifffile.imread(found[0])
            starts = [(length - size) // 2 for length in image.shape[-2:]]
            yield name, normalized(np.ascontiguousarray(image[tuple(slice(at, at + size) for at in starts)]))


def normalized(frame: NDArray[Any]) -> NDArray[np.float32]:
    """Divided by the median of the smoothed frame."""
    affine = make_affine(measure_frame(frame, 2.0), Normalization(method="median"))
    if affine is None:
        raise ValueError("the frame has no scale")
    return affine.apply(frame)


def predict(config: NetworkConfig, weights: Weights, image: NDArray[np.float32], kind: str, way: str) -> Any:
    """What the network makes of an image, computed in float32 or in 16 bits."""
    import tensorflow as tf

    def rounded(values: Any) -> Any:
        return tf.cast(tf.cast(values, kind), "float32")

    def convolve(tensor: Any, name: str, padding: str = "SAME", dtype: str = kind) -> Any:
        kernel, bias = weights[name]
        if dtype == "float32":
            return tf.nn.relu(tf.nn.conv2d(tensor, kernel, 1, padding) + bias)
        return tf.nn.relu(rounded(rounded(tf.nn.conv2d(tensor, rounded(kernel), 1, padding)) + rounded(bias)))

    def first(tensor: Any, name: str) -> Any:
        if way == "as it is":
            return convolve(rounded(tensor), name)
        if way != "centred":
            return rounded(convolve(tensor, name, dtype="float32"))
        kernel, bias = weights[name]
        margin = config.kernel // 2
        padded = tf.pad(tensor - 1, [(0, 0), (margin, margin), (margin, margin), (0, 0)], constant_values=-1)
        result = rounded(tf.nn.conv2d(rounded(padded), rounded(kernel), 1, "VALID"))
        return tf.nn.relu(rounded(result + rounded(bias + kernel.sum((0, 1, 2)))))

    tensor = inputs = tf.constant(image[np.newaxis, ..., np.newaxis])
    skips = []
    for level in range(config.depth):
        for index in range(2):
            name = f"down_level_{level}_no_{index}"
            tensor = first(tensor, name) if (level, index) == (0, 0) else convolve(tensor, name)
        skips.append(tensor)
        tensor = tf.nn.max_pool2d(tensor, 2, 2, "VALID")
    tensor = convolve(convolve(tensor, "middle_0"), "middle_2")
    for level in reversed(range(config.depth)):
        tensor = tf.concat([tf.repeat(tf.repeat(tensor, 2, 1), 2, 2), skips[level]], -1)
        tensor = convolve(convolve(tensor, f"up_level_{level}_no_0"), f"up_level_{level}_no_2")
    kernel, bias = weights["mean"]
    mean = tf.nn.conv2d(tensor, kernel, 1, "SAME") + bias
    return np.asarray(mean + inputs if config.residual else mean)[0, ..., 0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="default: the two bundled ones; may be repeated")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; crops of {arguments.size}^2; errors over the std of the output / of what was taken away")
    print_head(("model", "frame", "std of frame, taken away", *(f"{kind}, {way}" for kind in KINDS for way in WAYS)))
    rows = []
    for name in arguments.model or ["phase-2d-real", "phase-2d"]:
        model = open_model(name)
        weights = read_weights(model.weights_path, model.config)
        for title, image in frames(arguments.size):
            exact = predict(model.config, weights, image, "float32", "as it is")
            taken = float((image - exact).std())
            cells, found = [], {}
            for kind in KINDS:
                for way in WAYS:
                    difference = np.abs(predict(model.config, weights, image, kind, way) - exact)
                    error = float(np.percentile(difference, 99.9))
                    found[f"{kind}, {way}"] = (error / float(exact.std()), error / taken)
                    cells.append("{:.1e} / {:.1e}".format(*found[f"{kind}, {way}"]))
            rows.append({"model": name, "frame": title, "errors": found})
            print_row((name, title, f"{image.std():.3f}, {taken:.3f}", *cells))
    write_record(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
