"""The list of mutants stays true: what they change is still there, and once."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {' '.join(mutant.old.split())[:40]}")
def test_what_a_mutant_changes_is_there_once(mutant: Mutant) -> None:
    assert (ROOT / "phbatch" / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / path).is_file() for path in mutant.tests.split())


def test_there_are_sixty_mutants_or_more() -> None:
    assert len(set(MUTANTS)) == len(MUTANTS) >= 60
