"""The base subject of a message, and how text is ordered (RFC 5256 section 2.1, RFC 5051). Pure.

Called by: sorting, threads.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

_SPACES: Final = re.compile(r"[ \t\r\n]+")
#: Tags such as ``[list]``, any number of them.
_BLOBS: Final = re.compile(r"(?:\[[^\[\]]*\] *)*")
#: ``Re:``, ``Fwd:``, ``re [2]:``.
_ANSWER: Final = re.compile(r"(?:re|fwd?) *(?:\[[^\[\]]*\] *)?:", re.IGNORECASE)
_FORWARDED: Final = re.compile(r"\[fwd:(.*)\]\Z", re.IGNORECASE | re.DOTALL)
_TRAILER: Final = "(fwd)"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a thread is about."""

    #: Without what answering and forwarding have added.
    base: str
    #: Something was added: it is an answer or was forwarded.
    is_reply: bool


def base_subject(text: str) -> Subject:
    """Of a decoded, unfolded subject (RFC 5256 section 2.1)."""
    text, is_reply = _SPACES.sub(" ", text), False
    while True:
        text, trailed = _without_trailers(text)
        text, led = _without_leaders(text)
        is_reply = is_reply or trailed or led
        forwarded = _FORWARDED.match(text)
        if forwarded is None:
            return Subject(text, is_reply)
        text, is_reply = forwarded[1], True


def _without_trailers(text: str) -> tuple[str, bool]:
    end, found = len(text), False
    while True:
        if text.endswith(" ", 0, end):
            end -= 1
        elif text[max(0, end - len(_TRAILER)) : end].lower() == _TRAILER:
            end, found = end - len(_TRAILER), True
        else:
            return text[:end], found


def _without_leaders(text: str) -> tuple[str, bool]:
    at, found = 0, False
    while True:
        while text.startswith(" ", at):
            at += 1
        tags = _BLOBS.match(text, at)
        assert tags is not None  # noqa: S101  # it matches nothing too
        answer = _ANSWER.match(text, tags.end())
        if answer is None:
            break
        at, found = answer.end(), True
    # A subject that is nothing but tags keeps the last of them.
    last = text.rfind("[", at) if tags.end() == len(text) > at else tags.end()
    return text[last:], found


def collated(text: str) -> str:
    """What compares as the text does in i;unicode-casemap (RFC 5051 section 2): without regard to case."""
    titled = "".join(each if len(each.title()) > 1 else each.title() for each in text)
    return unicodedata.normalize("NFKD", titled)
