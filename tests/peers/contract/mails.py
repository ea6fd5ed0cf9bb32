"""The letters that the cases send: each is there for a trap that readers of mail fall into.

Owns: bytes.
Called by: the case modules.
"""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime


def lines(*rows: str | bytes) -> bytes:
    """Rows as a message has them."""
    return b"".join((row if isinstance(row, bytes) else row.encode()) + b"\r\n" for row in rows)


def letter(number: int, *, subject: str | None = None, body: str = "Some text.", extra: tuple[str, ...] = ()) -> bytes:
    """A short letter with its number in it."""
    date = dt.datetime(2021, 2, number, 8, tzinfo=dt.UTC)
    return lines(
        f"From: Sender {number} <sender{number}@a.example>",
        "To: Receiver <receiver@b.example>",
        f"Subject: {subject or f'Letter {number}'}",
        f"Date: {format_datetime(date)}",
        f"Message-ID: <{number}@a.example>",
        *extra,
        "",
        body,
    )


#: Text and HTML, a letter inside, and an attachment whose name has a space.
NESTED = lines(
    "From: Ann <ann@a.example>",
    "To: Bob <bob@b.example>",
    "Subject: nested",
    "Date: Tue, 02 Mar 2021 08:00:00 +0000",
    "Message-ID: <nested@a.example>",
    "MIME-Version: 1.0",
    'Content-Type: multipart/mixed; boundary="outer"',
    "",
    "This is the preamble.",
    "--outer",
    "Content-Type: multipart/alternative; boundary=inner",
    "",
    "--inner",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: quoted-printable",
    "",
    "Gr=C3=BC=C3=9Fe",
    "--inner",
    "Content-Type: text/html; charset=us-ascii",
    "",
    "<p>Hello</p>",
    "--inner--",
    "--outer",
    "Content-Type: message/rfc822",
    "Content-Description: the letter inside",
    "",
    "From: Carl <carl@c.example>",
    "To: Ann <ann@a.example>",
    "Subject: inside",
    "Date: Mon, 01 Mar 2021 08:00:00 +0000",
    "Content-Type: multipart/mixed; boundary=deep",
    "",
    "--deep",
    "Content-Type: text/plain",
    "",
    "deep text",
    "--deep",
    "Content-Type: application/octet-stream",
    "Content-Transfer-Encoding: base64",
    "Content-ID: <thing@c.example>",
    "",
    "AAECAwQ=",
    "--deep--",
    "--outer",
    'Content-Type: application/pdf; name="a file.pdf"',
    'Content-Disposition: attachment; filename="a file.pdf"; size=5',
    "Content-Transfer-Encoding: base64",
    "Content-Language: en, de",
    "",
    "JVBERi0=",
    "--outer--",
    "This is the epilogue.",
)

#: Every kind of address: a comment, a group, a quoted local part, none at all, an encoded name, a folded line.
ADDRESSES = lines(
    'From: "Quoted, Name" <quoted@a.example>, plain@a.example',
    "Sender: The Sender <sender@a.example>",
    "To: A Group: one@b.example, Two <two@b.example>;",
    "Cc: =?utf-8?q?J=C3=BCrgen?= <jurgen@c.example>,",
    ' "odd local"@c.example',
    "Subject: =?utf-8?b?R3LDvMOfZQ==?= and",
    " a folded line",
    "In-Reply-To: <before@a.example>",
    "Message-ID: <addresses@a.example>",
    "Date: Wed, 03 Mar 2021 08:00:00 +0100",
    "",
    "text",
)

#: Next to nothing in the head.
BARE = lines("Subject: bare", "", "text of the bare letter")

#: No head at all, the body from the first line on.
NO_HEAD = lines("", "only a body")

#: A boundary that never comes.
BROKEN = lines(
    "From: a@a.example",
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=never",
    "",
    "no part begins here",
)

#: 8-bit text, a line of 2,000 characters, a lone dot, a line that looks like a literal.
EIGHT_BIT = lines(
    "From: a@a.example",
    "Subject: eight bits",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
    "",
    "Grüße aus Köln, ёлка, 日本".encode(),
    "x" * 2_000,
    ".",
    "a {12}",
    "last line",
)
