"""What SEARCH, SORT and THREAD look for: the keys (RFC 3501 section 6.4.4, RFC 7162 section 3.1.5).

Owns: what each key means, and finding what fulfils them. Called by: search, sorting, threads.

A key is a set of UIDs where that can be said without looking at messages, else a test of one message; keys that all
must hold are tested the cheap ones first, and only on what the sets leave over.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Final

from fakemail.folder import NO_FLAGS, SYSTEM_FLAGS
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Context, Refused
from fakemail.imap_protocol.events import Pause, Steps
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.syntax import MODSEQ_MAX, NESTING_MAX, Cursor, SyntaxFault, uid_set
from fakemail.imap_protocol.texts import address_words, body_text, readable
from fakemail.imap_protocol.view import View
from fakemail.mime import field_values
from fakemail.uids import UidSet, batches

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE: Final = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4})")
_FLAG_KEYS: Final = {flag.lstrip("\\").upper(): flag for flag in SYSTEM_FLAGS.values()}
_CHARSETS: Final = {"US-ASCII": "ascii", "UTF-8": "utf-8"}
#: Messages that are looked at between two pauses, by the cost of the dearest test.
_BETWEEN_PAUSES: Final = (4096, 512, 32)
_HEADER_COST, _BODY_COST = 1, 2

Test = Callable[[Message], bool]


@dataclass(frozen=True, kw_only=True)
class Key:
    """A condition: these UIDs, or, if a test is given, those of them that pass."""

    uids: UidSet
    #: Flags that a message must have, and must not have.
    has: frozenset[str] = NO_FLAGS
    lacks: frozenset[str] = NO_FLAGS
    tests: tuple[tuple[int, Test], ...] = ()

    @property
    def plain(self) -> bool:
        """Its UIDs alone say it."""
        return not (self.has or self.lacks or self.tests)

    def fits(self, flags: frozenset[str]) -> bool:
        """Whether a message with these flags may fulfil it."""
        return self.has <= flags and self.lacks.isdisjoint(flags)

    @property
    def cost(self) -> int:
        """Of its dearest test; see _BETWEEN_PAUSES."""
        return max((cost for cost, _ in self.tests), default=0)

    def holds(self, message: Message) -> bool:
        """Whether this message fulfils it."""
        fits = message.uid in self.uids and self.fits(message.folder.flags(message.uid))
        return fits and all(test(message) for _, test in self.tests)


@dataclass(kw_only=True)
class _Parser:
    cursor: Cursor
    view: View
    context: Context
    charset: str = "utf-8"
    #: A MODSEQ key was used: the answer has the highest of what was found.
    modseq: bool = False

    def keys(self, depth: int = 0) -> Key:
        """The keys up to the end or a closing parenthesis, all of which must hold."""
        found = self.key(depth)
        while self.cursor.take(b" "):
            # A space at the end of the command is let pass, as the servers do that clients were tried with.
            if depth or not self.cursor.done:
                found = _both(found, self.key(depth))
        return found

    def key(self, depth: int) -> Key:
        if depth > NESTING_MAX:
            raise SyntaxFault("keys are nested too deeply")
        cursor, everything = self.cursor, self.view.uids
        if cursor.take(b"("):
            found = self.keys(depth + 1)
            cursor.need(b")")
            return found
        if cursor.at_set():
            # A number past the end is no error here: such a message is merely not found.
            return Key(uids=_lenient(self.view, cursor.sequence_set()))
        word = cursor.word()
        if word == "NOT":
            cursor.space()
            return _negated(self.key(depth + 1), everything)
        if word == "OR":
            cursor.space()
            first = self.key(depth + 1)
            cursor.space()
            return _either(first, self.key(depth + 1), everything)
        return self._simple(word)

    def _simple(self, word: str) -> Key:
        view, everything = self.view, self.view.uids
        unwanted = word.startswith("UN") and word[2:] in _FLAG_KEYS
        if word in _FLAG_KEYS or unwanted:
            return self._flagged(_FLAG_KEYS[word.removeprefix("UN")], has=not unwanted)
        match word:
            case "ALL":
                return Key(uids=everything)
            case "RECENT":
                return Key(uids=view.recent)
            case "OLD":
                return Key(uids=everything - view.recent)
            case "NEW":
                return _both(Key(uids=view.recent), self._flagged("\\Seen", has=False))
        self.cursor.space()
        handler = _WITH_ARGUMENT.get(word)
        if handler is None or (word == "MODSEQ" and not self.context.has("CONDSTORE")):
            raise SyntaxFault(f"unknown SEARCH key {word}")
        return handler(self, word)

    def _flagged(self, flag: str, *, has: bool) -> Key:
        wanted = frozenset({flag})
        return Key(uids=self.view.uids, has=wanted if has else NO_FLAGS, lacks=NO_FLAGS if has else wanted)

    def _tested(self, cost: int, test: Test) -> Key:
        return Key(uids=self.view.uids, tests=((cost, test),))

    def text(self) -> str:
        """A string in the character set of the command."""
        data = self.cursor.astring()
        try:
            return data.decode(self.charset)
        except UnicodeDecodeError as err:
            raise SyntaxFault("a string is not in the character set that the command names") from err

    # --- keys with an argument ---

    def uid(self, _word: str) -> Key:
        return Key(uids=self.view.named(self.cursor.sequence_set(), by_uid=True))

    def keyword(self, word: str) -> Key:
        flag = self.view.folder.spelling(self.cursor.atom().decode("ascii"))
        return self._flagged(flag, has=word == "KEYWORD")

    def size(self, word: str) -> Key:
        limit = self.cursor.number()
        larger = word == "LARGER"
        return self._tested(_HEADER_COST, lambda m: m.size > limit if larger else m.size < limit)

    def received(self, word: str) -> Key:
        return self._dated(word, _received_day)

    def sent(self, word: str) -> Key:
        return self._dated(word.removeprefix("SENT"), _sent_day)

    def _dated(self, word: str, of: Callable[[Message], date | None]) -> Key:
        day = _day(self.cursor.text())
        holds: Callable[[date], bool] = {"BEFORE": day.__gt__, "ON": day.__eq__, "SINCE": day.__le__}[word]

        def test(message: Message) -> bool:
            its = of(message)
            return its is not None and holds(its)

        return self._tested(_HEADER_COST, test)

    def header(self, _word: str) -> Key:
        name = self.cursor.text()
        self.cursor.space()
        return self._in_field(name)

    def field(self, word: str) -> Key:
        return self._in_field(word)

    def _in_field(self, name: str) -> Key:
        wanted = self.text().casefold()
        words = address_words if name.upper() in {"FROM", "TO", "CC", "BCC"} else None

        def test(message: Message) -> bool:
            values = [readable(value) for value in field_values(message.header, name)]
            if any(wanted in value.casefold() for value in values):
                return True
            return words is not None and any(wanted in each.casefold() for value in values for each in words(value))

        return self._tested(_HEADER_COST, test)

    def body(self, word: str) -> Key:
        wanted = self.text().casefold()
        whole = word == "TEXT"
        return self._tested(_BODY_COST, lambda m: wanted in body_text(m.part, header=whole).casefold())

    def mod_sequence(self, _word: str) -> Key:
        """``[entry-name entry-type] n`` (RFC 7162 section 3.1.5)."""
        if self.cursor.peek() == b'"':
            self.cursor.string()
            self.cursor.space()
            if self.cursor.word() not in {"ALL", "SHARED", "PRIV"}:
                raise SyntaxFault("all, shared or priv expected")
            self.cursor.space()
        least = self.cursor.number(largest=MODSEQ_MAX)
        self.modseq = True
        return Key(uids=self.view.uids & _at_least(self.view, least))


_WITH_ARGUMENT: Final[dict[str, Callable[[_Parser, str], Key]]] = {
    "UID": _Parser.uid,
    "KEYWORD": _Parser.keyword,
    "UNKEYWORD": _Parser.keyword,
    "LARGER": _Parser.size,
    "SMALLER": _Parser.size,
    **dict.fromkeys(("BEFORE", "ON", "SINCE"), _Parser.received),
    **dict.fromkeys(("SENTBEFORE", "SENTON", "SENTSINCE"), _Parser.sent),
    "HEADER": _Parser.header,
    **dict.fromkeys(("FROM", "TO", "CC", "BCC", "SUBJECT"), _Parser.field),
    **dict.fromkeys(("BODY", "TEXT"), _Parser.body),
    "MODSEQ": _Parser.mod_sequence,
}


# Keys together --------------------------------------------------------------------------------------------------------


def _both(first: Key, second: Key) -> Key:
    return Key(
        uids=first.uids & second.uids,
        has=first.has | second.has,
        lacks=first.lacks | second.lacks,
        tests=tuple(sorted(first.tests + second.tests, key=lambda test: test[0])),
    )


def _either(first: Key, second: Key, everything: UidSet) -> Key:
    if first.plain and second.plain:
        return Key(uids=first.uids | second.uids)
    cost = max(first.cost, second.cost)
    return Key(uids=everything, tests=((cost, lambda m: first.holds(m) or second.holds(m)),))


def _negated(key: Key, everything: UidSet) -> Key:
    if key.plain:
        return Key(uids=everything - key.uids)
    if not key.tests and len(key.has) + len(key.lacks) == 1 and key.uids == everything:
        return Key(uids=everything, has=key.lacks, lacks=key.has)
    return Key(uids=everything, tests=((key.cost, lambda m: not key.holds(m)),))


def _lenient(view: View, text: bytes) -> UidSet:
    if text == b"$":
        return view.saved & view.uids
    return view.uids.at_positions(uid_set(text, len(view.uids)))


def _at_least(view: View, modseq: int) -> UidSet:
    """Messages whose mod-sequence is this or greater."""
    return view.uids if modseq <= 1 else view.folder.changed_since(modseq - 1)


# Dates ----------------------------------------------------------------------------------------------------------------


def _received_day(message: Message) -> date:
    """The calendar day in the zone that came with the date (section 6.4.4: time and zone are disregarded)."""
    received_s, zone_min = message.folder.received(message.uid)
    return date.fromordinal(_EPOCH_DAY + (received_s + zone_min * 60) // 86_400)


_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


def _sent_day(message: Message) -> date | None:
    """The day in the Date field, time and zone disregarded; None where it can't be read."""
    value = next(iter(field_values(message.header, "date")), "")
    try:
        return parsedate_to_datetime(value).date()
    except (ValueError, OverflowError, IndexError, TypeError):
        # The last two for what the library's parser trips over.
        return None


