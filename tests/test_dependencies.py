"""The dependencies: what is imported is declared, what is declared is used, and nothing is capped without a reason."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import FunctionType

import phbatch
from tests.test_layers import PACKAGE, imports

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

INDIRECT = {"zarrs"}
"""Loaded by name by another library: zarr loads the codec pipeline."""


def name_of(requirement: str) -> str:
    """Canonical name of a requirement's distribution."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def imported() -> set[str]:
    """Distributions that the package imports, those of the standard library left out."""
    known = packages_distributions()
    tops = {module.split(".")[0] for path in PACKAGE.rglob("*.py") for module, _ in imports(path)}
    return {name_of(known[top][0]) for top in tops - {"phbatch"} if top in known}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    declared = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    optional = {
        name_of(requirement)
        for name in (
            *("parquet", "pandas", "xarray", "s3", "tensorflow", "jax", "slurm", "kubernetes"),
            *("nd2", "lif", "czi", "oif"),
        )
        for requirement in EXTRAS[name]
    }
    used = imported()
    assert used - optional <= declared
    assert declared - used <= INDIRECT


def test_no_version_is_capped_without_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    requirements = [*PROJECT["dependencies"], *(part for extra in EXTRAS.values() for part in extra)]
    for requirement in requirements:
        if re.search(r"<|==|~=", requirement):
            (line,) = [line for line in lines if requirement in line]
            assert "#" in line, f"{requirement} is capped and the line does not say why"


def test_no_library_is_used_by_its_internals() -> None:
    modules = {module for path in PACKAGE.rglob("*.py") for module, _ in imports(path)}
    internal = re.compile(r".*\._[a-z]|(zarr|dask|keras|numcodecs|jax)\.(core|src|base|_)")
    foreign = {module for module in modules if not module.startswith("phbatch")}
    assert {module for module in foreign if internal.match(module)} == set()
    assert {module for module in foreign if module.startswith("distributed.")} == set()


def test_every_python_that_is_claimed_is_checked() -> None:
    """`.ci/pythons` reads the classifiers."""
    pattern = r"Programming Language :: Python :: 3\.(\d+)"
    minors = [int(found[1]) for line in PROJECT["classifiers"] if (found := re.fullmatch(pattern, line))]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert sys.version_info[:2] >= (3, minors[0])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in readme


def test_no_module_has_the_name_of_a_function_beside_it() -> None:
    """Importing such a module hides the function, or the function the module."""
    public = {name for name in phbatch.__all__ if isinstance(getattr(phbatch, name), FunctionType)}
    assert public.isdisjoint(path.stem for path in Path(phbatch.__file__).parent.iterdir())
