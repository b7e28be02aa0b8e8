"""A sample of the table of single faults; `make soak` tries all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faults import BENCHES, Bench, small_units, table

_SAMPLED = {"exception": 16, "object": 8, "ledger": 4, "second run": 2}


@pytest.fixture(scope="module", params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with small_units():
        yield Bench(tmp_path_factory.mktemp("bench"), request.param)


@pytest.mark.parametrize("kind", _SAMPLED)
def test_a_sample_of_single_faults(bench: Bench, kind: str) -> None:
    faults = [fault for fault in table(bench.objects) if fault.kind == kind]
    for fault in random.Random(0).sample(faults, _SAMPLED[kind]):
        bench.survive(fault)


def test_the_table_has_a_thousand_faults(bench: Bench, tmp_path: Path) -> None:
    assert len(BENCHES) * len(table(bench.objects)) > 1000
