"""What is attached: file types, and the ways of writing their names that real mailers have (RFC 2183, 2231, 2047).

A table of sixteen part headers with the first line of the content; the rest is noise from the pool.
Called by: bodies, special.
"""

from __future__ import annotations

import functools
from typing import Final

from fakemail.synthesis.draws import name_hash
from fakemail.synthesis.encodings import LINE_OF_BASE64, base64_lines, encoded_parameter, extended_parameter
from fakemail.synthesis.parts import Attached, Gap
from fakemail.synthesis.pools import Section

#: What ends an attachment: a line that is not full, with padding.
FILE_END: Final = b"AAAAAGVuZA==\r\n"
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_ZIP: Final = b"PK\x03\x04\x14\x00\x08\x08\x08\x00"
_MAGIC: Final = {
    "application/pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01",
    "image/png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x02\x80\x00\x00\x01\xe0\x08\x06",
    "image/gif": b"GIF89a\x80\x02\xe0\x01\xf7\x00\x00",
    "audio/mpeg": b"ID3\x04\x00\x00\x00\x00\x00\x00",
    "application/ms-tnef": b"\x78\x9f\x3e\x22\x01\x00\x06\x90\x08\x00\x04\x00\x00\x00",
}
#: (type, name, how the name is written).
_FILES: Final = (
    ("application/pdf", "report-2024.pdf", "quoted"),
    ("application/pdf", "Prüfbericht März.pdf", "extended"),
    (_OFFICE + "wordprocessingml.document", "Protokoll der Besprechung, Grüße.docx", "encoded"),
    (_OFFICE + "spreadsheetml.sheet", "Budget Q3 final (2).xlsx", "quoted"),
    ("image/jpeg", "IMG_0042.JPG", "bare"),
    ("image/png", "Screenshot 2024-03-01 at 10.15.02.png", "quoted"),
    ("application/zip", "photos.zip", "bare"),
    ("application/octet-stream", "", "none"),
    (
        "application/pdf",
        "Geschäftsbericht der Gesellschaft für Prüfverfahren, überarbeitete Fassung für München.pdf",
        "latin",
    ),
    ("application/msword", "議事録.doc", "japanese"),
    ("application/vnd.ms-excel", "Отчет за неделю.xls", "russian"),
    ("application/pdf", "发票.pdf", "both"),
    ("application/ms-tnef", "winmail.dat", "quoted"),
    ("audio/mpeg", "voice message.mp3", "quoted"),
    ("application/x-gzip", 'a "quoted" \\ name.tar.gz', "quoted"),
    ("image/gif", "Réunion 🎉.gif", "extended"),
)


def _name(parameter: str, value: str, style: str) -> bytes:
    """The parameter with what separates it from the one before."""
    if style == "none":
        return b""
    if style == "bare":
        return f"; {parameter}={value}".encode("ascii")
    if style == "quoted":
        return (f'; {parameter}="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"').encode("ascii")
    written = {
        "extended": lambda: extended_parameter(parameter, value),
        "latin": lambda: extended_parameter(parameter, value, charset="iso-8859-1", language="de"),
        "russian": lambda: extended_parameter(parameter, value, charset="koi8-r", language="ru"),
        "encoded": lambda: encoded_parameter(parameter, value),
        "japanese": lambda: encoded_parameter(parameter, value, charset="iso-2022-jp"),
        "both": lambda: f'{parameter}="file.pdf";\r\n '.encode("ascii") + extended_parameter(parameter, value),
    }[style]()
    return b";\r\n " + written


def first_line(content_type: str) -> bytes:
    """A full line of base64 that begins as a file of this type does."""
    magic = _MAGIC.get(content_type, _ZIP)
    return base64_lines((magic + name_hash("file", content_type, size=LINE_OF_BASE64))[:LINE_OF_BASE64])


def file_fields(at: int) -> bytes:
    """The header of one of the sixteen, without the empty line."""
    content_type, name, style = _FILES[at]
    kind = f"Content-Type: {content_type}".encode("ascii") + _name("name", name, style) + b"\r\n"
    where = b"Content-Disposition: attachment" + _name("filename", name, style) + b"\r\n"
    return kind + where + b"Content-Transfer-Encoding: base64\r\n"


@functools.cache
def file_heads() -> tuple[bytes, ...]:
    """All sixteen, each down to its first line of content."""
    return tuple(file_fields(at) + b"\r\n" + first_line(_FILES[at][0]) for at in range(len(_FILES)))


def attachment(noise: Section, *, share: int = 256) -> Attached:
    """A part that is one of sixteen files, as large as the profile draws."""
    gap = Gap(section=noise, share=share, of_attachment=True, heads=file_heads())
    return Attached(pieces=(gap, FILE_END))
