"""The pages that people read: README.md, what lies beside it, and docs/, and the blocks within them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import phbatch

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

SETTING_NAMES = {field.alias or name for name, field in phbatch.RunSettings.model_fields.items()}

_BLOCK = re.compile(r"^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block; `why` it is not run, where it says so in a comment before it."""

    language: str
    text: str
    why: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(found["language"], found["text"], found["why"])


def without_blocks(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """A page without its fenced blocks and without code within lines."""
    return re.sub(r"`[^`\n]+`", "`code`", without_blocks(page))
