"""Numbers from names: the same on every machine and Python, since only hashlib and integers are asked.

Never does: ``random``, ``hash``, floats, clocks. ``mix`` is for what happens per message, ``Dice`` for tables that
are made once.
Called by: every module of this package, and mailbox (``name_hash``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")
_MASK: Final = (1 << 128) - 1
# Odd 128-bit multipliers: the golden ratio, and one whose high and low halves spread well alone.
_SPREAD: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
_STIR: Final = 0xD1342543DE82EF95C2B2AE3D27D4EB4F


def name_hash(*name: object, size: int) -> bytes:
    """A digest of everything that names a thing."""
    return hashlib.blake2b("\x1f".join(map(str, name)).encode(), digest_size=size).digest()


def mix(number: int) -> int:
    """Spread a number over 128 bits, each of which depends on all of it: half the price of a hash."""
    number = number * _SPREAD & _MASK
    number = (number ^ number >> 67) * _STIR & _MASK
    return number ^ number >> 61


class Dice:
    """As many throws as are asked for, all from one name."""

    def __init__(self, *name: object) -> None:
        self._key = int.from_bytes(name_hash("dice", *name, size=16))
        self._thrown = 0

    def below(self, limit: int) -> int:
        """An integer of 0 to ``limit`` - 1."""
        self._thrown += 1
        # The high half: the low bits of a product depend on low bits alone.
        return (mix(self._key + self._thrown) >> 64) % limit

    def of(self, choices: Sequence[_T]) -> _T:
        """One of them."""
        return choices[self.below(len(choices))]


def weighted(weights: Sequence[tuple[_T, int]]) -> tuple[_T, ...]:
    """Each value as often as its weight: what ``Dice.of`` or a few bits of a mix choose from."""
    return tuple(value for value, weight in weights for _ in range(weight))
