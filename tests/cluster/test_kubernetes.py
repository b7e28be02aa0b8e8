"""The real operator of Dask, on an emulator of Kubernetes: what is lost is replaced, the bytes stay.

It is an emulator (`tests.cluster.emulator`): nothing here shows nodes, limits, networks, images or evictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

import phbatch
from phbatch.clusters.beside import Jobs
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from tests.cluster.emulator.session import DEADLINE_S, Emulator, emulate
from tests.cluster.paced import allow
from tests.faults.inputs import files
from tests.forks import Forked, fork_command

CHANNELS = 40
NAMES = Path(__file__).parent / "emulator" / "names" / "sitecustomize.py"


class Site:
    """An image, what a plain run makes of it, and pods that write as far as a test lets them."""

    def __init__(self, folder: Path, kubernetes: Emulator, pace: Path) -> None:
        self.kubernetes, self.pace, self.folder = kubernetes, pace, folder
        self.source, self.plain, self.output = (folder / f"{name}.zarr" for name in ("in", "plain", "out"))
        draw = np.random.default_rng(3)
        data = (500 + 20 * draw.standard_normal((2, CHANNELS, 32, 32))).astype("uint16")
        zarr.create_array(self.source, data=data, chunks=(1, 1, 32, 32))
        phbatch.run(self.source, self.plain, axes="tcyx", model="none")

    def submit(self, *options: str) -> Forked:
        """Call ``phbatch submit``, and do not wait for its end."""
        given = ["--cluster", "kubernetes", "--axes", "tcyx", "--model", "none", "--memory-per-worker", "1GB"]
        return self.command("submit", self.source, self.output, *given, *options)

    def command(self, name: str, *arguments: object) -> Forked:
        """Call a command of ``phbatch`` that knows the names of the emulator's services."""
        knowing = f"import runpy\nrunpy.run_path({str(NAMES)!r})"
        log, environment = self.folder / f"{name}.log", self.kubernetes.environment
        return fork_command(name, *arguments, log=log, environment=environment, before=knowing)

    def done(self) -> int:
        return sum(1 for _ in Ledger(Place.at(self.output)))

    def go_on(self) -> None:
        """Let another unit be written, and return once that is so."""
        least = self.done() + 1
        self.kubernetes.wait(lambda: self.done() >= least or allow(self.pace))

    def await_workers(self, count: int, call: Forked) -> None:
        """Return once so many are pods, and have come to the scheduler: the operator sends no others away."""

        def there() -> bool:
            said = dict(Jobs(Place.at(self.output)).states()).get("controller", {}).get("workers")
            return call.poll() is not None or (said == count == len(self.kubernetes.pods("worker")))

        self.kubernetes.wait(there)
        assert call.poll() is None, call.communicate()[0]

    def require_whole(self) -> None:
        assert phbatch.verify(self.output).exit_code == 0
        assert files(self.output / "0") == files(self.plain / "0")

    def running(self) -> list[dict[str, Any]]:
        """Pods that are not over."""
        return [pod for pod in self.kubernetes.get("pods") if pod["status"].get("phase") in (None, "Running")]


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulator, Path]]:
    folder = tmp_path_factory.mktemp("kubernetes")
    pace = folder / "pace"
    pace.mkdir()
    with emulate(folder, pace) as found:
        yield found, pace


@pytest.fixture
def site(tmp_path: Path, kubernetes: tuple[Emulator, Path]) -> Iterator[Site]:
    found, pace = kubernetes
    for ticket in pace.iterdir():
        ticket.unlink()
    yield Site(tmp_path, found, pace)
    (pace / "go").touch()
    for kind in ("jobs", "daskclusters"):
        for each in found.get(kind):
            found.delete(kind, each["metadata"]["name"])
    found.wait(lambda: not any(map(found.get, ("daskclusters", "deployments", "pods"))))


def test_a_worker_that_is_killed_and_workers_that_come_and_go(site: Site) -> None:
    call = site.submit("--workers", "2")
    kubernetes = site.kubernetes
    try:
        site.await_workers(2, call)
        site.go_on()
        killed, *_ = kubernetes.pods("worker")
        kubernetes.kill(killed)
        site.go_on()
        (group,) = kubernetes.get("daskworkergroups")
        for count in (3, 2):  # of two busy workers the operator may send one away alone
            kubernetes.patch("daskworkergroups", group["metadata"]["name"], {"spec": {"worker": {"replicas": count}}})
            site.await_workers(count, call)
            site.go_on()
        (site.pace / "go").touch()
        said, _ = call.communicate(timeout=DEADLINE_S)
        assert call.returncode == 0, said
    finally:
        call.kill()
        call.communicate()
    site.require_whole()
    kubernetes.wait(lambda: not kubernetes.get("daskclusters") and not site.running())


def test_the_autoscaler_of_a_dry_run_sends_workers_away_and_has_them_come_for_work(site: Site) -> None:
    options = {"axes": "tcyx", "model": "none"}
    asked = {"cluster": "kubernetes", "workers": 2, "min_workers": 1, "memory_per_worker": "1GB"}
    scripts = phbatch.submit(site.source, site.output, dry_run=True, **asked, **options).scripts
    kubernetes = site.kubernetes
    for script in scripts.values():
        kubernetes.create(yaml.safe_load(script))
    (autoscaler,) = kubernetes.get("daskautoscalers")

    def await_pods(count: int) -> None:
        """Return once so many are ready; the operator looks every 5 s, and need not rest after a change."""
        rested = {"metadata": {"annotations": {"kubernetes.dask.org/cooldown-until": "0"}}}
        kubernetes.wait(
            lambda: (
                len(kubernetes.pods("worker")) == count
                or kubernetes.patch("daskautoscalers", autoscaler["metadata"]["name"], rested)
            )
        )

    await_pods(2)
    await_pods(1)  # there is nothing to do
    with ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(phbatch.run, site.source, site.output, scheduler=kubernetes.scheduler(), **options)
            await_pods(2)
        finally:
            (site.pace / "go").touch()
        assert running.result(DEADLINE_S).exit_code == 0
    site.require_whole()
    await_pods(1)


def test_a_detached_run_whose_controller_is_killed(site: Site) -> None:
    call = site.submit("--workers", "2", "--detach")
    said, _ = call.communicate(timeout=DEADLINE_S)
    assert call.returncode == 0, said
    kubernetes = site.kubernetes
    site.go_on()
    (controller,) = (pod for pod in site.running() if "controller" in str(pod["metadata"]["labels"]))
    kubernetes.kill(controller)
    site.go_on()
    (site.pace / "go").touch()
    kubernetes.wait(lambda: kubernetes.get("jobs")[0]["status"].get("conditions"))
    (job,) = kubernetes.get("jobs")
    assert job["status"]["conditions"][0]["type"] == "Complete", kubernetes.log(job["metadata"]["name"])
    site.require_whole()
    phases = [
        pod["status"]["phase"] for pod in kubernetes.get("pods") if "controller" in str(pod["metadata"]["labels"])
    ]
    assert sorted(phases) == ["Failed", "Succeeded"]
    call = site.command("cancel", site.output)
    said, _ = call.communicate(timeout=DEADLINE_S)
    assert call.returncode == 0, said
    kubernetes.wait(lambda: not kubernetes.get("daskclusters") and not site.running())
