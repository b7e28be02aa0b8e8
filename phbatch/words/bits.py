"""Which of many: a bit for each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BYTES_AT_ONCE = 1 << 16


class Bits:
    """A set of whole numbers below a bound, as one bit for each; iterated over in ascending order.

    Parameters
    ----------
    bound : int
        Numbers are from 0 to one less.

    Examples
    --------
    >>> bits = Bits(10**8)
    >>> bits.add(7), bits.add(3), bits.add(7), len(bits), list(bits), 3 in bits, next(bits.absent())
    (True, True, False, 2, [3, 7], True, 0)
    """

    def __init__(self, bound: int) -> None:
        self._bound, self._count = bound, 0
        self._bytes = bytearray(-(-bound // 8))

    def add(self, number: int) -> bool:
        """Put a number in; returns whether it was not there before."""
        if not 0 <= number < self._bound:
            raise ValueError(f"{number} is not from 0 to {self._bound - 1}")
        byte, bit = number >> 3, 1 << (number & 7)
        if self._bytes[byte] & bit:
            return False
        self._bytes[byte] |= bit
        self._count += 1
        return True

    def __contains__(self, number: int) -> bool:
        return 0 <= number < self._bound and bool(self._bytes[number >> 3] >> (number & 7) & 1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return self._numbers(0)

    def absent(self) -> Iterator[int]:
        """The numbers that are not in, in ascending order; what is put in meanwhile may be among them."""
        return self._numbers(0xFF)

    def _numbers(self, mask: int) -> Iterator[int]:
        for first in range(0, len(self._bytes), _BYTES_AT_ONCE):
            part = np.frombuffer(bytes(self._bytes[first : first + _BYTES_AT_ONCE]), np.uint8)
            positions = np.flatnonzero(np.unpackbits(part ^ np.uint8(mask), bitorder="little")) + 8 * first
            yield from positions[positions < self._bound].tolist()
