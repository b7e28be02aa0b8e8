"""Links lead somewhere, what must be written down is, and what is cited can be."""

from __future__ import annotations

import doctest
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

import phbatch
from phbatch.shell import commands as cli
from tests.pages import NAMES, PAGES, ROOT, SETTING_NAMES, prose, without_blocks

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)

LINES = 150
"""Of the README, at most."""


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    headings = _HEADING.findall(without_blocks(page))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def wrong_links(name: str) -> list[str]:
    page = ROOT / name
    return [target for target in _LINK.findall(prose(page)) if not leads_somewhere(target, page)]


def leads_somewhere(target: str, page: Path) -> bool:
    """Whether a link may be right: files and anchors are looked at, and of what is elsewhere how it is written."""
    url = urlsplit(target)
    if url.scheme:
        return url.scheme in ("https", "http") and "." in url.netloc and not re.search(r"[\s<>]", url.path)
    file = page.parent / url.path if url.path else page
    return file.is_file() and (not url.fragment or url.fragment in anchors(file))


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    assert wrong_links(name) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_pages.ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# A heading, twice: `said`\n", encoding="utf-8")
    good = "[a](there.md) [b](there.md#a-heading-twice-said) [c](https://example.org/x) ![d](there.md)"
    bad = ["gone.md", "there.md#gone", "https://nowhere", "ftp://example.org"]
    (tmp_path / "page.md").write_text(good + " ".join(f"[x]({target})" for target in bad), encoding="utf-8")
    assert wrong_links("page.md") == bad


def test_the_readme_is_short_and_leads_to_every_kind_of_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= LINES
    for kind in ("tutorial", "howto", "reference", "explanation", "benchmarks"):
        assert f"](docs/{kind}/" in readme
    for file in ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"):
        assert f"]({file})" in readme


def test_every_page_is_in_the_contents_of_its_folder() -> None:
    for page in PAGES:
        if page.parent == ROOT or page.name == "index.md":
            continue
        contents = (page.parent / "index.md").read_text(encoding="utf-8")
        assert re.search(rf"^{page.stem}$", contents, re.M), page


def test_every_picture_is_shown() -> None:
    shown = {target.split("/")[-1] for page in PAGES for target in _LINK.findall(prose(page))}
    assert {picture.name for picture in (ROOT / "docs").glob("*.png")} <= shown


def test_the_page_of_settings_has_every_setting() -> None:
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    for name in SETTING_NAMES:
        assert f"`{name}`" in text or f"--{name.replace('_', '-')}" in text, name


def test_the_page_of_settings_is_what_is_made_of_the_table() -> None:
    """If this fails: ``python -m phbatch.shell.settings_page > docs/reference/settings.md``."""
    made = pytest.importorskip("phbatch.shell.settings_page").settings_page()
    assert (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8").strip() == made.strip()


def test_the_page_of_commands_has_every_command() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    for command in cli.cli.commands:
        assert f"```{{command-help}} {command}\n" in text, command


def test_the_page_of_python_has_every_public_name() -> None:
    text = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    for name in phbatch.__all__:
        assert (
            re.search(rf":: (phbatch\.)?{name}$", text, re.M)
            or f"automodule:: phbatch.{name}" in text
            or (name == "simulate" and "PhaseContrast" in text)
        ), name


def test_every_benchmark_names_its_script_commit_and_machine() -> None:
    for page in sorted((ROOT / "docs/benchmarks").glob("*.md")):
        if page.name == "index.md":
            continue
        lines = page.read_text(encoding="utf-8").split("\n\n")[1].splitlines()
        header, _, row = (line for line in lines if not line.startswith("<!--"))
        assert header == "| measured by | written down at commit | machine |"
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert all(cells), page
        assert re.search(r"`[0-9a-f]{7}`", cells[1]), page


def test_tables_that_a_benchmark_printed_go_where_its_last_ones_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import write_tables

    assert doctest.testmod(write_tables).failed == 0
    shown = set()
    for page in sorted((ROOT / "docs/benchmarks").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for script in re.findall(r"^<!-- printed by benchmarks/(\w+)\.py -->$", text, re.M):
            assert (ROOT / f"benchmarks/{script}.py").exists()
            assert script not in shown, f"{script} is shown by two pages"
            shown.add(script)
            there = text.split(f"<!-- printed by benchmarks/{script}.py -->\n")[1].split(f"\n{write_tables.END}")[0]
            assert write_tables.replace(text, script, write_tables.find_tables(there)) == text
    assert shown >= {"end_to_end", "growth", "peers"}


def test_the_changelog_has_the_sections_of_its_kind() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds
    assert re.search(r"^## Unreleased$", text, re.M)


def test_the_citation_has_what_the_format_requires() -> None:
    """The required keys of the Citation File Format 1.2.0, and what must agree with the project's own facts."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["type"] == "software"
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"]
    assert citation["keywords"] == project["keywords"]
