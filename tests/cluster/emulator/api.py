"""The API: kmock's, with what servers add to an object, selectors of lists, and the resources of Dask's operator."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiohttp.web import json_response
from jsonpatch import JsonPatchTestFailed
from kmock import KubernetesEmulator, Request, action

from tests.cluster.manifests import faults, resources

_VERSIONS = itertools.count(1)
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


class Api(KubernetesEmulator):
    """In memory; what is created must be valid."""

    async def _handle(self, request: Request) -> Any:
        if request.resource is not None and request.action == action.CREATE and isinstance(request.data, dict):
            complete(request.data, request.namespace)
        if request.resource is not None and request.action == action.UPDATE:
            give_version(request.data)
        try:
            return await super()._handle(request)
        except JsonPatchTestFailed as error:  # somebody else changed the object meanwhile
            said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "message": str(error)}
            return json_response(said, status=422)
        finally:  # kmock looks through all that came, with each that comes
            self._requests[:] = [each for each in self._requests if each is not request]

    async def _serve_watch(self, request: Request) -> AsyncIterator[Any]:
        """kmock's, which loses what happens between the list that it begins with and the events that follow."""
        yield b""
        bus = self._buses[request.resource]
        mark = await bus.mark()
        try:
            found = await super()._serve_list(request)
            for item in found["items"]:
                yield {"type": "ADDED", "object": item}
            async for event in bus.stream(since=mark):
                about = event["object"]["metadata"]
                if request.namespace in (None, about["namespace"]) and request.name in (None, about["name"]):
                    yield event
        finally:
            await bus.unmark(mark)

    async def _serve_list(self, request: Request) -> Any:
        found = await super()._serve_list(request)
        parameters = request.params or {}
        labels, fields = (parse(parameters.get(f"{what}Selector") or "") for what in ("label", "field"))
        items = [
            item
            for item in found["items"]
            if all(equal == (item["metadata"].get("labels", {}).get(key) == value) for key, value, equal in labels)
            and all(equal == (field_of(item, key) == value) for key, value, equal in fields)
        ]
        resource = request.resource
        version = f"{resource.group}/{resource.version}" if resource.group else resource.version
        kind = f"{self.resources[resource].kind}List"
        return {"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}


def make_api() -> Api:
    """An API that knows what Kubernetes has, and the resources of Dask's operator."""
    api = Api()
    api.resources.load_bundled()
    api["get /version/"] << {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
    for crd in resources():
        spec = crd["spec"]
        names = spec["names"]
        api.resources[spec["group"], spec["versions"][0]["name"], names["plural"]] = {
            "kind": names["kind"],
            "singular": names["singular"],
            "shortnames": names.get("shortNames", []),
            "namespaced": True,
            "verbs": VERBS,
            "subresources": ["scale"],
        }
    return api


def next_version() -> str:
    """Of an object that is made or changed: the operator asks by it whether it has seen what it changed itself.

    It would do its work twice else, where an old state reaches it late.
    """
    return str(next(_VERSIONS))


def give_version(change: Any) -> None:
    """Add it to a merge patch, or to a JSON patch."""
    if isinstance(change, dict):
        change["metadata"] = {**(change.get("metadata") or {}), "resourceVersion": next_version()}
    elif isinstance(change, list):
        change.append({"op": "add", "path": "/metadata/resourceVersion", "value": next_version()})


def complete(manifest: dict[str, Any], namespace: str | None) -> None:
    """Add what a server adds.

    Raises
    ------
    ValueError
        A server would refuse it.
    """
    if "kind" in manifest and manifest["kind"] != "Event" and (found := faults(manifest)):
        raise ValueError(f"{manifest['kind']} {manifest['metadata'].get('name')}: {found}")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    added = {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": now}
    added |= {"namespace": namespace or "default", "annotations": {}, "labels": {}, "finalizers": []}
    given = {name: value for name, value in manifest["metadata"].items() if value is not None}
    manifest["metadata"] = added | given | {"resourceVersion": next_version()}
    manifest.setdefault("status", {})


def parse(selector: str) -> list[tuple[str, str, bool]]:
    """Key, value, and whether they are to be equal."""
    parts = [part.strip() for part in selector.split(",") if part.strip()]
    return [
        (key.rstrip("!="), value, not part.startswith(f"{key.rstrip('!=')}!="))
        for part in parts
        for key, _, value in [part.rpartition("=")]
    ]


def field_of(item: dict[str, Any], key: str) -> Any:
    """A field such as ``status.phase``."""
    for part in key.split("."):
        item = (item or {}).get(part)  # type: ignore[assignment]
    return item
