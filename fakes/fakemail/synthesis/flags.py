"""Flags as an old mailbox has them (RFC 3501 section 2.3.2), by kind of folder. Called by: source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fakemail.synthesis.draws import weighted

#: A power of two, so that a mask chooses.
FLAGS_SIZE: Final = 64
_SEEN, _ANSWERED, _FLAGGED, _DRAFT, _FORWARDED = "\\Seen", "\\Answered", "\\Flagged", "\\Draft", "$Forwarded"
#: (flags, share of 64); keywords as the IMAP keyword registry and Thunderbird name them.
_SHARES: Final[Mapping[str, Sequence[tuple[tuple[str, ...], int]]]] = {
    "inbox": (
        ((_SEEN,), 38), ((), 7), ((_SEEN, _ANSWERED), 8), ((_SEEN, _FLAGGED), 3), ((_FLAGGED,), 1),
        ((_SEEN, _ANSWERED, _FLAGGED), 1), ((_SEEN, _FORWARDED), 2), ((_SEEN, _ANSWERED, _FORWARDED), 1),
        ((_SEEN, "$Label1"), 1), ((_SEEN, "NonJunk"), 1), ((_SEEN, "$MDNSent"), 1),
    ),
    "sent": (
        ((_SEEN,), 52), ((_SEEN, _ANSWERED), 4), ((_SEEN, _FLAGGED), 3), ((_SEEN, _FORWARDED), 3),
        ((_SEEN, "$Label2"), 2),
    ),
    "drafts": (((_DRAFT, _SEEN), 56), ((_DRAFT,), 4), ((_DRAFT, _SEEN, _FLAGGED), 4)),
    "junk": (((), 34), ((_SEEN,), 12), (("$Junk",), 8), ((_SEEN, "$Junk"), 8), ((_SEEN, "Junk"), 2)),
}  # fmt: skip
_TABLES: Final = {
    habit: tuple(frozenset(flags) for flags in weighted(shares)) for habit, shares in _SHARES.items()
}  # fmt: skip


def flags_table(habit: str) -> tuple[frozenset[str], ...]:
    """Sets of flags, each as often as it occurs."""
    return _TABLES[habit]
