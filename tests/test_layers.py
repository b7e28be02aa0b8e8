"""The layers: no arrow points up, no import hides in a function, every outside library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phbatch

PACKAGE = Path(phbatch.__file__).parent

LAYERS: list[set[str]] = [
    {"errors", "axes", "config", "events"},
    {"kernels", "simulate"},
    {"storage", "care"},
    {"stages"},
    {"memory", "planning", "resolve", "fingerprint"},
    {"lane", "tasks", "retry", "outcome", "cluster", "dispatch", "versions", "engine", "settle", "graph", "large"},
    {
        "output",
        "results",
        "prepare",
        "commit",
        "verify",
        "measure",
        "profiles",
        "inspect",
        "api",
        "report",
        "demo",
        "csbdeep",
        "compare",
        "command_options",
        "cli",
    },
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

DOORS = {
    "zarr": {"storage"},
    "numcodecs": {"storage"},
    "fsspec": {"storage"},
    "obstore": {"storage"},
    "yaozarrs": {"storage"},
    "pyarrow": {"storage"},
    "tifffile": {"storage"},
    "zlib_ng": {"storage"},
    "basicpy": {"profiles"},
    "h5py": {"care"},
    "platformdirs": {"care"},
    "keras": {"care"},
    "tensorflow": {"care"},
    "jax": {"care"},
    "dask": {"graph", "engine", "api"},
    "distributed": {"cluster", "dispatch", "versions"},
    "numba": {"kernels"},
    "click": {"cli", "command_options"},
    "rich": {"report"},
    "matplotlib": {"report"},
    "skimage": {"demo"},
    "csbdeep": {"csbdeep"},
    "pydantic": {"config", "resolve", "care", "storage"},
    "psutil": {"prepare", "graph"},
}

OPTIONAL = {"pyarrow", "basicpy", "obstore"}
"""Libraries of extras, which may be absent: imported where they are needed."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so inside of a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((str(node.module), id(node) in inner))
    return found


def test_every_file_has_a_layer() -> None:
    assert {room(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    for module, in_function in imports(path):
        top, *rest = module.split(".")
        if top == "phbatch":
            assert not in_function, f"own import of {module} inside of a function"
            if rest:
                assert LEVEL[rest[0]] <= LEVEL[room(path)], (
                    f"{room(path)} must not import {module}: the arrow points up"
                )
        elif top in DOORS:
            assert room(path) in DOORS[top], f"{module} has another door: {sorted(DOORS[top])}"
            assert not in_function or room(path) == "care" or top in OPTIONAL


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_at_most_80_lines_and_files_450(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documentation = ast.get_docstring(node, clean=False) or ""
            lines = (node.end_lineno or 0) - node.lineno + 1 - documentation.count("\n")
            assert lines <= 80, f"{path.name}:{node.name} has {lines} lines of code"


def test_the_public_door_is_sorted_and_opens() -> None:
    names = phbatch.__all__
    assert sorted(names) == names
    for name in names:
        assert getattr(phbatch, name) is not None


def test_importing_phbatch_loads_no_network_library() -> None:
    code = (
        "import sys, phbatch; phbatch.run; phbatch.csbdeep;"
        "print([name for name in ('tensorflow', 'keras', 'jax') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
