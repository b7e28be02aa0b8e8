"""Schedulers that are reached by TLS: with the certificates of Dask's configuration, and with ones made for a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from distributed import LocalCluster, Security

import phbatch
from phbatch.computing import cluster
from phbatch.computing.certificates import certified
from tests.faults.inputs import files
from tests.faults.test_schedulers import listening

WHERE = "distributed.comm.tls"
OPTIONS = {"model": "none", "axes": "tyx"}


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a scheduler with a worker, and what Dask's configuration says to those who may call it."""
    folder = tmp_path_factory.mktemp("certificates")
    made = Security.temporary()
    for name, text in made.get_tls_config_for_role("client").items():
        if text is not None:
            (folder / name).write_text(text)
    named = {f"{WHERE}.{name}": folder / file for name, file in (("client.cert", "cert"), ("client.key", "key"))}
    configured = {name: str(file) for name, file in (named | {f"{WHERE}.ca-file": folder / "ca_file"}).items()}
    made_cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tls://",
        security=made,
        dashboard_address="127.0.0.1:0",
    )
    with made_cluster:
        yield made_cluster.scheduler_address, configured


def test_a_run_on_a_scheduler_that_speaks_tls(
    source: Path, tmp_path: Path, secured: tuple[str, dict[str, str]]
) -> None:
    address, configured = secured
    assert address.startswith("tls://")
    with dask.config.set(configured):
        assert phbatch.run(source, tmp_path / "out.zarr", scheduler=address, **OPTIONS).exit_code == 0
    phbatch.run(source, tmp_path / "plain.zarr", **OPTIONS)
    assert files(tmp_path / "out.zarr" / "0") == files(tmp_path / "plain.zarr" / "0")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (("ca-file", "client.cert", "client.key"), "asks for certificates, and none are configured; name ca-file"),
        (("client.key",), "the certificates for tls://.* cannot be read"),
    ],
)
def test_without_certificates_a_run_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, secured: tuple[str, dict[str, str]], missing: tuple[str, ...], said: str
) -> None:
    address, configured = secured
    left = {name: None if name.removeprefix(f"{WHERE}.") in missing else file for name, file in configured.items()}
    with dask.config.set(left), pytest.raises(phbatch.UsageError, match=said):
        phbatch.run(source, tmp_path / "out.zarr", scheduler=address, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


def test_a_port_that_speaks_no_tls_is_refused(
    source: Path, tmp_path: Path, secured: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    with (
        dask.config.set(secured[1]),
        listening(b"") as port,
        pytest.raises(phbatch.UsageError, match=r"no Dask scheduler answers at tls://.*scheduler"),
    ):
        phbatch.run(source, tmp_path / "out.zarr", scheduler=f"tls://127.0.0.1:{port}", **OPTIONS)


def test_certificates_are_those_of_the_configuration_or_made() -> None:
    with certified(asked=False) as found:
        assert found is None
    with dask.config.set({"distributed.comm.require-encryption": True}), certified(asked=False) as found:
        assert found is not None
        assert dask.config.get(f"{WHERE}.client.key") == found.tls_client_key
    assert dask.config.get(f"{WHERE}.client.key") is None
    named = {f"{WHERE}.ca-file": "ca.pem", f"{WHERE}.scheduler.cert": "s.pem"}
    with (
        dask.config.set(named),
        pytest.raises(phbatch.UsageError, match=r"has no worker\.cert and no client\.cert"),
        certified(asked=True),
    ):
        pass
    whole = named | {f"{WHERE}.{role}.cert": "c.pem" for role in ("worker", "client")}
    with dask.config.set(whole), certified(asked=True) as found:
        assert found is not None
        assert (found.tls_ca_file, found.tls_scheduler_cert) == ("ca.pem", "s.pem")


def test_workers_are_given_certificates_by_their_script(source: Path, tmp_path: Path) -> None:
    asked = {"cluster": "slurm", "dry_run": True, "interface": "lo", **OPTIONS}
    script = phbatch.submit(source, tmp_path / "out.zarr", tls=True, **asked).scripts["worker.sh"]
    assert "tls://<scheduler>" in script
    assert "--protocol tls://" in script
    assert "--tls-key" in script
    assert "tcp://<scheduler>" in phbatch.submit(source, tmp_path / "out.zarr", **asked).scripts["worker.sh"]
    with pytest.raises(phbatch.UsageError, match="tls is not for cluster='kubernetes'"):
        phbatch.submit(source, tmp_path / "out.zarr", tls=True, **asked | {"cluster": "kubernetes", "interface": None})