def _day(text: str) -> date:
    match = _DATE.fullmatch(text)
    if match is None or match[2].lower() not in _MONTHS:
        raise SyntaxFault("date expected, such as 1-Feb-2026")
    try:
        return date(int(match[3]), _MONTHS.index(match[2].lower()) + 1, int(match[1]))
    except ValueError as err:
        raise SyntaxFault(f"there is no {text}") from err


# Finding --------------------------------------------------------------------------------------------------------------


def charset_at(cursor: Cursor) -> str:
    """The character set of the strings that follow; US-ASCII and UTF-8 are known."""
    name = cursor.text().upper()
    cursor.space()
    if name not in _CHARSETS:
        raise Refused("unknown character set", code="BADCHARSET (US-ASCII UTF-8)")
    return _CHARSETS[name]


def criteria(context: Context, cursor: Cursor, charset: str) -> Steps[tuple[Key, bool]]:
    """The keys up to the end of the command, and whether MODSEQ was among them."""
    parser = _Parser(cursor=cursor, view=context.here, context=context, charset=charset)
    key = parser.keys()
    cursor.end()
    if parser.modseq:
        yield from switch_on(context, "CONDSTORE")
    return key, parser.modseq


def matching(view: View, key: Key) -> Steps[UidSet]:
    """What fulfils the key, after looking at the messages that must be looked at."""
    if key.plain:
        return key.uids
    hits = array("I")
    for batch in batches(key.uids, length=_BETWEEN_PAUSES[key.cost]):
        for low, high in batch:
            block: Iterable[int] = range(low, high + 1)
            if key.has or key.lacks:
                flags = view.folder.flags_block(low, high)
                block = [uid for uid, its in zip(block, flags, strict=True) if key.fits(its)]
            hits.extend(_passing(view, key, block) if key.tests else block)
        if batch[-1][1] < key.uids.largest:
            yield Pause()
    return UidSet.ascending(hits)


def _passing(view: View, key: Key, uids: Iterable[int]) -> Iterator[int]:
    for uid in uids:
        message = Message(view.folder, view.uids.position(uid), uid)
        if all(test(message) for _, test in key.tests):
            yield uid
