"""TLS: the certificates of Dask's configuration, ``distributed.comm.tls``, and those that are made for one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dask

from phbatch.words.errors import UsageError, first_line

if TYPE_CHECKING:
    from distributed import Security

TCP, TLS = "tcp://", "tls://"
_WHERE = "distributed.comm.tls"
_NAMED = f"ca-file, client.cert and client.key below {_WHERE} of Dask's configuration"


def require_certificates(scheduler: str) -> None:
    """Refuse an address of TLS where there is nothing to prove who calls.

    Raises
    ------
    UsageError
        Dask's configuration names no certificates, or files that cannot be read.
    """
    if not scheduler.startswith(TLS):
        return
    from distributed import Security

    try:
        found = Security().get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:  # those of ssl are of the former
        raise UsageError(
            f"the certificates for {scheduler} cannot be read ({first_line(error)}); correct {_NAMED}."
        ) from error
    if found is None:
        raise UsageError(f"{scheduler} asks for certificates, and none are configured; name {_NAMED}.")


def wants_tls(*, asked: bool) -> bool:
    """Whether a scheduler of our own is to listen by TLS: it is asked for, or Dask is configured to refuse all else."""
    return asked or bool(dask.config.get("distributed.comm.require-encryption", False))


@contextmanager
def certified(*, asked: bool) -> Iterator[Security | None]:
    """While inside, clients of this process have the certificates of the cluster that is opened with what this gives.

    None: it listens to all, by plain TCP.

    Raises
    ------
    UsageError
        Dask's configuration names some certificates and not all, or there is nothing to make them with.
    """
    if not wants_tls(asked=asked):
        yield None
        return
    found = _configured() or make_certificates("--tls", "leave it out")
    names = {"ca-file": found.tls_ca_file, "client.cert": found.tls_client_cert, "client.key": found.tls_client_key}
    with dask.config.set({f"{_WHERE}.{name}": value for name, value in names.items()}):
        yield found


def shown_security() -> Security:
    """The certificates that a worker would be given, with names that stand for those which are made."""
    from distributed import Security

    made = {f"tls_{part}": f"<{part}>" for part in ("ca_file", "worker_cert", "worker_key")}
    return _configured() or Security(**made)


def _configured() -> Security | None:
    """Certificates of Dask's configuration for scheduler, workers and client; None where it names none."""
    from distributed import Security

    found = Security()
    certificates = {f"{role}.cert": getattr(found, f"tls_{role}_cert") for role in ("scheduler", "worker", "client")}
    named = {"ca-file": found.tls_ca_file, **certificates}
    missing = [name for name, value in named.items() if not value]
    if len(missing) == len(named):
        return None
    if missing:
        raise UsageError(f"{_WHERE} of Dask's configuration has no {' and no '.join(missing)}; name all, or none.")
    return found


def make_certificates(why: str, otherwise: str) -> Security:
    """Certificates that live as long as this process, for all who hold them.

    Parameters
    ----------
    why, otherwise : str
        What needs them, and what does without, for the sentence.

    Raises
    ------
    UsageError
        There is nothing to make them with.
    """
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError as error:
        raise UsageError(
            f"{why} needs the package cryptography, for connections that others cannot use; install it, or {otherwise}."
        ) from error
