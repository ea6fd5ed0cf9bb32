"""Fetched mail, read straight from its bytes: the ordinary kind, which is nearly all, at a tenth of the usual cost.

Rule 1: what is read here is read as ``patient`` would read it; whatever is odd is an ``_OddError``, and left to it. A
test holds the two together.
Rule 2: ``parse`` never raises, and is linear in the bytes. Beyond the limits only the header is read, the rest is text.
Callers: service.syncing.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pybase64

from email_service.message import patient
from email_service.message.fields import Parts, assemble, unfolded
from email_service.message.mail import ParsedAttachment, ParsedMessage
from email_service.message.texts import Decoder, clean, file_name, holds_line_ends, media_type, without_controls

#: A field with the lines that continue it, and all fields of a kind that nobody needs to look at twice.
_FIELD: Final = re.compile(r"^([!-9;-~]+):(.*(?:\n[ \t].*)*)$", re.MULTILINE)
#: The same of any line ends.
_ANY_FIELD: Final = re.compile(rb"([!-9;-~]+):((?:[^\r\n]+|(?:\r\n?|\n)[ \t])*)(?:\r\n?|\n|\Z)")
_LINE_END: Final = re.compile(rb"\r\n?|\n")
#: A value with parameters that need no unquoting and no RFC 2231; more than these are left to the standard library.
_PARAMETER: Final = r"""\s*;\s*([A-Za-z0-9_-]+)=("(?!<)[^"\\\r\n]*"|[^\s"\\;<][^\s"\\;]*)"""
_VALUE: Final = re.compile(rf"\s*([A-Za-z0-9!#$&^_.+/-]+)((?:{_PARAMETER}){{0,20}})\s*;?\s*")
_ONE_PARAMETER: Final = re.compile(_PARAMETER)
_NOTHING: Final[dict[str, str]] = {}
_BARE_TYPE: Final = re.compile(r"[^/]+/[^/]+")
#: Encodings that leave the bytes as they are.
_IDENTITIES: Final = frozenset({"", "7bit", "8bit", "binary"})
_RETURN_ALONE: Final = re.compile(rb"\r(?!\n)")


class _OddError(Exception):
    """This is for the patient reader."""


def parse(raw: bytes) -> ParsedMessage:
    """What the message says, as far as it can be read."""
    try:
        return _Reader(raw).read()
    except _OddError:
        pass
    except patient.TooMuchError:
        return _header_alone(raw)
    try:
        return patient.read(raw)
    except Exception:  # noqa: BLE001  # failures on hostile input have no common class: RecursionError is one of them
        return _header_alone(raw)


def _header_alone(raw: bytes) -> ParsedMessage:
    """The header, up to the limit; all the rest is text."""
    headers: list[tuple[str, str]] = []
    at = 0
    while len(headers) < patient.FIELDS_MAX and (found := _ANY_FIELD.match(raw, at)):
        headers.append((found[1].decode("ascii"), unfolded(found[2])))
        at = found.end()
    if empty := _LINE_END.match(raw, at):
        at = empty.end()
    decoder = Decoder()
    text = decoder.body(raw[at:], None)
    return assemble(tuple(headers), Parts(texts=[text]), decoder, broken=True)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the Content-* fields of a part say."""

    #: In lower case.
    type: str
    boundary: str | None
    charset: str | None
    #: None of a part without a name.
    name: str | None
    disposition: str | None


class _Reader:
    """Reads one message."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        #: With LF for CRLF: a search for two bytes costs three times one for one.
        self._lines = _lf(raw)
        self._decoder = Decoder()
        self._parts = Parts()
        self._count = 1

    def read(self) -> ParsedMessage:
        """Read it all.

        Raises:
            _OddError: something in it is not of the ordinary kind.
            TooMuchError: it is beyond the limits.
        """
        fields, at = self._fields(0, len(self._lines))
        self._read_part(_content_fields(fields), at, len(self._lines), default="text/plain", outer=())
        headers = tuple([(name, _one_line(value)) for name, value in fields])
        return assemble(headers, self._parts, self._decoder)

    def _fields(self, at: int, end: int) -> tuple[list[tuple[str, str]], int]:
        """The header fields that begin here, still folded, and where the body begins."""
        if self._lines.startswith(b"\n", at, end):
            return [], at + 1
        stop = self._lines.find(b"\n\n", at, end)
        body = end if stop < 0 else stop + 2
        text = self._lines[at : end if stop < 0 else stop].decode("latin-1").removesuffix("\n")
        fields: list[tuple[str, str]] = _FIELD.findall(text)
        lines = len(fields) + text.count("\n ") + text.count("\n\t")
        if lines != (text.count("\n") + 1 if text else 0):
            raise _OddError
        if len(fields) > patient.FIELDS_MAX:
            raise patient.TooMuchError
        return fields, body

    def _read_part(self, fields: dict[str, str], at: int, end: int, *, default: str, outer: tuple[bytes, ...]) -> None:
        kind = _kind(fields, default)
        encoding = fields.get("content-transfer-encoding", "").lstrip(" \t").lower()
        if kind.type.startswith("multipart/"):
            if encoding not in _IDENTITIES or (not encoding and "content-transfer-encoding" in fields):
                raise _OddError
            self._read_multipart(kind, at, end, outer)
        elif kind.name is not None or kind.disposition == "attachment":
            self._attach(kind, _content_id(fields), self._file(at, end, encoding))
        elif kind.type == "text/plain":
            self._parts.texts.append(self._text(at, end, encoding, kind.charset))
        elif kind.type == "text/html":
            self._parts.htmls.append(self._text(at, end, encoding, kind.charset))
        else:
            self._attach(kind, _content_id(fields), self._file(at, end, encoding))

    def _attach(self, kind: _Kind, content_id: str | None, data: bytes) -> None:
        self._parts.attachments.append(
            ParsedAttachment(
                filename=file_name(self._decoder.words(clean(kind.name or ""))),
                content_type=media_type(kind.type),
                content_id=content_id,
                inline=kind.disposition == "inline" or (kind.disposition is None and content_id is not None),
                data=data,
            )
        )

    def _text(self, at: int, end: int, encoding: str, charset: str | None) -> str:
        data = self._lines[at:end]
        if encoding == "base64":
            return self._decoder.body(_base64(data), charset)
        if encoding == "quoted-printable":
            # An encoded CR before a line end is one line end in the original, and two here.
            if b"=0D\n" in data or b"=0d\n" in data:
                raise _OddError
            data = binascii.a2b_qp(data)
        elif encoding not in _IDENTITIES:
            raise _OddError
        if charset is not None and not holds_line_ends(charset):
            raise _OddError
        return self._decoder.body(data, charset)

    def _file(self, at: int, end: int, encoding: str) -> bytes:
        """A part's content to the byte."""
        data = self._lines[at:end]
        if encoding == "base64":
            return _base64(data)
        if len(self._raw) != len(self._lines):
            if len(self._raw) - len(self._lines) != self._lines.count(b"\n"):
                raise _OddError
            data = data.replace(b"\n", b"\r\n")
        if encoding == "quoted-printable":
            return binascii.a2b_qp(data)
        if encoding not in _IDENTITIES:
            raise _OddError
        return data

    def _read_multipart(self, kind: _Kind, at: int, end: int, outer: tuple[bytes, ...]) -> None:
        boundary = (kind.boundary or "").rstrip().encode("ascii", "replace")
        # Where one boundary begins with another, one line could end both.
        if not boundary or any(b.startswith(boundary) or boundary.startswith(b) for b in outer):
            raise _OddError
        if len(outer) >= patient.DEPTH_MAX:
            raise patient.TooMuchError
        default = "message/rfc822" if kind.type == "multipart/digest" else "text/plain"
        inner = (*outer, boundary)
        for part_at, part_end in self._split(b"--" + boundary, at, end):
            self._count += 1
            if self._count > patient.PARTS_MAX:
                raise patient.TooMuchError
            fields, body_at = self._fields(part_at, part_end)
            self._read_part(_content_fields(fields), body_at, part_end, default=default, outer=inner)

    def _split(self, delimiter: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
        """Where the parts between the delimiter's lines begin and end."""
        begun = None
        for line, behind, last in self._delimiters(delimiter, at, end):
            if begun is not None:
                # Its line end belongs to the delimiter (RFC 2046 section 5.1.1); two delimiters in a row are odd.
                if line == begun:
                    raise _OddError
                yield begun, line - 1
            elif last:
                raise _OddError
            if last:
                return
            begun = behind
        raise _OddError

    def _delimiters(self, delimiter: bytes, at: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Where lines that are the delimiter begin, where they end, and whether each is the last one."""
        lines = self._lines
        line = at if lines.startswith(delimiter, at, end) else lines.find(b"\n" + delimiter, at, end) + 1
        while line:
            behind = line + len(delimiter)
            last = lines.startswith(b"--", behind, end)
            behind += 2 * last
            stop = lines.find(b"\n", behind, end)
            stop = end if stop < 0 else stop
            if behind == stop or not lines[behind:stop].strip(b" \t"):
                yield line, min(stop + 1, end), last
            line = lines.find(b"\n" + delimiter, behind, end) + 1


def _lf(raw: bytes) -> bytes:
    """The message with LF for each CRLF; a CR alone is odd."""
    if b"\r" not in raw:
        return raw
    if _RETURN_ALONE.search(raw):
        raise _OddError
    return raw.translate(None, b"\r")


def _one_line(value: str) -> str:
    """A field's value, unfolded."""
    if value.isascii() and "\0" not in value:
        return value.replace("\n", "").strip()
    return unfolded(value.encode("latin-1"))


def _content_fields(fields: list[tuple[str, str]]) -> dict[str, str]:
    """The fields that say what a part is, the first of each name."""
    found: dict[str, str] = {}
    for name, value in fields:
        if name[0] in "cC" and (lower := name.lower()).startswith("content-"):
            if not value.isascii() or "\0" in value:
                raise _OddError
            found.setdefault(lower, value)
    return found


def _kind(fields: dict[str, str], default: str) -> _Kind:
    """What a part is; fields of the common form are read here, the others by the standard library."""
    kind, parameters = _value(fields["content-type"]) if "content-type" in fields else (default, _NOTHING)
    of_file: tuple[str | None, dict[str, str] | None]
    of_file = _value(fields["content-disposition"]) if "content-disposition" in fields else (None, _NOTHING)
    if parameters is None or of_file[1] is None or not (kind is default or _BARE_TYPE.fullmatch(kind)):
        return _odd_kind(fields, default)
    name = of_file[1].get("filename", parameters.get("name"))
    return _Kind(
        kind,
        parameters.get("boundary"),
        parameters.get("charset"),
        name if name is None else name.strip(),
        of_file[0],
    )


def _value(value: str) -> tuple[str, dict[str, str] | None]:
    """What stands before the parameters, in lower case, and the parameters; None of those that are not plain."""
    plain = _VALUE.fullmatch(value)
    if plain is None:
        return "", None
    parameters: dict[str, str] = {}
    if plain[2]:
        for name, text in _ONE_PARAMETER.findall(plain[2]):
            parameters.setdefault(name.lower(), text[1:-1] if text[0] == '"' else text)
    return plain[1].lower(), parameters


def _odd_kind(fields: dict[str, str], default: str) -> _Kind:
    """As the standard library reads these two fields."""
    part = patient.Part()
    part.set_default_type(default)
    for name in ("content-type", "content-disposition"):
        if name in fields:
            part.set_raw(name, fields[name].lstrip(" \t"))
    try:
        kind = _Kind(
            clean(part.claimed_type()),
            part.get_boundary(),
            part.get_content_charset(),
            part.get_filename(),
            part.get_content_disposition(),
        )
    except Exception as err:
        raise _OddError from err
    if part.defects:
        raise _OddError
    return kind


def _content_id(fields: dict[str, str]) -> str | None:
    return without_controls(fields.get("content-id", "").strip().strip("<>")) or None


def _base64(data: bytes) -> bytes:
    try:
        return pybase64.b64decode(data.replace(b"\n", b""), validate=True)
    except binascii.Error as err:
        raise _OddError from err
