"""What the benchmarks share: the machine, processes of their own, alternating runs, tables and records."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


def machine() -> str:
    """Processor and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names)) or platform.processor()}, {os.cpu_count()} cores"


def run_python(code: str, *arguments: str, python: str = sys.executable, **environment: str) -> str:
    """Standard output of a program in a process of its own.

    Raises
    ------
    RuntimeError
        It failed; the end of what it said is the message.
    """
    shown = subprocess.run(
        [python, "-c", code, *arguments],
        check=False,
        capture_output=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        text=True,
    )
    if shown.returncode:
        raise RuntimeError(shown.stderr[-2000:])
    return shown.stdout


def measure(code: str, *arguments: str, python: str = sys.executable, **environment: str) -> Any:
    """What a program in a process of its own prints as JSON, in its last line."""
    return json.loads(run_python(code, *arguments, python=python, **environment).splitlines()[-1])


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(runs: int, sides: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """What every side gave in every run; the sides take turns, so that other load on the machine meets all alike."""
    found: dict[str, list[Result]] = {side: [] for side in sides}
    for _ in range(runs):
        for side, function in sides.items():
            found[side].append(function())
    return found


def spread_of_ratios(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """Median, smallest and largest ratio, run by run."""
    ratios = sorted(a / b for a, b in zip(numerators, denominators, strict=True))
    return [round(ratio, 3) for ratio in (statistics.median(ratios), ratios[0], ratios[-1])]


def show_spread(spread: Sequence[float]) -> str:
    """Median and range, such as ``1.12 (1.05-1.20)``."""
    middle, low, high = (f"{value:.2f}" for value in spread)
    return f"{middle} ({low}-{high})"


def mean_of_ratios(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """Geometric mean of the ratios of pairs, and its standard error."""
    logarithms = [math.log(a / b) for a, b in zip(numerators, denominators, strict=True)]
    mean = math.exp(statistics.mean(logarithms))
    return [round(value, 4) for value in (mean, mean * statistics.stdev(logarithms) / math.sqrt(len(logarithms)))]


def print_row(cells: Iterable[Any]) -> None:
    """One line of a Markdown table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def print_head(columns: Sequence[str]) -> None:
    """Head of a Markdown table."""
    print_row(columns)
    print(f"|{'---|' * len(columns)}", flush=True)


def write_record(path: Path | None, **record: Any) -> None:
    """What was measured, and the machine, as a JSON file, where a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine()} | record, indent=1) + "\n", encoding="utf-8")
