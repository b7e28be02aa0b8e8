"""A process of the command line keeps what units free; one that imports phbatch is left as it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import resource, threading
from phbatch.computing.heap import keep_heap
kept = keep_heap() if {asked} else None

def work():
    for _ in range(4):
        held = [b"x" * 3_000_000 for _ in range(12)]
        del held

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(kept, faults())
"""

glibc = pytest.mark.skipif("glibc" not in str(getattr(os, "confstr", dict)("CS_GNU_LIBC_VERSION")), reason="no glibc")


def pages_of(*, asked: bool, **environment: str) -> tuple[str, int]:
    """What the function said, and the pages that the same work took from the system when it was done again."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    shown = subprocess.run(
        [sys.executable, "-c", CODE.format(asked=asked)],
        capture_output=True,
        check=True,
        env=inherited | environment,
        text=True,
    )
    kept, found = shown.stdout.split()
    return kept, int(found)


@glibc
def test_what_was_freed_is_taken_again() -> None:
    kept, pages = pages_of(asked=True)
    assert kept == "True"
    assert pages < pages_of(asked=False)[1] / 100


@glibc
def test_an_environment_that_says_how_to_allocate_is_left_as_it_is() -> None:
    assert pages_of(asked=True, MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
