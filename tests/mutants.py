"""Faults put into the package one by one by hand: tests that pass all the same have a hole.

    python -m tests.mutants [--list] [NUMBER ...]

Every mutant is put into a copy of the package in a temporary folder and taken out again; there the tests that should
see it are run. A mutant that no test can see since the program does the same is marked as equivalent, with the reason;
every other one that survives is a missing test, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LIBRARIES = ("numpy", "scipy.ndimage", "numba", "zarr", "dask.array", "distributed", "pydantic", "h5py", "hypothesis")
"""Imported once, before any fork."""


@dataclass(frozen=True)
class Mutant:
    """One change of one place.

    Attributes
    ----------
    file : str
        Within the package.
    old, new : str
        Text that occurs once in the file, and what stands in its place.
    tests : str
        What should fail: arguments of pytest.
    equivalent : str
        Why nothing can fail; empty where something must.
    """

    file: str
    old: str
    new: str
    tests: str
    equivalent: str = ""


_TILING = "tests/kernels/test_tiling.py"
_BANDS = "tests/kernels/test_bands.py"
_STATS = "tests/kernels/test_stats.py"
_SKETCH = "tests/kernels/test_sketch.py"
_FLOATS = "tests/kernels/test_float_state.py"
_PADDED = "tests/kernels/test_padding.py"
_SERIES = "tests/kernels/test_timeseries.py"
_UNIT = "tests/test_unit_memory.py"
_PLAN = "tests/test_planned_memory.py"
_RESOLVED = "tests/test_resolved.py"
_IDENTITY = "tests/test_identity.py"
_RESUME = "tests/test_resume.py"
_COMMIT = "tests/test_commit.py"
_LEDGER = "tests/test_ledger.py"
_STORAGE = "tests/places/test_storage.py"
_LOCK = "tests/faults/test_lock.py"
_RESIDUAL = "tests/kernels/test_residual.py"
_SCORES = "tests/test_scores.py"

_MIRRORED = "the mirror image of every position needs as much before it as that one needs after it"
_TRIED = "without a stop every unit is finished or has failed"

MUTANTS = [
    # Tiles
    Mutant("kernels/tiling.py", "reach = 2 * ((kernel - 1) // 2)", "reach = (kernel - 1) // 2", _TILING),
    Mutant("kernels/tiling.py", "2 * low, 2 * high + 1", "2 * low, 2 * high", _TILING, _MIRRORED),
    Mutant("kernels/tiling.py", "max(need, -low, high - (grid - 1))", "max(need, -low)", _TILING, _MIRRORED),
    Mutant("kernels/tiling.py", "total // 2, total - total // 2", "total - total // 2, total // 2", _TILING),
    Mutant("kernels/tiling.py", "(index * free // (count - 1))", "(index * (free // (count - 1)))", _TILING),
    Mutant("kernels/tiling.py", "(previous + size + read) // (2 * grid)", "(previous + size) // grid", _TILING),
    Mutant("kernels/tiling.py", "(length - 2 * halo) // (size - 2 * halo)", "length // (size - 2 * halo)", _TILING),
    Mutant("kernels/tiling.py", "tile <= 2 * self.halo", "tile < 2 * self.halo", _TILING),
    Mutant("kernels/tiling.py", "max(span.start, before)", "span.start", _TILING),
    Mutant("kernels/tiling.py", "min(span.stop, size + before)", "span.stop", _TILING),
    Mutant("kernels/tiling.py", "best is None or rank < best", "best is None or rank > best", _TILING),
    Mutant("kernels/tiling.py", "(float(count) * pixels, pixels,", "(0.0, pixels,", _TILING),
    Mutant("kernels/tiling.py", "pixels > max_pixels and", "pixels >= max_pixels and", _TILING),
    Mutant("kernels/tiling.py", "inner <= grid:", "inner <= 2 * grid:", _TILING),
    Mutant("kernels/tiling.py", "in reversed(tile))", "in tile)", _TILING),
    Mutant(
        "kernels/tiling.py", "if size != lengths[-1]:", "if True:", _TILING, "a length that is tried twice costs time"
    ),
    # Statistics of frames and of blocks
    Mutant("kernels/histogram.py", "self.size + other.size < 2**32", "True", _STATS),
    Mutant("kernels/histogram.py", "first = min(self.first, other.first)", "first = self.first", _STATS),
    Mutant("kernels/histogram.py", "fraction >= 0.5", "fraction > 0.5", _STATS),
    Mutant("kernels/histogram.py", "q * (cumulative[-1] - 1)", "q * cumulative[-1]", _STATS),
    Mutant(
        "kernels/histogram.py", "[(cumulative[-1] - 1) // 2, cumulative", "[cumulative[-1] // 2, cumulative", _STATS
    ),
    Mutant("kernels/histogram.py", "scale = min(std, interquartile_range / 1.349)", "scale = std", _STATS),
    Mutant("kernels/histogram.py", "n ** (-1 / 7)", "n ** (-1 / 5)", "phbatch/kernels/histogram.py"),
    Mutant("kernels/histogram.py", "0.5 * (left - right) / curvature", "0.5 * (right - left) / curvature", _STATS),
    Mutant("kernels/histogram.py", "<= high)", "< high)", _STATS),
    Mutant("kernels/stats.py", "_BACKGROUND_REACH = 0.05", "_BACKGROUND_REACH = 0.06", _STATS),
    Mutant("kernels/frame_state.py", "self.laplacian[1] + other.laplacian[1]", "self.laplacian[1]", _STATS),
    Mutant("kernels/frame_state.py", "n_padded = self.n_padded + other.n_padded", "n_padded = self.n_padded", _PADDED),
    Mutant("kernels/frame_state.py", "n * squares - total * total", "n * squares", _PADDED),
    Mutant("kernels/stats.py", "first.largest == second.largest", "True", _STATS),
    Mutant("kernels/stats.py", '("zero", "constant") if low == 0', '("zero", "constant") if low <= 0', _STATS),
    Mutant("kernels/frame_state.py", "(high << 32) + low", "high + low", _STATS),
    Mutant("kernels/sketch.py", "level = max(self.level, other.level)", "level = self.level", _SKETCH),
    Mutant("kernels/sketch.py", "dropped)) > MAX_BUCKETS", "dropped)) >= MAX_BUCKETS", _SKETCH),
    Mutant("kernels/sketch.py", "min(self.low, other.low)", "self.low", _SKETCH),
    Mutant("kernels/sketch.py", "astype(np.float64) + 0.0", "astype(np.float64)", _SKETCH),
    Mutant("kernels/sketch.py", "2.0 ** (self.level - 53)", "2.0 ** (self.level - 54)", _SKETCH),
    Mutant("kernels/sketch.py", "(1 << self.level) >> 1)", "1 << self.level)", _SKETCH),
    Mutant("kernels/sketch.py", "np.nextafter(high, np.inf)]", "high]", _SKETCH),
    Mutant("kernels/float_state.py", "self.n_zero + other.n_zero", "self.n_zero", _FLOATS),
    Mutant("kernels/float_state.py", "self.finite and other.finite", "self.finite", _FLOATS),
    Mutant("kernels/float_state.py", "result -= 4 * image", "result -= 3 * image", _FLOATS),
    # Series
    Mutant("kernels/timeseries.py", "side = min(before, after)", "side = max(before, after)", _SERIES),
    Mutant("kernels/timeseries.py", "same & usable", "same", _SERIES),
    Mutant("kernels/timeseries.py", "saturated > 0.05", "saturated > 0.5", _SERIES),
    Mutant("kernels/timeseries.py", "OUTLIER_DEVIATIONS = 8.0", "OUTLIER_DEVIATIONS = 2.0", _SERIES),
    Mutant("kernels/timeseries.py", "_MIN_FRAMES = 5", "_MIN_FRAMES = 3", _SERIES),
    Mutant("kernels/timeseries.py", "usable & ~black", "usable", _SERIES),
    # Memory
    Mutant("planning/memory.py", "_FLOAT_STATISTICS = 32", "_FLOAT_STATISTICS = 16", _UNIT),
    Mutant("planning/memory.py", "_FLOAT_STATISTICS = 32", "_FLOAT_STATISTICS = 64", _UNIT),
    Mutant("planning/memory.py", "_FLOAT_STATE = 48", "_FLOAT_STATE = 24", _UNIT),
    Mutant("planning/memory.py", "work_output * 4\n", "work_output\n", _UNIT),
    Mutant("planning/memory.py", "restoring=raw + stored + maps", "restoring=raw + maps", _UNIT),
    Mutant("planning/memory.py", "stored * (3 if", "stored * (1 if", _UNIT),
    Mutant("planning/memory.py", "waiting=stored + rows // 2,", "waiting=rows // 2,", _UNIT),
    Mutant("planning/memory.py", "self.in_flight + self.ahead > 1", "self.in_flight + self.ahead > 2", _PLAN),
    Mutant("planning/memory.py", "(self.unit_mem + waiting) * self", "self.unit_mem * self", _PLAN),
    Mutant("planning/memory.py", "self._kept_mem + max(self.sampling_mem, ", "self._kept_mem + max(0, ", _PLAN),
    Mutant("planning/memory.py", "self.reducing_mem) + self.network_mem", "self.reducing_mem)", _PLAN),
    Mutant("planning/memory.py", "self.projected_mem <= self.allowed_mem", "self.unit_mem <= self.allowed_mem", _PLAN),
    Mutant("planning/memory.py", "if spare < self.unit_mem", "if spare < 0", _PLAN),
    Mutant("planning/memory.py", "self.unit_mem + self.waiting_mem, 1", "self.unit_mem, 1", _PLAN),
    Mutant("planning/memory.py", "ceil(count / 1e8)", "int(count / 1e8)", _PLAN),
    Mutant("planning/passes.py", "3 * height, shape[-2]", "height, shape[-2]", _PLAN),
    # Bands of frames
    Mutant("kernels/bands.py", "// self.grid * self.grid - self.halo", "// self.grid * self.grid", _BANDS),
    Mutant("kernels/bands.py", "min(low, length - size)", "low", _BANDS),
    Mutant("kernels/bands.py", "before if self.first == 0 else 0", "before", _BANDS),
    Mutant("planning/units.py", "self.band // factor or", "self.band or", "tests/test_banded_units.py"),
    # What is resolved
    Mutant(
        "planning/fit.py",
        "most = min(MOST_WORKERS, self.cores",
        "most = min(MOST_WORKERS + 1, self.cores",
        _RESOLVED,
    ),
    Mutant("planning/resolve.py", "available_bytes // 2\n    batch", "available_bytes\n    batch", _RESOLVED),
    Mutant("planning/fit.py", "self.cores, self.most_units or len(geometry.units))", "self.cores)", _RESOLVED),
    Mutant("planning/tiles.py", "asked < smallest and any(", "asked <= smallest and any(", _RESOLVED),
    Mutant("planning/tiles.py", "min(fitting, _TILE", "max(fitting, _TILE", _RESOLVED),
    Mutant(
        "planning/tiles.py", "length == size or smallest <= length", "length == size or smallest < length", _RESOLVED
    ),
    Mutant("planning/resolve.py", "asked = settings.workers or max(1", "asked = max(1", _RESOLVED),
    # Fingerprint
    Mutant(
        "computing/identity.py",
        "if setting.identifies}",
        'if setting.identifies and setting.field != "nan"}',
        _IDENTITY,
    ),
    Mutant("computing/identity.py", "recipe.passes > 1)", "recipe.passes > 2)", _IDENTITY),
    Mutant("computing/identity.py", "pixels=sampled or", "pixels=", _IDENTITY),
    Mutant("computing/identity.py", "geometry.times.stop, geometry", "geometry.times.start, geometry", _IDENTITY),
    Mutant("computing/identity.py", "sorted({*old, *new})", "sorted({*old})", _IDENTITY),
    Mutant("computing/identity.py", '== "complete" or', '== "complete" and', _IDENTITY),
    Mutant("computing/identity.py", '"sha256": model.sha256}', '"sha256": ""}', _RESUME),
    Mutant("computing/identity.py", "describe_normalizer(recipe.rule.method)", "None", _IDENTITY),
    Mutant("computing/identity.py", '"numbers_version": NUMBERS_VERSION if', '"numbers_version": 0 if', _IDENTITY),
    # What is committed
    Mutant("running/commit.py", "        ledger.commit(*records)\n", "", _COMMIT),
    Mutant("running/commit.py", "finished.add(record)\n", "pass\n", _COMMIT),
    Mutant("running/commit.py", '| {"attempt": one.attempts, "at": at}', "", _COMMIT),
    Mutant("running/commit.py", "failed[outcome.unit.key] = outcome.problem", "pass", _COMMIT),
    Mutant("running/commit.py", "if stop() and len(finished)", "if len(finished)", _COMMIT, _TRIED),
    Mutant("running/commit.py", "len(finished) + len(failed) < total", "len(finished) < total", _COMMIT),
    Mutant("running/commit.py", "isinstance(error, OutputError)", "False", _COMMIT),
    Mutant("running/commit.py", "and is_out_of_place(error)", "and False", _COMMIT),
    Mutant("outputs/ledger.py", 'last.get(record["unit"], index) == index and', "", _LEDGER),
    Mutant("outputs/ledger.py", 'and "retracted" not in record', "", _LEDGER),
    Mutant("outputs/ledger.py", "max(used, default=0) + 1", "1", _LEDGER),
    Mutant("outputs/ledger.py", 'self._writer = ""  # what', "pass  # what", _LEDGER),
    Mutant("places/durable.py", "os.O_APPEND, durably=True", "os.O_APPEND", _LEDGER),
    Mutant("outputs/ledger.py", "self._count += 1", "pass", _LEDGER),
    Mutant("outputs/ledger.py", "text and checksum ==", "text and b'' !=", _LEDGER),
    Mutant("outputs/writer.py", "part.start % chunk or", "", _STORAGE),
    Mutant("outputs/writer.py", "part.stop % chunk and part.stop != size", "part.stop % chunk", _STORAGE),
    Mutant("outputs/writer.py", "part.stop <= part.start", "part.stop < part.start", _STORAGE),
    Mutant("places/durable.py", "    synchronize_together([path for path, *_ in aside])\n", "", _LEDGER),
    Mutant("places/durable.py", "    _rounds().synchronize(folders)\n", "", _LEDGER),
    Mutant("places/durable.py", "joined.folders.update(folders)", "pass", _LEDGER),
    Mutant("outputs/writer.py", "_SCRATCH, self._require_held)", "_SCRATCH, lambda: None)", _LOCK),
    Mutant("places/durable.py", "    fence()\n    folders", "    folders", _LOCK),
    Mutant(
        "outputs/creation.py",
        "(named == {PRIVATE} or output.exists(LOCK))",
        "(named != {PRIVATE} or output.exists(LOCK))",
        _LOCK,
    ),
    Mutant("outputs/creation.py", "elif name not in (PRIVATE, LOCK):", "elif name != PRIVATE:", _LOCK),
    Mutant("outputs/creation.py", "(*ours.items(), *private.items())", "(*private.items(), *ours.items())", _LOCK),
    # Judging a restoration
    Mutant("kernels/residual.py", "(autocorrelation > CORRELATED)", "(autocorrelation > 6 * CORRELATED)", _RESIDUAL),
    Mutant("kernels/residual.py", "int(rows[at] * side)", "int(columns[at] * side)", _RESIDUAL),
    Mutant("kernels/residual.py", "_QUIET, _QUIET_RATIO = 20.0", "_QUIET, _QUIET_RATIO = 80.0", _RESIDUAL),
    Mutant("tools/scores.py", "_RANGE = (0.1, 99.9)", "_RANGE = (2.0, 98.0)", _SCORES),
    Mutant("tools/scores.py", "found & usable, ~found & usable", "found & usable, usable", _SCORES),
    Mutant("tools/scores.py", "image - seen.mean()) + wanted.mean()", "image) + wanted.mean()", _SCORES),
    Mutant("tools/scores.py", "-20 * log10(nrmse) if", "-10 * log10(nrmse) if", _SCORES),
]


def copy_package(target: Path) -> None:
    """The package and its tests, with what was compiled of them: that holds while sources keep their times."""
    for name in ("phbatch", "tests"):
        shutil.copytree(ROOT / name, target / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, target)


@contextmanager
def put_in(mutant: Mutant, target: Path) -> Iterator[None]:
    """Change the copy for a while.

    What Numba compiled is forgotten where a kernel changes: it does not look into what it calls.
    """
    path = target / "phbatch" / mutant.file
    text, times = path.read_text(encoding="utf-8"), path.stat()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.old!r} is in {mutant.file} {text.count(mutant.old)} times and must be once.")
    kernels = "compile_later" in text
    try:
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        _forget_compiled(target, kernels)
        yield
    finally:
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        _forget_compiled(target, kernels)


def _forget_compiled(target: Path, kernels: bool) -> None:
    for compiled in target.rglob("*.nb[ci]") if kernels else ():
        compiled.unlink()


def run_tests(arguments: str, target: Path, *, remember: bool) -> bool:
    """Whether tests pass in the copy: in a fork of this process, which has the libraries and nothing of ours."""
    for library in LIBRARIES:
        import_module(library)
    code, child = 3, os.fork()
    if child == 0:
        try:
            code = _run_here(arguments, target, remember)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1, 2):
        raise SystemExit(f"pytest ends with {code} for {arguments}.")
    return code == 0


def _run_here(arguments: str, target: Path, remember: bool) -> int:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(target)
    os.environ |= {"CI": "true", "PYTHONPATH": str(target)}
    if not remember:  # bytecode is told apart by whole seconds and the size of its source: a mutant's must not stay
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.path[0] = str(target)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "phbatch")]:
        del sys.modules[name]
    known = "ignore::pytest.PytestAssertRewriteWarning"  # pytest cannot rewrite what was imported before
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", known, *arguments.split()]))


def main() -> None:
    """Try mutants, all of them or those of some numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "numbers", nargs="*", type=int, help="of mutants, in the order in which they are tried; all where none is given"
    )
    parser.add_argument("--list", action="store_true", help="show them and try none")
    arguments = parser.parse_args()
    chosen = arguments.numbers or range(len(MUTANTS))
    with tempfile.TemporaryDirectory(prefix="phbatch-mutant-") as folder:
        if not arguments.list:
            copy_package(Path(folder))
        missed = 0
        for number, found in try_all(chosen, None if arguments.list else Path(folder)):
            mutant = MUTANTS[number]
            note = f"{found} (equivalent: {mutant.equivalent})" if mutant.equivalent else found
            missed += note == "survived"
            print(f"{number:3} {mutant.file:24} {mutant.old.strip()!r} -> {mutant.new.strip()!r}  {note}", flush=True)
    print(f"{len(chosen)} mutants, {missed} of them missed")
    raise SystemExit(missed > 0)


def try_all(numbers: Iterable[int], target: Path | None) -> Iterator[tuple[int, str]]:
    """Put mutants into the copy one by one; each file of tests runs once without any before."""
    passing = set[str]()
    for number in numbers:
        mutant = MUTANTS[number]
        if target is None:
            yield number, ""
            continue
        if mutant.tests not in passing and not run_tests(mutant.tests, target, remember=True):
            raise SystemExit(f"{mutant.tests} fails without any mutant.")
        passing.add(mutant.tests)
        with put_in(mutant, target):
            yield number, "survived" if run_tests(mutant.tests, target, remember=False) else "killed"


if __name__ == "__main__":
    main()
