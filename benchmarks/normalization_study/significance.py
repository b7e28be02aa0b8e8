"""Whether conditions differ by more than seeds do: randomized blocks, a seed being a block, and Holm's correction.

Networks of one seed share first weights, frames and order of patches, so that they are compared seed by seed. What
neither condition nor seed explains, over all conditions of a group together, is the spread that a difference is held
against (Montgomery, Design and Analysis of Experiments, chapter 4); of two conditions that is the paired t test. It
supposes that conditions spread alike, so a difference is only called one where every seed agrees on its sign, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """Of a condition from the base.

    Attributes
    ----------
    mean : float
        Over the seeds.
    low, high : float
        Smallest and largest of a seed.
    p : float
        Two-sided, by Holm's correction for the conditions of the group.
    """

    mean: float
    low: float
    high: float
    p: float

    @property
    def exceeds(self) -> bool:
        """Whether it is more than the spread over seeds explains: p below 0.05, and all seeds of one sign."""
        return self.p < LEVEL and (self.low > 0 or self.high < 0)


def differences(base: Sequence[float], others: Mapping[str, Sequence[float]]) -> dict[str, Difference]:
    """Differences of conditions from a base, block by block.

    Parameters
    ----------
    base : sequence of float
        One value for each block; two blocks at least.
    others : mapping of str to sequence of float
        The same of the other conditions.

    Examples
    --------
    >>> found = differences([1.0, 2.0, 3.0], {"more": [2.1, 3.0, 4.1], "same": [1.1, 1.9, 3.0]})
    >>> found["more"].exceeds, found["same"].exceeds
    (True, False)
    """
    if len(base) < 2 or not others:
        raise ValueError(f"{len(base)} blocks and {len(others)} conditions tell no spread; give two and one at least")
    table = np.array([base, *others.values()], np.float64)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    error = float(np.sqrt(2 * (rest**2).sum() / freedom / table.shape[1]))
    apart = table[1:] - table[0]
    means = apart.mean(axis=1)
    raw = [float(2 * student.sf(abs(mean) / error, freedom)) if error > 0 else float(mean == 0) for mean in means]
    return {
        name: Difference(float(mean), float(one.min()), float(one.max()), p)
        for name, mean, one, p in zip(others, means, apart, holm(raw), strict=True)
    }


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values (1979, Scandinavian Journal of Statistics 6, 65-70).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(values, kind="stable")
    found, largest = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[int(at)]))
        found[int(at)] = largest
    return found
