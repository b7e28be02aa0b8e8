"""Accounts: what each call that worked on an output did, for whoever asks later; no result depends on them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from time import time
from typing import Any

from phbatch.outputs import ledger
from phbatch.places.place import Place

FOLDER = f"{ledger.FOLDER}/accounts"
"""Beside the records, which hold times, too: all else of an output is the same however often a run was stopped."""

_FAILURES = 1000  # that are kept of one call


def keep_account(output: Place, account: Mapping[str, Any]) -> None:
    """Write what a call did; where that cannot be written, nothing is lost that anyone needs, and nothing is said."""
    failed = dict(list(account.get("failed", {}).items())[:_FAILURES])
    record = {"at": round(time(), 3)} | dict(account) | {"failed": failed}
    with suppress(OSError, ValueError):
        output.write(f"{FOLDER}/{int(time() * 1000):015d}-{uuid.uuid4().hex[:8]}.json", json.dumps(record).encode())


def read_accounts(output: Place) -> list[dict[str, Any]]:
    """What every call did, older ones first; those that cannot be read are passed over."""
    found = []
    with suppress(OSError):
        for name in sorted(output.names(FOLDER)):
            with suppress(OSError, ValueError):
                record = json.loads(output.read(f"{FOLDER}/{name}"))
                if isinstance(record, dict):
                    found.append(record)
    return found
