"""Put the tables that a benchmark printed into the page of the docs that shows them, with commit, date and machine.

    python benchmarks/growth.py | tee FILE
    python benchmarks/write_tables.py growth FILE [ARGUMENT ...]

`make benchmark-growth` does both. A page shows the tables of a script between two comments, and everything between
these is replaced; what the page says around them is for a person to read again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from common import machine

ROOT = Path(__file__).parents[1]
END = "<!-- end of what was printed -->"


def find_tables(printed: str) -> list[str]:
    r"""The Markdown tables of an output, those alone.

    Examples
    --------
    >>> find_tables("2 cores\n| a |\n|---|\n| 1 |\nfailed: b\n| c |\n|---|\n")
    ['| a |\n|---|\n| 1 |', '| c |\n|---|']
    """
    tables: list[list[str]] = []
    lines = printed.splitlines()
    for index, line in enumerate(lines):
        if not line.startswith("|"):
            continue
        head = index + 1 < len(lines) and re.fullmatch(r"\|(-+\|)+", lines[index + 1])
        if head or not tables:
            tables.append([])
        tables[-1].append(line)
    return ["\n".join(table) for table in tables]


def replace(page: str, script: str, tables: list[str]) -> str | None:
    r"""A page with other tables of a script; None where it shows none of it.

    Examples
    --------
    >>> page = "# Growth\n\n<!-- printed by benchmarks/growth.py -->\n| old |\n" + END + "\n\nIt grows."
    >>> print(replace(page, "growth", ["| new |"]))
    # Growth
    <BLANKLINE>
    <!-- printed by benchmarks/growth.py -->
    | new |
    <!-- end of what was printed -->
    <BLANKLINE>
    It grows.
    >>> replace(page, "host", ["| new |"]) is None
    True
    """
    begin = f"<!-- printed by benchmarks/{script}.py -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(END)
    if not found:
        return None
    if not ended:
        raise ValueError(f"{begin} has no {END} behind it; add it where the tables end.")
    return "\n".join([before + begin, "\n\n".join(tables), END + after])


def describe(script: str, arguments: list[str]) -> str:
    """The table of where the others are from."""
    ask = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*ask, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run([*ask, "status", "--porcelain", "phbatch"], capture_output=True, text=True, check=True)
    call = " ".join([f"benchmarks/{script}.py", *arguments])
    at = f"`{commit.stdout.strip()}`{' with changes' if changed.stdout else ''}, {datetime.now(UTC):%Y-%m-%d}"
    load = f", load {os.getloadavg()[1]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    head = "| measured by | written down at commit | machine |\n|---|---|---|"
    return f"{head}\n| `{call}` | {at} | {machine()}{load} |"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", help="name without .py")
    parser.add_argument("printed", type=Path, help="file of what it printed")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what it was called with")
    given = parser.parse_args()
    tables = find_tables(given.printed.read_text(encoding="utf-8"))
    if not tables:
        print(f"{given.printed} has no table; the page stays as it is")
        return
    for path in sorted((ROOT / "docs/benchmarks").glob("*.md")):
        text = replace(
            path.read_text(encoding="utf-8"), given.script, [describe(given.script, given.arguments), *tables]
        )
        if text is not None:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}: read again what it says of them")
            return
    print(f"no page of docs/benchmarks shows benchmarks/{given.script}.py")


if __name__ == "__main__":
    main()
