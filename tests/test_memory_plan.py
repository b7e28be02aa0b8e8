"""A plan is above the peak and not far above it, and a refusal names what helps; benchmarks/memory.py is stricter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.planning.memory import RESERVED_BYTES, RESERVED_NETWORK_BYTES, MemoryPlan
from phbatch.words.wording import speaking_command_line

_RUNS = """
import json, os, sys, traceback
import numpy as np
import zarr, phbatch, phbatch.running.run
from phbatch.kernels.stats import measure_frame
for dtype in ("uint8", "uint16", "float32"):
    measure_frame(np.ones((9, 9), dtype), 2.0)
for line in sys.stdin:
    source, output, options = json.loads(line)
    if os.fork() == 0:
        try:
            plan = phbatch.plan(source, output, **options)
            result = phbatch.run(source, output, **options)
            print(json.dumps([result.peak_rss_bytes, plan.projected_mem]), flush=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.wait()[1]:
        break
"""

Measure = Callable[[Path, Path, dict[str, Any]], tuple[int, int]]


@pytest.fixture(scope="module")
def measure() -> Iterator[Measure]:
    """Peak memory of a run, and what was planned for it: in a process of its own, forked once libraries are loaded."""
    command = [sys.executable, "-c", _RUNS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, told = process.stdin, process.stdout
        assert asked is not None
        assert told is not None

        def ask(source: Path, output: Path, options: dict[str, Any]) -> tuple[int, int]:
            print(json.dumps([str(source), str(output), options]), file=asked, flush=True)
            peak, planned = json.loads(told.readline())
            return peak, planned

        yield ask


@pytest.fixture(autouse=True)
def command_line() -> Iterator[None]:
    """Sentences are for somebody who typed a command."""
    with speaking_command_line():
        yield


def empty(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str = "uint16") -> Path:
    """Metadata of an image alone, which is all that a plan reads."""
    axes = list("tczyx"[-len(shape) :]) if len(shape) in (2, 5) else list("tyx")
    zarr.create_array(folder / "in.zarr", shape=shape, chunks=chunks, dtype=dtype, dimension_names=axes)
    return folder / "in.zarr"


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((6, 1024, 1024), "uint16", {"workers": 2}),
        ((4, 1024, 1024), "float32", {"workers": 1}),
        ((4, 1024, 1024), "uint8", {"workers": 2, "dtype": "uint8", "range": "0:2"}),
        ((2, 1024, 1024), "uint16", {"workers": 1, "illumination": "gaussian"}),
        ((4000, 3000), "uint16", {}),
        ((4000, 6000), "uint16", {"memory": "450MB", "dtype": "uint16", "range": "0:4"}),
        ((4000, 3000), "float32", {"memory": "600MB"}),
        ((4000, 6000), "uint16", {"memory": "450MB", "downscale": 2}),
    ],
    ids=str,
)
def test_a_plan_is_above_the_peak(
    tmp_path: Path, measure: Measure, shape: tuple[int, ...], dtype: str, options: dict[str, Any]
) -> None:
    noise = np.resize(np.random.default_rng(0).normal(120, 6, (1000, shape[-1])).astype(dtype), shape[-2:])
    axes = list("tyx"[-len(shape) :])
    chunks = (*(1,) * (len(shape) - 2), *(min(length, 1024) for length in shape[-2:]))
    array = zarr.create_array(
        tmp_path / "in.zarr", shape=shape, chunks=chunks, dtype=dtype, dimension_names=axes,
        compressors=zarr.codecs.BloscCodec(cname="lz4"),
    )  # fmt: skip
    array[...] = np.broadcast_to(noise, shape)
    peak, planned = measure(tmp_path / "in.zarr", tmp_path / "out.zarr", {"model": "none"} | options)
    assert planned >= peak


@pytest.mark.parametrize(("side", "measured"), [(12_000, 1_317e6), (20_000, 3_170e6)])
def test_large_frames_are_planned_within_half_more_than_was_measured(
    tmp_path: Path, side: int, measured: float
) -> None:
    plan = phbatch.plan(empty(tmp_path, (side, side), (1024, 1024)), model="none", memory="24GB", levels=1)
    assert measured <= plan.projected_mem <= 1.5 * measured


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"downscale": 2},
        {"downscale": 2, "upscale_back": True},
        {"illumination": "polynomial"},
        {"dtype": "uint16", "scale": 100},
        {"rescale": True},
        {"scope": "series"},
        {"shard": 64_000_000},
    ],
    ids=str,
)
def test_what_a_unit_takes_is_bounded_by_copies_of_its_pixels(
    tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    """No more than raw and restored pixels, working copies and what a heap keeps can be; and never less than both."""
    side = 6000
    source = empty(tmp_path, (side, side), (1000, 1000), dtype)
    planned = phbatch.plan(source, model="none", memory="24GB", **options).projected_mem - RESERVED_BYTES
    raw = side * side * np.dtype(dtype).itemsize
    output = side * side * (2 if "dtype" in options else 4) // (4 if options == {"downscale": 2} else 1)
    copies = 12 if dtype in ("uint8", "uint16") else 62  # bytes per pixel: smoothed, sorted, and so on in float64
    assert raw + output <= planned <= 1.5 * (raw + 2 * output + copies * side * side)


def test_memory_grows_with_workers_and_is_that_of_one_where_there_is_one_unit(tmp_path: Path) -> None:
    source = empty(tmp_path, (50, 2048, 2048), (1, 2048, 2048))
    plans = [phbatch.plan(source, model="none", memory="8GB", workers=n).projected_mem for n in (1, 2, 4, 8)]
    assert plans == sorted(plans)
    assert plans[3] - plans[2] == pytest.approx(2 * (plans[2] - plans[1]), rel=1e-6)
    default = phbatch.plan(source, model="none", memory="700MB")
    assert default.projected_mem <= default.allowed_mem == 700_000_000


def refusal(source: Path, **options: Any) -> str:
    with pytest.raises(phbatch.MemoryLimitError) as refused:
        phbatch.plan(source, **{"model": "none"} | options)
    return str(refused.value)


@pytest.mark.parametrize("options", [{"illumination": "gaussian", "memory": "1GB"}, {"memory": "330MB"}], ids=str)
def test_the_memory_that_a_refusal_names_is_enough(tmp_path: Path, options: dict[str, Any]) -> None:
    source = empty(tmp_path, (20_000, 20_000), (1024, 1024))
    said = refusal(source, **options)
    named = re.search(r"raise --memory to (\S+?B)[,.]", said)
    assert named is not None
    assert phbatch.plan(source, model="none", **options | {"memory": named[1]}).workers == 1


def test_a_refusal_of_a_single_frame_names_no_workers_and_no_chunks(tmp_path: Path) -> None:
    source = empty(tmp_path, (20_000, 20_000), (1024, 1024))
    said = refusal(source, memory="1GB", illumination="gaussian")
    assert "--workers" not in said
    assert "chunks" not in said
    assert "--downscale 2" in said
    averaged = phbatch.plan(source, model="none", memory="24GB", downscale=2).projected_mem
    assert averaged < 0.8 * phbatch.plan(source, model="none", memory="24GB").projected_mem


def test_a_refusal_of_floats_sends_to_the_statistics_which_then_fit(tmp_path: Path) -> None:
    source = empty(tmp_path, (9000, 9000), (1000, 1000), "float32")
    assert "phbatch stats" in refusal(source, memory="2GB", illumination="gaussian")


@pytest.mark.parametrize(
    ("shape", "chunks", "options", "knob"),
    [
        ((40, 2048, 2048), (40, 2048, 2048), {}, "smaller chunks"),
        ((64, 2048, 2048), (1, 2048, 2048), {"workers": 16}, "lower --workers to "),
        ((64, 2048, 2048), (1, 2048, 2048), {"shard": "600MB"}, "lower --shard"),
        ((1, 2048, 2048), (1, 2048, 2048), {"model": "phase-2d", "tile": 2048, "memory": "2GB"}, "lower --tile"),
    ],
    ids=str,
)
def test_the_knob_of_the_largest_part_is_named(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], options: dict[str, Any], knob: str
) -> None:
    said = refusal(empty(tmp_path, shape, chunks), **{"memory": "900MB"} | options)
    assert knob in said
    fewer = re.search(r"--workers to (\d+)", said)
    if fewer is not None:
        source = tmp_path / "in.zarr"
        assert phbatch.plan(source, model="none", memory="900MB", workers=int(fewer[1])).workers == int(fewer[1])
        assert "raise" in refusal(source, memory="900MB", workers=int(fewer[1]) + 1)


def test_libraries_have_no_knob_but_memory(tmp_path: Path) -> None:
    said = refusal(empty(tmp_path, (1, 64, 64), (1, 64, 64)), memory="10MB", model="phase-2d")
    assert "the libraries themselves" in said
    assert said.endswith("GB.")
    assert MemoryPlan(RESERVED_BYTES, 0, 0, 1, RESERVED_BYTES).projected_mem < RESERVED_NETWORK_BYTES
