"""All structures by name and number, and the plans made of them: one book per seed. Called by: layouts, source."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from fakemail.synthesis.bodies import STRUCTURES, Builder, Kit
from fakemail.synthesis.broken import BROKEN
from fakemail.synthesis.parts import Plan
from fakemail.synthesis.pools import VARIANTS, pool_of
from fakemail.synthesis.special import SPECIAL

_BUILDERS: Final[Mapping[str, Builder]] = {**STRUCTURES, **SPECIAL, **BROKEN}
_NAMES: Final = tuple(_BUILDERS)
_ROW_BITS: Final = 5
assert len(VARIANTS) <= 1 << _ROW_BITS  # noqa: S101 a slip of whoever adds a variant
#: The number of a structure's first plan; the variant is added to it.
ROWS: Final = {name: at << _ROW_BITS for at, name in enumerate(_NAMES)}


class Plans(dict[int, Plan]):
    """Plans by number, each made when it is first wanted."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, number: int) -> Plan:
        name, variant = _NAMES[number >> _ROW_BITS], number & (1 << _ROW_BITS) - 1
        made = self[number] = _BUILDERS[name](Kit(pool=pool_of(self._seed), at=variant, structure=name))
        return made


@functools.lru_cache(maxsize=8)
def plans_of(seed: int) -> Plans:
    """The book of this seed; sources keep theirs, so that a ninth seed costs the others nothing."""
    return Plans(seed)
