"""The layers: no arrow points up, no import hides in a function, every outside library has one door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import phbatch

PACKAGE = Path(phbatch.__file__).parent

ROOMS = [
    "words",
    "kernels",
    "places",
    "microscopes",
    "network",
    "frames",
    "inputs",
    "planning",
    "outputs",
    "computing",
    "running",
    "training",
    "tools",
    "clusters",
    "shell",
]
"""Rooms in the order of the way of the data: a room imports from itself and from those before it."""

PUBLIC = {"simulate": "kernels", "csbdeep": "tools", "report": "tools", "xarray": "tools", "__main__": "shell"}
"""Modules beside the rooms, which users import by these names, and the room that each counts for."""

DOORS = {
    "zarr": {"places", "microscopes", "inputs", "outputs"},
    "numcodecs": {"places", "microscopes"},
    "czifile": {"microscopes"},
    "liffile": {"microscopes"},
    "nd2": {"microscopes"},
    "oiffile": {"microscopes"},
    "fsspec": {"places"},
    "obstore": {"places"},
    "yaozarrs": {"places"},
    "pyarrow": {"places"},
    "pandas": {"frames"},
    "tifffile": {"microscopes", "inputs", "tools"},
    "zlib_ng": {"places"},
    "basicpy": {"running"},
    "h5py": {"network"},
    "platformdirs": {"network", "clusters"},
    "keras": {"network"},
    "tensorflow": {"network"},
    "jax": {"network"},
    "dask": {"computing", "running"},
    "distributed": {"computing", "running", "tools"},
    "numba": {"kernels"},
    "click": {"shell"},
    "rich": {"report", "tools"},
    "matplotlib": {"tools"},
    "skimage": {"tools"},
    "jinja2": {"tools"},
    "PIL": {"tools"},
    "csbdeep": {"csbdeep"},
    "pydantic": {"words", "places", "network", "inputs", "planning", "outputs", "clusters"},
    "dask_jobqueue": {"clusters"},
    "dask_kubernetes": {"clusters"},
    "kr8s": {"clusters"},
    "yaml": {"clusters"},
    "xarray": {"running"},
    "psutil": {"places", "computing", "running", "tools"},
}

OPTIONAL = {
    *("pyarrow", "pandas", "xarray", "basicpy", "obstore", "dask_jobqueue", "dask_kubernetes", "kr8s"),
    *("czifile", "liffile", "nd2", "oiffile"),
}
"""Libraries of extras, which may be absent: imported where they are needed."""

LATE = OPTIONAL | {"numba", "distributed"}
"""What may be imported where it is needed; who hands out units needs no compiler, and a run here needs no cluster."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so inside of a function."""
    found = []

    def look(node: ast.AST, inside: bool) -> None:
        """At statements alone, of which an import is one."""
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((str(node.module), inside))
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(node, part, ()):
                look(child, inside)

    look(parse(path), False)
    return found


def level(name: str) -> int:
    return ROOMS.index(PUBLIC.get(name, name))


def test_every_file_has_a_room_that_says_what_lives_there() -> None:
    assert {room(path) for path in FILES} == {*ROOMS, *PUBLIC}
    for path in PACKAGE.glob("*/**/__init__.py"):
        assert len(re.findall(r"[.;](?=\s)", ast.get_docstring(parse(path)) + " ")) >= 2


def test_no_module_has_the_name_of_one_of_the_standard_library() -> None:
    assert not [path for path in FILES if path.stem in sys.stdlib_module_names - {"__main__"}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    for module, in_function in imports(path):
        top, *rest = module.split(".")
        if top == "phbatch":
            assert not in_function, f"own import of {module} inside of a function"
            if rest:
                assert level(rest[0]) <= level(room(path)), (
                    f"{room(path)} must not import {module}: the arrow points up"
                )
        elif top in DOORS:
            assert room(path) in DOORS[top], f"{module} has another door: {sorted(DOORS[top])}"
            assert not in_function or room(path) == "network" or top in LATE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_at_most_80_lines_and_files_450(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef):
            documentation = ast.get_docstring(node, clean=False) or ""
            lines = (node.end_lineno or 0) - node.lineno + 1 - documentation.count("\n")
            assert lines <= 80, f"{path.name}:{node.name} has {lines} lines of code"


def test_the_public_door_is_sorted_and_opens() -> None:
    names = phbatch.__all__
    assert sorted(names) == names
    for name in names:
        assert getattr(phbatch, name) is not None


def test_importing_phbatch_loads_no_network_library_and_who_hands_out_units_what_that_takes() -> None:
    code = (
        "import sys, phbatch.computing.engine; print({'numba', 'h5py'} & sys.modules.keys())\n"
        "phbatch.run; phbatch.csbdeep; print({'tensorflow', 'keras', 'jax'} & sys.modules.keys())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["set()", "set()"]
