"""Windows and macOS, as far as Linux can play them: what they lack is hidden from phbatch, which runs all the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import phbatch
from tests.faults.inputs import files, make_input

HIDE = """
    import os, signal, sys
    import dask, distributed, numba, obstore, psutil, rich, tifffile, zarr, zarrs  # they know other systems themselves

    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name in HIDDEN:
                raise ImportError(f"no {name} here")

    for name in HIDDEN:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Hide())
    for owner, names in ((signal, SIGNALS), (os, CALLS)):
        for name in names.split():
            if hasattr(owner, name):
                delattr(owner, name)
    if hasattr(os, "process_cpu_count"):  # Python 3.13 and newer; it asks for the affinity where systems know it
        os.process_cpu_count = os.cpu_count
"""

WINDOWS = """
    HIDDEN = ("fcntl", "resource", "grp", "pwd")
    SIGNALS = "SIGALRM SIGKILL SIGHUP SIGUSR1 setitimer ITIMER_REAL"
    CALLS = "O_DIRECT O_DIRECTORY posix_fadvise sched_getaffinity pwrite getuid"
"""
MACOS = """
    HIDDEN = ()
    SIGNALS = ""
    CALLS = "O_DIRECT posix_fadvise sched_getaffinity"
"""

FOLDERS_DO_NOT_OPEN = """
    real_open, real_fsync, opened = os.open, os.fsync, {}

    def open_file(path, flags, *arguments, **options):
        if "phbatch" in sys._getframe(1).f_globals["__name__"] and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        opened[(descriptor := real_open(path, flags, *arguments, **options))] = flags
        return descriptor

    def fsync(descriptor):
        if opened.pop(descriptor, os.O_RDWR) & (os.O_WRONLY | os.O_RDWR) == 0:
            raise OSError(9, "Bad file descriptor")
        real_fsync(descriptor)

    os.open, os.fsync = open_file, fsync
"""

RUN = """
    import time

    import phbatch
    from phbatch.places import lock
    from phbatch.planning import units
    from phbatch.shell.commands import main

    units._UNIT_PIXELS = 1
    lock.BEAT_S, lock.LEASE_S, lock.SETTLE_S = 0.1, 3.0, 0.01
    source, output = sys.argv[1:]

    def stop_after(count):
        seen = []
        def listen(event):
            seen.append(type(event).__name__)
        # Slowly: units run ahead of the one that commits them and says so.
        return listen, lambda: time.sleep(0.05) or seen.count("UnitFinished") >= count

    listener, stop = stop_after(1)
    try:
        phbatch.run(source, output, model="none", command="same", workers=1, listener=listener, stop=stop)
    except phbatch.InterruptedRunError:
        pass
    else:
        raise SystemExit("it did not stop")
    result = phbatch.run(source, output, model="none", command="same", workers=1)
    assert 0 < result.units_skipped < result.units, result
    assert result.peak_rss_bytes > 0
    assert phbatch.verify(output).damages == ()
    from phbatch.places.place import Place
    with lock.hold_output(Place.at(output), "one"):
        try:
            phbatch.run(source, output, model="none", command="same", workers=1)
        except phbatch.OutputError as error:
            assert "another run" in str(error), error
        else:
            raise SystemExit("two runs held it")
    print("done")
"""


@pytest.mark.parametrize("system", [(WINDOWS, HIDE, FOLDERS_DO_NOT_OPEN), (MACOS, HIDE)], ids=["windows", "macos"])
def test_a_run_is_stopped_continued_and_verified_without_what_other_systems_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: tuple[str, ...]
) -> None:
    source, output = make_input(tmp_path / "in.zarr", (30, 40, 36), (1, 40, 36)), tmp_path / "out.zarr"
    code = "\n".join(textwrap.dedent(part) for part in (*system, RUN))
    shown = subprocess.run(
        [sys.executable, "-c", code, str(source), str(output)], capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stdout) == (0, "done\n"), shown.stderr
    monkeypatch.setattr("phbatch.planning.units._UNIT_PIXELS", 1)
    here = phbatch.run(source, tmp_path / "here.zarr", model="none", command="same", workers=1).output
    assert files(output) == files(here)
