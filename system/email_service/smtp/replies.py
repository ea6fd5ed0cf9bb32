"""Replies as values, and what they mean (RFC 5321 section 4.2, RFC 3463). Pure. Called by the rest of this package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Reply codes by name (RFC 5321 section 4.2.3, RFC 4954 section 6).
SERVICE_CLOSING: Final = 421
READY: Final = 220
AUTHENTICATED: Final = 235
CONTINUE: Final = 334
START_INPUT: Final = 354
INSUFFICIENT_STORAGE: Final = 452
EXCEEDED_STORAGE: Final = 552
NAME_NOT_ALLOWED: Final = 553

_CHARACTERS_MAX: Final = 300
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]+")
#: RFC 3463 section 2.
_ENHANCED: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)")
#: RFC 3463 section 3.6: too many recipients.
_TOO_MANY: Final = ".5.3"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered to one command."""

    #: Three digits.
    code: int
    #: The text of each line.
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All on one line, cut."""
        return readable(" ".join(self.lines))

    @property
    def success(self) -> bool:
        """The first digit is 2 (RFC 5321 section 4.2.1)."""
        return self.code // 100 == 2  # noqa: PLR2004  # as the docstring says

    @property
    def transient(self) -> bool:
        """The first digit is 4: a later try may succeed."""
        return self.code // 100 == 4  # noqa: PLR2004  # as the docstring says

    @property
    def permanent(self) -> bool:
        """The first digit is 5: no later try will succeed."""
        return self.code // 100 == 5  # noqa: PLR2004  # as the docstring says


def enhanced_code(text: str) -> str | None:
    """The enhanced status code that a reply begins with, such as 5.1.1 (RFC 2034)."""
    found = _ENHANCED.match(text)
    return found[0] if found else None


def waits(reply: Reply) -> bool:
    """Whether a recipient who was refused so may be tried again.

    RFC 5321 section 4.5.3.1.10: an old server's 552 to RCPT means "too many recipients", which is a 452; one that says
    of itself that it is a full mailbox (5.2.2) is the permanent error that its first digit claims.
    """
    if reply.code != EXCEEDED_STORAGE:
        return reply.transient
    enhanced = enhanced_code(reply.text)
    return enhanced is None or enhanced.endswith(_TOO_MANY)


def too_many(code: int, text: str) -> bool:
    """Whether a recipient was refused only because the message has so many already (RFC 5321 section 4.5.3.1.10)."""
    if code not in {INSUFFICIENT_STORAGE, EXCEEDED_STORAGE}:
        return False
    enhanced = enhanced_code(text)
    return enhanced.endswith(_TOO_MANY) if enhanced else "too many" in text.lower()


def readable(text: str, *, hidden: Sequence[str] = ()) -> str:
    """A text of the server's on one line, cut, without what must not be repeated."""
    for secret in filter(None, hidden):
        text = text.replace(secret, "***")
    return _CONTROL.sub(" ", text).strip()[:_CHARACTERS_MAX]
