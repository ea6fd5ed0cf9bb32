"""Mail read with the standard library's parser: slow, and at home with everything odd.

compat32 is its parser here: ``policy.default`` takes five times as long. A message within the message is a file like
any other: the bytes that came, not the parser's idea of them.
Rule: the limits below hold for both readers, so that hostile mail costs no more than it weighs.
Callers: ``reader``, for what it does not read itself.
"""

from __future__ import annotations

from email.errors import HeaderDefect
from email.message import Message
from email.parser import BytesParser
from functools import partial
from typing import Any, Final

from email_service.message.fields import Parts, assemble, unfolded
from email_service.message.mail import ParsedAttachment, ParsedMessage
from email_service.message.texts import Decoder, clean, file_name, media_type, without_controls

#: Each level costs the standard library's parser a look at every line below it.
DEPTH_MAX: Final = 50
PARTS_MAX: Final = 1000
#: Header fields of one part.
FIELDS_MAX: Final = 1000
#: Lines that the standard library's parser keeps in memory, and looks that it takes at them: one for each level that is
#: open. Five times what a message of 25 MB needs.
_LINES_MAX: Final = 1_500_000
_LOOKS_MAX: Final = 5_000_000
#: Of one field that has parameters: reading them takes the square of it.
_PARAMETERS_MAX: Final = 100
_PARAMETER_BYTES_MAX: Final = 20_000


class TooMuchError(Exception):
    """A message is nested deeper, or has more parts, fields or lines, than anybody's mail."""


class Part(Message):
    """A part that counts its kind, bounds what it is asked, and takes no message apart."""

    def __init__(self, *args: Any, lines: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines = lines
        self._depth = 0
        #: How many parts the message has; one list for all of them.
        self._count = [1]

    def attach(self, payload: Any) -> None:
        """Take in a part that the parser begins."""
        depth = payload._depth = self._depth + 1  # noqa: SLF001  # its own kind
        payload._count = self._count  # noqa: SLF001  # as above
        self._count[0] += 1
        if depth > DEPTH_MAX or self._count[0] > PARTS_MAX or depth * self._lines > _LOOKS_MAX:
            raise TooMuchError
        super().attach(payload)

    def set_raw(self, name: str, value: Any) -> None:
        """Take in a header field."""
        super().set_raw(name, value)
        if len(self) > FIELDS_MAX:
            raise TooMuchError

    def get_content_type(self) -> str:
        """What the parser goes by: what it would take apart is a file to it."""
        kind = self.claimed_type()
        return "application/octet-stream" if kind.startswith("message/") else kind

    def claimed_type(self) -> str:
        """What the part says it is."""
        return super().get_content_type()

    def get_param(self, param: str, failobj: Any = None, header: str = "content-type", unquote: bool = True) -> Any:  # noqa: FBT001, FBT002  # the base class's
        """A parameter of a header field."""
        field = str(self.get(header, ""))
        if len(field) > _PARAMETER_BYTES_MAX or field.count(";") > _PARAMETERS_MAX:
            self.defects.append(HeaderDefect("too many parameters"))
            return failobj
        return super().get_param(param, failobj, header, unquote)


def read(raw: bytes) -> ParsedMessage:
    """What the message says.

    Raises:
        Exception: the standard library's parser fails in many ways, and beyond the limits it is not asked.
    """
    lines = raw.count(b"\n") + raw.count(b"\r")
    if lines > _LINES_MAX:
        raise TooMuchError
    return _Reader(BytesParser(partial(Part, lines=lines)).parsebytes(raw)).read()


class _Reader:
    """Reads one tree of parts."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._decoder = Decoder()
        self._parts = Parts()

    def read(self) -> ParsedMessage:
        """Read it all; the defects come last, as reading a part finds some of them."""
        headers = tuple((clean(name), unfolded(_bytes(value))) for name, value in self._root.raw_items())
        self._read_part(self._root)
        broken = any(part.defects for part in self._root.walk())
        return assemble(headers, self._parts, self._decoder, broken=broken)

    def _read_part(self, part: Any) -> None:
        if part.is_multipart():
            for child in part.get_payload():
                self._read_part(child)
            return
        kind = part.claimed_type()
        name = self._file_name(part)
        if name is not None or part.get_content_disposition() == "attachment":
            self._attach(part, name)
        elif kind == "text/html":
            self._parts.htmls.append(self._body(part))
        elif kind == "text/plain" or kind.startswith("multipart/"):
            # A multipart that is none (no boundary) has its text as its payload.
            self._parts.texts.append(self._body(part))
        else:
            self._attach(part, name)

    def _file_name(self, part: Any) -> str | None:
        try:
            return part.get_filename()  # type: ignore[no-any-return]
        except Exception:  # noqa: BLE001  # the standard library's readers fail in many ways
            self._decoder.broken = True
            return None

    def _attach(self, part: Any, name: str | None) -> None:
        disposition = part.get_content_disposition()
        content_id = clean(without_controls(str(part.get("Content-ID", "")).strip().strip("<>")))
        self._parts.attachments.append(
            ParsedAttachment(
                filename=file_name(self._decoder.words(clean(name or ""))),
                content_type=media_type(part.claimed_type()),
                content_id=content_id or None,
                inline=disposition == "inline" or (disposition is None and bool(content_id)),
                data=self._data(part),
            )
        )

    def _body(self, part: Any) -> str:
        try:
            charset = part.get_content_charset()
        except Exception:  # noqa: BLE001  # as above
            self._decoder.broken = True
            charset = None
        return self._decoder.body(self._data(part), charset)

    def _data(self, part: Any) -> bytes:
        try:
            data = part.get_payload(decode=True)
        except Exception:  # noqa: BLE001  # as above
            self._decoder.broken = True
            return b""
        return data if isinstance(data, bytes) else b""


def _bytes(value: str) -> bytes:
    """8-bit bytes of a header were smuggled through as halves of surrogate pairs."""
    return value.encode("ascii", "surrogateescape")
