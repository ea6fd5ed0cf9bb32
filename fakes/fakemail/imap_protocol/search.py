"""SEARCH and UID SEARCH (RFC 3501 section 6.4.4, RFC 4731, RFC 5182).

Owns: what is told of what was found. Never does: the keys (search_keys). Called by: table; sorting (``numbers_line``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from fakemail.imap_protocol.context import Answer, Context, Ok, Refused, Request
from fakemail.imap_protocol.events import Event
from fakemail.imap_protocol.search_keys import charset_at, criteria, matching
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault, quoted
from fakemail.imap_protocol.view import View
from fakemail.uids import NONE, UidSet

#: Numbers in one piece of the answer.
_NUMBERS: Final = 4096
_RETURNS: Final = ("MIN", "MAX", "COUNT", "ALL", "SAVE")


def search(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.4; RETURN by RFC 4731 section 3.1."""
    cursor, view = request.cursor, context.here
    cursor.space()
    returns = _returns(context, cursor)
    charset = _charset(cursor, view, saves=returns is not None and "SAVE" in returns)
    key, modseq = yield from criteria(context, cursor, charset)
    found = yield from matching(view, key)
    context.facts["messages"] = len(found)
    if returns is not None and "SAVE" in returns:
        view.saved = _saved(found, returns)
    if returns is None:
        yield from numbers_line(b"SEARCH", view, _numbers(view, found, request), modseq=modseq and found)
    elif set(returns) != {"SAVE"}:
        yield from _extended(view, found, request, returns, modseq=modseq)
    return Ok(text="SEARCH completed", expunges=request.by_uid)


def _returns(context: Context, cursor: Cursor) -> list[str] | None:
    if not context.has("ESEARCH") or not cursor.take_word(b"RETURN"):
        return None
    cursor.space()
    cursor.need(b"(")
    found: list[str] = []
    while not cursor.take(b")"):
        if found:
            cursor.space()
        found.append(cursor.word())
    unknown = [name for name in found if name not in _RETURNS or (name == "SAVE" and not context.has("SEARCHRES"))]
    if unknown:
        raise SyntaxFault(f"unknown RETURN option {unknown[0]}")
    cursor.space()
    return found or ["ALL"]


def _charset(cursor: Cursor, view: View, *, saves: bool) -> str:
    if not cursor.take_word(b"CHARSET"):
        return "utf-8"
    cursor.space()
    try:
        return charset_at(cursor)
    except Refused:
        if saves:
            # A search that fails leaves nothing for ``$`` (RFC 5182 section 2.1).
            view.saved = NONE
        raise


def _saved(found: UidSet, returns: list[str]) -> UidSet:
    """What ``$`` stands for (RFC 5182 section 2.4)."""
    if not found or {"ALL", "COUNT"} & set(returns) or set(returns) == {"SAVE"}:
        return found
    ends = [found.smallest] * ("MIN" in returns) + [found.largest] * ("MAX" in returns)
    return UidSet.single(ends)


def _numbers(view: View, found: UidSet, request: Request) -> UidSet:
    """UIDs, or the message numbers of them."""
    if request.by_uid:
        return found
    return UidSet.joined((number, number + high - low) for number, low, high in view.uids.runs(found))


def numbers_line(word: bytes, view: View, numbers: Iterable[int], *, modseq: UidSet | bool) -> Iterator[Event]:
    """``* SEARCH n ...`` in pieces (section 7.2.5), with the highest of these mod-sequences behind it."""
    rest = iter(numbers)
    yield b"* " + word
    while block := list(islice(rest, _NUMBERS)):
        yield b" " + " ".join(map(str, block)).encode()
    yield (b" (MODSEQ %d)" % _highest(view, modseq) if isinstance(modseq, UidSet) and modseq else b"") + b"\r\n"


def _extended(view: View, found: UidSet, request: Request, returns: list[str], *, modseq: bool) -> Iterator[Event]:
    """``* ESEARCH`` (RFC 4731 section 3.1)."""
    numbers = _numbers(view, found, request)
    words = ["* ESEARCH (TAG " + quoted(request.tag).decode() + ")"]
    if request.by_uid:
        words.append("UID")
    if found:
        words += [f"MIN {numbers.smallest}"] * ("MIN" in returns) + [f"MAX {numbers.largest}"] * ("MAX" in returns)
    if "COUNT" in returns:
        words.append(f"COUNT {len(found)}")
    if found and "ALL" in returns:
        words.append(f"ALL {numbers}")
    if modseq and found:
        words.append(f"MODSEQ {_highest(view, _shown(found, returns))}")
    yield " ".join(words).encode() + b"\r\n"


def _shown(found: UidSet, returns: list[str]) -> UidSet:
    """The messages whose mod-sequence counts (RFC 7162 section 3.1.5)."""
    if {"ALL", "COUNT"} & set(returns) or not {"MIN", "MAX"} & set(returns):
        return found
    return UidSet.single([found.smallest] * ("MIN" in returns) + [found.largest] * ("MAX" in returns))


def _highest(view: View, found: UidSet) -> int:
    return max(map(view.folder.modseq, found))
