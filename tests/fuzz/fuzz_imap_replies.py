"""What an IMAP server says, read without mercy (RFC 3501 section 9 and the extensions' grammars).

Owns: a strict parser of server replies, and a mirror that counts messages as a client does.
Never does: forgive. What is not in the grammar raises ``MalformedError`` with the place.
Called by: the IMAP targets, core and socket; the parsers' target, for BODYSTRUCTURE and ENVELOPE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
#: A tag may hold a ']' (section 9, ASTRING-CHAR).
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
#: Names of response codes and values of attributes may hold a ']' only at their end.
_WORD = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
_FLAG = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+|\\\*')
_QUOTED = re.compile(rb'"((?:[^"\\\r\n\x00\x80-\xff]|\\["\\])*)"')
_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n")
_NUMBER = re.compile(rb"0|[1-9]\d*")
_TEXT = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]+\r\n")
_CODE = re.compile(rb"\[([A-Z][A-Z0-9.-]*)(?: ((?:[^\x00-\x1f\x7f-\xff\]\"]|\"[^\"\r\n]*\")+))?\] (?=[^\r\n])")
_SECTION = re.compile(rb"\[((?:\d+(?:\.\d+)*)?(?:\.?(?:HEADER(?:\.FIELDS(?:\.NOT)? )?|TEXT|MIME))?)", re.IGNORECASE)
_DATE = re.compile(rb'"[ \d]\d-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d{4} \d\d:\d\d:\d\d [+-]\d{4}"')
_SET = re.compile(rb"\d+(?::\d+)?(?:,\d+(?::\d+)?)*")
STATUSES = (b"OK", b"NO", b"BAD")


class MalformedError(Exception):
    """The server said what no grammar allows."""


class Atom(bytes):
    """A bare word, which is no string."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One response."""

    #: ``+``, ``*`` or a tag.
    tag: bytes
    #: OK, EXISTS, FETCH ...; empty for a continuation request.
    name: bytes = b""
    number: int = 0
    #: Response code and its argument.
    code: bytes = b""
    argument: bytes = b""
    #: For people.
    text: bytes = b""
    #: Of FETCH: items by name; else what follows the name.
    values: Any = None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def fail(self, what: str) -> MalformedError:
        around = self.data[max(0, self.at - 60) : self.at], self.data[self.at : self.at + 60]
        return MalformedError(f"{what} expected at {self.at}: {around[0]!r} <here> {around[1]!r}")

    def match(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        found = pattern.match(self.data, self.at)
        if found is None:
            raise self.fail(what)
        self.at = found.end()
        return found

    def peek(self, text: bytes) -> bool:
        return self.data.startswith(text, self.at)

    def take(self, text: bytes) -> bool:
        if self.peek(text):
            self.at += len(text)
            return True
        return False

    def need(self, text: bytes) -> None:
        if not self.take(text):
            raise self.fail(repr(text))

    # --- tokens ---

    def number(self) -> int:
        return int(self.match(_NUMBER, "number")[0])

    def nstring(self) -> bytes | None:
        if self.take(b"NIL"):
            return None
        return self.string()

    def string(self) -> bytes:
        if self.peek(b'"'):
            return re.sub(rb"\\(.)", rb"\1", self.match(_QUOTED, "quoted string")[1])
        size = int(self.match(_LITERAL, "literal")[1])
        if len(self.data) < self.at + size:
            raise self.fail(f"{size} bytes of a literal")
        self.at += size
        return self.data[self.at - size : self.at]

    def astring(self) -> bytes:
        return self.string() if self.data[self.at : self.at + 1] in {b'"', b"{"} else self.match(_WORD, "astring")[0]

    def value(self, depth: int = 0) -> Any:
        """A string, a number, NIL, a word or a list."""
        if depth > 120:
            raise self.fail("an end to nesting")
        if self.take(b"("):
            found = []
            while not self.take(b")"):
                # Lists may touch one another: addresses, the parts of a multipart.
                if found and not (isinstance(found[-1], list) and self.peek(b"(")):
                    self.need(b" ")
                found.append(self.value(depth + 1))
            return found
        if self.data[self.at : self.at + 1] in {b'"', b"{", b"~"}:
            return self.string()
        word = self.match(_WORD, "value")[0]
        if word == b"NIL":
            return None
        return int(word) if word.isdigit() else Atom(word)

    def flags(self) -> list[bytes]:
        self.need(b"(")
        found: list[bytes] = []
        while not self.take(b")"):
            if found:
                self.need(b" ")
            found.append(self.match(_FLAG, "flag")[0])
        return found


def parse(data: bytes) -> list[Reply]:
    """All responses; raises MalformedError for anything that is none, or is cut off."""
    reader, found = _Reader(data), []
    while reader.at < len(data):
        found.append(_reply(reader))
    return found


def _reply(reader: _Reader) -> Reply:
    if reader.take(b"+ "):
        end = reader.data.find(b"\r\n", reader.at)
        if end < 0:
            raise reader.fail("end of a continuation request")
        reader.at = end + 2
        return Reply(tag=b"+")
    tag = b"*" if reader.take(b"*") else reader.match(_TAG, "tag")[0]
    reader.need(b" ")
    if tag != b"*" or re.match(rb"(?:OK|NO|BAD|BYE|PREAUTH) ", reader.data[reader.at :][:8]):
        return _status(reader, tag)
    if re.match(rb"\d", reader.data[reader.at : reader.at + 1]):
        return _numbered(reader)
    name = reader.match(_ATOM, "name of a response")[0]
    read = _UNTAGGED.get(name)
    if read is None:
        raise reader.fail(f"known response, not {name!r},")
    values = read(reader)
    reader.need(b"\r\n")
    return Reply(tag=b"*", name=name, values=values)


def _status(reader: _Reader, tag: bytes) -> Reply:
    """Section 7.1; behind a response code comes text for people."""
    name = reader.match(_ATOM, "status")[0]
    allowed = (*STATUSES, b"BYE", b"PREAUTH") if tag == b"*" else STATUSES
    if name not in allowed:
        raise reader.fail(f"one of {allowed}, not {name!r},")
    reader.need(b" ")
    code = argument = b""
    if reader.peek(b"["):
        match = reader.match(_CODE, "response code and text")
        code, argument = match[1], match[2] or b""
    said = reader.match(_TEXT, "text")[0].rstrip(b"\r\n")
    return Reply(tag=tag, name=name, code=code, argument=argument, text=said)


def _numbered(reader: _Reader) -> Reply:
    number = reader.number()
    reader.need(b" ")
    name = reader.match(_ATOM, "name")[0]
    if name == b"FETCH":
        reader.need(b" ")
        items = _items(reader)
        reader.need(b"\r\n")
        return Reply(tag=b"*", name=name, number=number, values=items)
    if name not in {b"EXISTS", b"RECENT", b"EXPUNGE"}:
        raise reader.fail(f"EXISTS, RECENT, EXPUNGE or FETCH, not {name!r},")
    reader.need(b"\r\n")
    return Reply(tag=b"*", name=name, number=number)


def _items(reader: _Reader) -> dict[bytes, Any]:
    """Section 7.4.2, msg-att."""
    reader.need(b"(")
    found: dict[bytes, Any] = {}
    while not reader.take(b")"):
        if found:
            reader.need(b" ")
        name, value = _item(reader)
        if name in found and name[:4] != b"BODY":
            raise reader.fail(f"{name!r} once")
        found[name] = value
    if not found:
        raise reader.fail("something in a FETCH response")
    return found


def _item(reader: _Reader) -> tuple[bytes, Any]:  # noqa: PLR0911  # a row for each item
    name = reader.match(re.compile(rb"[A-Z0-9.]+"), "item")[0]
    if name in {b"BODY", b"BINARY"} and reader.peek(b"["):
        return name + _section(reader), _content(reader)
    if name == b"BINARY.SIZE":
        section = _section(reader)
        reader.need(b" ")
        return name + section, reader.number()
    reader.need(b" ")
    if name == b"FLAGS":
        return name, reader.flags()
    if name in {b"UID", b"RFC822.SIZE"}:
        return name, reader.number()
    if name == b"INTERNALDATE":
        return name, reader.match(_DATE, "date-time")[0]
    if name == b"MODSEQ":
        reader.need(b"(")
        value = reader.number()
        reader.need(b")")
        return name, value
    if name == b"ENVELOPE":
        return name, envelope(reader.value())
    if name in {b"BODY", b"BODYSTRUCTURE"}:
        return name, structure(reader.value())
    if name in {b"RFC822", b"RFC822.HEADER", b"RFC822.TEXT"}:
        return name, reader.nstring()
    raise reader.fail(f"known item, not {name!r},")


def _section(reader: _Reader) -> bytes:
    began = reader.at
    match = reader.match(_SECTION, "section")
    if match[1].upper().endswith((b"FIELDS ", b"NOT ")):
        names = reader.value()
        if not isinstance(names, list) or not names:
            raise reader.fail("names of header fields")
    reader.need(b"]")
    if reader.take(b"<"):
        reader.number()
        reader.need(b">")
    return reader.data[began : reader.at]


def _content(reader: _Reader) -> bytes | None:
    reader.need(b" ")
    return reader.nstring()


# --- structure and envelope ---


def structure(value: Any) -> Any:
    """BODY or BODYSTRUCTURE as a tree, if it is well-formed (section 7.4.2)."""
    _need(isinstance(value, list) and len(value) >= 2, "a body", value)
    if isinstance(value[0], list):
        return _multipart(value)
    kind, subtype, parameters, identifier, description, encoding, octets, *rest = _at_least(value, 7)
    _need(all(_is_string(each) for each in (kind, subtype, encoding)), "type, subtype and encoding as strings", value)
    _parameters(parameters)
    _need(_is_nstring(identifier) and _is_nstring(description), "id and description as nstrings", value)
    _need(isinstance(octets, int), "octets as a number", value)
    main = kind.upper(), subtype.upper()
    if main == (b"MESSAGE", b"RFC822"):
        # One that can't be taken apart is described without its inside by some servers; the grammar wants all three.
        inner_envelope, inner, lines, *rest = _at_least(rest, 3)
        envelope(inner_envelope)
        structure(inner)
        _need(isinstance(lines, int), "lines as a number", value)
    elif main[0] == b"TEXT":
        lines, *rest = _at_least(rest, 1)
        _need(isinstance(lines, int), "lines as a number", value)
    if rest:
        _need(_is_nstring(rest[0]), "MD5 as an nstring", value)
        _extension(rest[1:])
    return value


def _multipart(value: list[Any]) -> list[Any]:
    parts = 0
    while parts < len(value) and isinstance(value[parts], list):
        structure(value[parts])
        parts += 1
    subtype, *rest = _at_least(value[parts:], 1)
    _need(_is_string(subtype), "a subtype behind the parts", value)
    if rest:
        _parameters(rest[0])
        _extension(rest[1:])
    return value


def _extension(rest: list[Any]) -> None:
    """Disposition, language, location."""
    if rest:
        disposition = rest[0]
        if disposition is not None:
            _need(isinstance(disposition, list) and len(disposition) == 2, "kind and parameters", disposition)
            _need(_is_string(disposition[0]), "a disposition as a string", disposition)
            _parameters(disposition[1])
    if len(rest) > 1:
        language = rest[1]
        listed = isinstance(language, list) and bool(language) and all(_is_string(each) for each in language)
        _need(_is_nstring(language) or listed, "a language", language)
    if len(rest) > 2:
        _need(_is_nstring(rest[2]), "a location", rest[2])


def _parameters(value: Any) -> None:
    if value is None:
        return
    _need(isinstance(value, list) and bool(value) and len(value) % 2 == 0, "pairs of parameters", value)
    _need(all(_is_string(each) for each in value), "parameters as strings", value)


def envelope(value: Any) -> list[Any]:
    """ENVELOPE, if it is well-formed (section 7.4.2)."""
    _need(isinstance(value, list) and len(value) == 10, "ten fields", value)
    _need(all(_is_nstring(value[at]) for at in (0, 1, 8, 9)), "date, subject and ids as nstrings", value)
    for addresses in value[2:8]:
        if addresses is None:
            continue
        _need(isinstance(addresses, list) and bool(addresses), "NIL or addresses", addresses)
        for address in addresses:
            _need(isinstance(address, list) and len(address) == 4, "four fields of an address", address)
            _need(all(_is_nstring(each) for each in address), "an address of nstrings", address)
    return list(value)


def _at_least(value: list[Any], count: int) -> list[Any]:
    _need(len(value) >= count, f"{count} fields", value)
    return value


def _is_string(value: Any) -> bool:
    return isinstance(value, bytes) and not isinstance(value, Atom)


def _is_nstring(value: Any) -> bool:
    return value is None or _is_string(value)


def _need(holds: bool, what: str, value: Any) -> None:  # noqa: FBT001  # a claim
    if not holds:
        raise MalformedError(f"{what} expected in {value!r:.300}")


# --- untagged responses ---


def _words(reader: _Reader) -> list[bytes]:
    found = []
    while reader.take(b" "):
        found.append(reader.match(_WORD, "word")[0])
    return found


def _listed(reader: _Reader) -> Any:
    reader.need(b" ")
    flags = reader.flags()
    reader.need(b" ")
    separator = reader.nstring()
    _need(separator is None or len(separator) == 1, "one character as separator", separator)
    reader.need(b" ")
    name = reader.astring()
    return flags, name, reader.value() if reader.take(b" ") else None


def _status_of(reader: _Reader) -> Any:
    reader.need(b" ")
    name = reader.astring()
    reader.need(b" ")
    pairs = reader.value()
    _need(isinstance(pairs, list) and len(pairs) % 2 == 0, "pairs of STATUS", pairs)
    return name, pairs


def _searched(reader: _Reader) -> list[int]:
    found = []
    while reader.take(b" "):
        if reader.take(b"(MODSEQ "):
            reader.number()
            reader.need(b")")
            break
        found.append(reader.number())
    return found


def _esearched(reader: _Reader) -> Any:
    """RFC 4731 section 3.1 and RFC 4466 section 2.6.2."""
    found: dict[bytes, Any] = {}
    if reader.take(b" (TAG "):
        found[b"TAG"] = reader.string()
        reader.need(b")")
    found[b"UID"] = reader.take(b" UID")
    while reader.take(b" "):
        name = reader.match(_ATOM, "name")[0]
        reader.need(b" ")
        if name == b"ALL":
            found[name] = reader.match(_SET, "set")[0]
            continue
        _need(name in {b"MIN", b"MAX", b"COUNT", b"MODSEQ"}, "known value of ESEARCH", name)
        found[name] = reader.number()
    return found


def _vanished(reader: _Reader) -> Any:
    earlier = reader.take(b" (EARLIER)")
    reader.need(b" ")
    return earlier, reader.match(_SET, "set")[0]


def _flag_list(reader: _Reader) -> list[bytes]:
    reader.need(b" ")
    return reader.flags()


def _namespaces(reader: _Reader) -> list[Any]:
    found = []
    for _ in range(3):
        reader.need(b" ")
        found.append(reader.value())
    return found


def _identity(reader: _Reader) -> Any:
    reader.need(b" ")
    value = reader.value()
    _need(value is None or (isinstance(value, list) and len(value) % 2 == 0), "pairs of ID", value)
    return value


_UNTAGGED = {
    b"CAPABILITY": _words,
    b"ENABLED": _words,
    b"FLAGS": _flag_list,
    b"LIST": _listed,
    b"LSUB": _listed,
    b"STATUS": _status_of,
    b"SEARCH": _searched,
    b"ESEARCH": _esearched,
    b"VANISHED": _vanished,
    b"NAMESPACE": _namespaces,
    b"ID": _identity,
}


# --- a client's count ---


@dataclass(kw_only=True)
class Mirror:
    """How many messages a client believes there are; what can't be true raises MalformedError."""

    #: None while no folder is selected, or another is being selected.
    exists: int | None = None
    #: Not sure what is selected: nothing is judged until the next SELECT.
    blind: bool = False
    #: During a command in which no message may lose its number (section 7.4.1).
    frozen: bool = False

    def saw(self, reply: Reply) -> None:
        """Follow one response."""
        if reply.code == b"CLOSED":
            self.exists = None
        if reply.tag != b"*" or self.blind:
            return
        if reply.name == b"EXISTS":
            self._need(self.exists is None or reply.number >= self.exists, f"EXISTS {reply.number} shrinks")
            self.exists = reply.number
        elif reply.name == b"EXPUNGE":
            self._need(not self.frozen, "EXPUNGE during FETCH, STORE or SEARCH")
            if self.exists is not None:
                self._need(1 <= reply.number <= self.exists, f"EXPUNGE {reply.number}")
                self.exists -= 1
        elif reply.name == b"FETCH" and self.exists is not None:
            self._need(1 <= reply.number <= self.exists, f"FETCH {reply.number}")
        elif reply.name == b"VANISHED" and not reply.values[0]:
            self._need(not self.frozen, "VANISHED during FETCH, STORE or SEARCH")
            if self.exists is not None:
                self._need(_size(reply.values[1]) <= self.exists, "more have vanished than there were")
                self.exists -= _size(reply.values[1])

    def _need(self, holds: bool, what: str) -> None:  # noqa: FBT001  # a claim
        if not holds:
            raise MalformedError(f"{what}, while the client knows of {self.exists} messages")


def _size(text: bytes) -> int:
    total = 0
    for each in text.split(b","):
        low, _, high = each.partition(b":")
        total += abs(int(high or low) - int(low)) + 1
    return total
