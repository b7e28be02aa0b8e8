"""What makes pods of deployments and jobs, runs them as processes of this machine, and removes what has no owner."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import aiohttp
from kmock import KubernetesEmulator

from tests.cluster.emulator import APPS, BATCH, CORE, HOST, OWNED, OWNERS, PID
from tests.cluster.emulator.pod import start_pod, warm_up

Manifest = dict[str, Any]

LOOK_S = 0.3
PROBE = aiohttp.ClientTimeout(60)


@dataclass
class Pod:
    """A process for each pod; `again` where it is started anew when it ends."""

    process: BaseProcess
    again: bool
    ready: bool = False


class Kubelet:
    """Looks at what the API holds some times a second, and asks it for changes as everybody does.

    Parameters
    ----------
    api : KubernetesEmulator
        With a server.
    folder : Path
        Of logs and files.
    environment : dict
        Of all processes.
    """

    def __init__(self, api: KubernetesEmulator, folder: Path, environment: dict[str, str]) -> None:
        self.api, self.folder, self.environment = api, folder, environment
        self.url = str(api.url).rstrip("/")
        self.pods: dict[str, Pod] = {}
        self.leaving: dict[BaseProcess, asyncio.Task[None]] = {}
        self.ports: dict[str, dict[int, int]] = {}  # of this machine, for those of the pods of schedulers

    async def run(self) -> None:
        """Until it is cancelled."""
        await asyncio.to_thread(warm_up)
        async with aiohttp.ClientSession() as self.web:
            while True:
                await self.collect()
                for deployment in self.list("deployments"):
                    await self.keep_deployment(deployment)
                for job in self.list("jobs"):
                    await self.keep_job(job)
                await self.keep_pods()
                await self.keep_services()
                await asyncio.sleep(LOOK_S)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        kind = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        async with self.web.request(method, self.url + path, json=body, headers=kind) as answer:
            return None if answer.status == 404 else await answer.json()

    def list(self, kind: str) -> list[Manifest]:
        """Objects of a kind that are to stay."""
        items = (item for (resource, *_), item in self.api.objects.items() if resource.plural == kind)
        found = [item.raw for item in items if not item.deleted]
        return [item for item in found if not item["metadata"].get("deletionTimestamp")]

    async def collect(self) -> None:
        """Delete what is owned by something that is gone."""
        there = {kind: self.list(kind) for kind in OWNERS}
        alive = {item["metadata"]["uid"] for items in there.values() for item in items}
        for kind, group in OWNED.items():
            for item in there[kind]:
                owners = item["metadata"].get("ownerReferences") or []
                if owners and not any(owner["uid"] in alive for owner in owners):
                    await self.ask("DELETE", f"{group}/namespaces/default/{kind}/{item['metadata']['name']}")

    async def keep_deployment(self, deployment: Manifest) -> None:
        pods = [pod for pod in self.list("pods") if owned(pod, deployment)]
        if not pods:
            await self.make_pod(deployment, deployment["spec"]["template"])
        ready = sum(is_ready(pod) for pod in pods)
        if deployment["status"].get("readyReplicas") != ready:
            path = f"{APPS}/namespaces/default/deployments/{deployment['metadata']['name']}/status"
            await self.ask("PATCH", path, {"status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": ready}})

    async def keep_job(self, job: Manifest) -> None:
        if job["status"].get("conditions"):
            return
        pods = [pod for pod in self.list("pods") if owned(pod, job)]
        phases = [pod["status"].get("phase") for pod in pods]
        rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
        final = {code for rule in rules if rule["action"] == "FailJob" for code in rule["onExitCodes"]["values"]}
        failed = phases.count("Failed") > job["spec"].get("backoffLimit", 6)
        failed |= any(pod["status"].get("exitCode") in final for pod in pods)
        if "Succeeded" in phases or failed:
            condition = {"type": "Failed" if failed else "Complete", "status": "True"}
            path = f"{BATCH}/namespaces/default/jobs/{job['metadata']['name']}/status"
            await self.ask("PATCH", path, {"status": {"conditions": [condition]}})
        elif all(phase == "Failed" for phase in phases):
            await self.make_pod(job, job["spec"]["template"])

    async def make_pod(self, owner: Manifest, template: Manifest) -> None:
        about = owner["metadata"]
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": about["name"],
            "uid": about["uid"],
        }
        metadata = {
            "name": f"{about['name']}-{os.urandom(3).hex()}",
            "labels": template["metadata"].get("labels", {}),
            "ownerReferences": [reference],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        await self.ask("POST", f"{CORE}/namespaces/default/pods", pod)

    async def keep_pods(self) -> None:
        manifests = {pod["metadata"]["name"]: pod for pod in self.list("pods")}
        for name in self.pods.keys() - manifests.keys():  # the others are kept meanwhile
            process = self.pods.pop(name).process
            self.leaving[process] = asyncio.create_task(self.end(process))
        for name, manifest in manifests.items():
            pod = self.pods.get(name)
            if pod is None:
                if manifest["status"].get("phase"):
                    continue  # it is over
                again = manifest["spec"].get("restartPolicy") != "Never"
                self.pods[name] = pod = Pod(await self.start(manifest), again)
            elif pod.process.exitcode is not None:
                if not pod.again:
                    del self.pods[name]
                    code = pod.process.exitcode
                    await self.say(name, {"phase": "Failed" if code else "Succeeded", "exitCode": code}, None)
                    continue
                pod.process, pod.ready = await self.start(manifest), False
            pod.ready = pod.ready or await self.probe(manifest)
            said = manifest["metadata"]["annotations"].get(PID), is_ready(manifest)
            if said != (str(pod.process.pid), pod.ready):
                conditions = [{"type": kind, "status": str(pod.ready)} for kind in ("Ready", "ContainersReady")]
                state = {"phase": "Running", "podIP": HOST, "conditions": conditions}
                await self.say(name, state, str(pod.process.pid))

    async def say(self, name: str, status: Manifest, process: str | None) -> None:
        annotations = {"metadata": {"annotations": {PID: process}}}
        await self.ask("PATCH", f"{CORE}/namespaces/default/pods/{name}", annotations | {"status": status})

    async def probe(self, manifest: Manifest) -> bool:
        container = manifest["spec"]["containers"][0]
        probe = container.get("readinessProbe", {}).get("httpGet")
        if probe is None:
            return True
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        try:
            port = self.ports[manifest["metadata"]["name"]][ports[probe["port"]]]
            url = f"http://{HOST}:{port}{probe['path']}"
            async with self.web.get(url, timeout=PROBE) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def start(self, manifest: Manifest) -> BaseProcess:
        """Start the container of a pod, with its variables, secrets and files; what needs a node is left out."""
        name, container = manifest["metadata"]["name"], manifest["spec"]["containers"][0]
        variables = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        for source in container.get("envFrom", []):
            found = await self.ask("GET", f"{CORE}/namespaces/default/secrets/{source['secretRef']['name']}")
            held = {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}
            variables |= held | found.get("stringData", {})
        given = [
            re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), one) for one in container["args"]
        ]
        for place, folder in (await self.files(manifest)).items():
            given = [one.replace(place, str(folder)) for one in given]
        if given[:2] == ["dask", "scheduler"]:  # a pod has all ports for itself, and processes share them
            ports = self.ports.setdefault(name, {8786: free_port(), 8787: free_port()})
            given += ["--host", HOST, "--port", str(ports[8786]), "--dashboard-address", f"{HOST}:{ports[8787]}"]
        elif given[:2] == ["dask", "worker"]:
            given += ["--host", HOST, "--no-dashboard"]
        return start_pod(given, self.environment | variables, self.folder / f"{name}.log")

    async def files(self, manifest: Manifest) -> dict[str, Path]:
        """The folders of config maps, by the paths that they are mounted at."""
        spec, found = manifest["spec"], {}
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0].get("volumeMounts", [])}
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                folder = self.folder / name
                folder.mkdir(exist_ok=True)
                held = await self.ask("GET", f"{CORE}/namespaces/default/configmaps/{name}")
                for file, text in held["data"].items():
                    folder.joinpath(file).write_text(text)
                found[mounts[volume["name"]]] = folder
        return found

    async def keep_services(self) -> None:
        """Their names, and their state once a pod behind them is ready."""
        pods = self.list("pods")
        lines = []
        for service in self.list("services"):
            name, selector = service["metadata"]["name"], service["spec"]["selector"].items()
            behind = [pod for pod in pods if selector <= pod["metadata"]["labels"].items()]
            for pod in behind:
                ports = self.ports.get(pod["metadata"]["name"], {}).items()
                lines += [f"{full} {port} {where}" for full in (name, f"{name}.default") for port, where in ports]
            if not service["status"] and any(map(is_ready, behind)):
                path = f"{CORE}/namespaces/default/services/{name}/status"
                await self.ask("PATCH", path, {"status": {"loadBalancer": {}}})
        names = Path(self.environment["EMULATOR_NAMES"])
        names.with_suffix(".new").write_text("\n".join(lines))
        names.with_suffix(".new").replace(names)

    async def end(self, process: BaseProcess) -> None:
        """Tell a pod to go, and kill it where it does not."""
        process.terminate()
        for _ in range(300):
            if process.exitcode is not None:
                break
            await asyncio.sleep(0.1)
        else:
            process.kill()
        del self.leaving[process]


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def owned(item: Manifest, owner: Manifest) -> bool:
    """Whether an object is owned by another."""
    owners = item["metadata"].get("ownerReferences") or []
    return any(one["uid"] == owner["metadata"]["uid"] for one in owners)


def is_ready(pod: Manifest) -> bool:
    """Whether a pod says that it is."""
    return any(one == {"type": "Ready", "status": "True"} for one in pod["status"].get("conditions", []))
