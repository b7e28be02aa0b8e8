"""Whether a run of many images is the one that an output was begun with; images may come, and frames along t."""

from __future__ import annotations

from phbatch.computing.identity import require_same
from phbatch.outputs.ledger import Ledger
from phbatch.planning.positions import split_key
from phbatch.running.accept_positions import AcceptedPositions, geometries_of
from phbatch.running.growth import require_appendable
from phbatch.words.errors import OutputError


def require_same_positions(accepted: AcceptedPositions, *, some: bool = False) -> None:
    """Refuse an output of another run; images may come to those that it has, and `some` of them may be looked at alone.

    Raises
    ------
    OutputError
        What differs.
    """
    recorded = accepted.recorded
    if recorded is None or "fingerprint" not in recorded:
        return
    mark, old = accepted.fingerprint(), recorded["fingerprint"]
    left = [path for path in old["positions"] if path not in mark["positions"] and path not in accepted.aside]
    if left and not some:
        raise OutputError(
            f"{accepted.output} also has {', '.join(left[:4])}{' and more' if len(left) > 4 else ''}, which this run"
            " leaves out; choose them, too, or another output, or start afresh with --overwrite."
        )
    shared = {path: digest for path, digest in mark["positions"].items() if path in old["positions"]}
    shared |= {path: old["positions"][path] for path in accepted.grown}
    if any(old["positions"][path] != digest for path, digest in shared.items()):  # one may have been mended since
        begun = {split_key(record["unit"])[0] for record in Ledger(accepted.output).current(accepted.units)}
        shared = {path: digest for path, digest in shared.items() if path in begun}
        _require_appendable(accepted, begun)
    kept = {path: digest for path, digest in old["positions"].items() if path in shared}
    if shared and kept == shared:  # each says all that the root says, of one of them
        return
    if not shared:  # nothing is left of any, as of those whose chunks are made longer: frames are of each
        mark = mark | {"settings": mark["settings"] | {"frames": old["settings"]["frames"]}}
    require_same(
        accepted.output, dict(recorded) | {"fingerprint": old | {"positions": kept}}, mark | {"positions": shared}
    )


def _require_appendable(accepted: AcceptedPositions, begun: set[str]) -> None:
    before = geometries_of(accepted.recorded or {})
    for path in begun & accepted.longer.keys() - accepted.grown:
        require_appendable(accepted.runs[path], before[path].times)
