"""A module of the operator beside Dask's own: its requests may take as long as a busy machine needs, and are plain.

Dask's gives up a request after 10 s, and an operation that failed is begun anew a minute later, from its start.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import kopf

ssl.create_default_context = cache(ssl.create_default_context)
"""Of HTTP without TLS: a new one for every request reads all certificates of the machine, a third of the work."""

PATIENCE_S = 300.0


@kopf.on.startup()
async def be_patient(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Wait, and say again soon what was not heard."""
    settings.networking.request_timeout = PATIENCE_S
    settings.watching.connect_timeout = PATIENCE_S
    settings.persistence.consistency_timeout = PATIENCE_S
    settings.execution.default_backoff = 2
