"""What a server of Kubernetes would say of a manifest: its own schemas, and those of Dask's operator, both strict."""

from __future__ import annotations

import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # these files are long
CRDS = "operator/deployment/helm/dask-kubernetes-operator/crds"


@cache
def resources() -> list[dict[str, Any]]:
    """The custom resources that Dask's operator brings; the test is skipped where it is not installed."""
    found = find_spec("dask_kubernetes")
    if found is None or found.origin is None:
        pytest.skip("dask-kubernetes is not installed; `pip install '.[kubernetes]'`")
    paths = sorted(Path(found.origin).parent.joinpath(CRDS).glob("*.yaml"))
    return [crd for path in paths for crd in yaml.load_all(path.read_text(), LOADER) if crd]


def faults(manifest: dict[str, Any]) -> list[str]:
    """Every fault of a manifest, empty where a server would take it."""
    schema = _schemas().get((manifest["apiVersion"], manifest["kind"]))
    if schema is not None:
        jsonschema = pytest.importorskip("jsonschema", reason="`pip install '.[deploy]'`")
        found = jsonschema.Draft7Validator(schema).iter_errors(manifest)
        return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in found]
    validator = pytest.importorskip("kubernetes_validate", reason="`pip install '.[deploy]'`")
    try:
        validator.validate(manifest, validator.latest_version(), strict=True)
    except validator.ValidationError as error:
        return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}"]
    return []


@cache
def _schemas() -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for crd in resources():
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = _strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _strict(schema: Any) -> Any:
    """A schema of OpenAPI as one of JSON Schema that refuses keys which it does not name."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {name: _strict(part) for name, part in schema.items()}
    keeps = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not keeps:
        found["additionalProperties"] = False
    if found.pop("nullable", False) and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found
