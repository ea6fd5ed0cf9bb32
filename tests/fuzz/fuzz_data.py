"""Mail, JSON and TOML of every shape, from chance.

Owns: pieces of MIME that fit together and pieces that don't; JSON values, and how to spoil good ones.
Never does: parse any of it.
Called by: the target of the parsers.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

#: Header fields, whole: right, wrong, and in the middle of something.
FIELDS = (
    b"Content-Type: text/plain; charset=utf-8\r\n",
    b"Content-Type: multipart/mixed; boundary=A\r\n",
    b'Content-Type: multipart/alternative; boundary="A"\r\n',
    b"Content-Type: multipart/mixed; boundary=B\r\n",
    b"Content-Type: multipart/mixed\r\n",
    b'Content-Type: multipart/mixed; boundary=""\r\n',
    b"Content-Type: multipart/digest;\r\n\tboundary=B\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: message/delivery-status\r\n",
    b"Content-Type: /\r\n",
    b"Content-Type: text\r\n",
    b"Content-Type:\r\n",
    b"Content-Type: application/octet-stream; name*0*=utf-8''%41; name*1=b; x; =y; ;;\r\n",
    b'Content-Type: text/html; name="un\\"closed\r\n',
    b'Content-Type: "quoted"/"type"; a="\xff"; b=(c)\r\n',
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: 8BIT (comment)\r\n",
    b'Content-Disposition: attachment; filename="a\\"b"\r\n',
    b"Content-Disposition: ;;;\r\n",
    b"Content-Disposition:\r\n",
    b"Content-Language: de, en, \r\n",
    b"Content-Location: http://x.test/a b\r\n",
    b"Content-MD5: \x00\r\n",
    b"Content-ID: <a@b>\r\nContent-Description: \xe4\r\n",
    b"From: Ann <ann@example.test>\r\n",
    b'From: undisclosed: ;, <@>, a@b@c, "x" <y>, (c (n (e)) st) z@z\r\n',
    b"To: =?utf-8?q?=C3=A4?= <a@b.test>, group: a@b, c@d;, e@f\r\n",
    b"Cc: " + b"<" * 200 + b"\r\n",
    b"Bcc: " + b"(" * 500 + b"\r\n",
    b"Reply-To: \r\n a@b\r\n\t,\r\n",
    b"Sender: <<>>\r\n",
    b"Subject: " + b"x" * 2000 + b"\r\n",
    b"Subject: \r\n",
    b"Subject:\r\n folded\r\n\tagain\r\n",
    b"Date: yesterday\r\n",
    b'Message-ID: <\x00@\xff>\r\nIn-Reply-To: "\\\r\n',
    b"no colon here\r\n",
    b" begins folded\r\n",
    b": no name\r\n",
    b"Bare-LF: a\n",
    b"Bare-CR: a\rb\r\n",
    b"\xff\xfe: 8-bit name\r\n",
)
#: What may come behind and between headers.
BODIES = (
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"text\r\n",
    b"--A\r\n",
    b"--A--\r\n",
    b"--B\r\n",
    b"--B--\r\n",
    b"\r\n--A\r\n",
    b"\r\n--A--",
    b"--A \t\r\n",
    b"--Ax\r\n",
    b"--\r\n",
    b"----\r\n",
    b"\n--A\n",
    b"\x00",
    b"\xff",
    b"QUJD\r\n",
    b"=\r\n",
    b"--A",
    b"",
    b"preamble\r\n",
    b"--AB\r\n",
    b"-",
    b"\r",
    b"\r\n--B--\r\n\r\n--A--\r\n",
)


def mail(chance: Random) -> list[bytes]:
    """The pieces of a message."""
    pieces: list[bytes] = []
    for _ in range(chance.choice((1, 1, 2, 4, 60))):
        pieces += [chance.choice(FIELDS) for _ in range(chance.randint(0, 5))]
        pieces += [b"\r\n"] if chance.random() < 0.9 else []
        pieces += [chance.choice(BODIES) for _ in range(chance.randint(0, 6))]
    if chance.random() < 0.1:
        pieces.insert(chance.randint(0, len(pieces)), chance.randbytes(chance.randint(1, 100)))
    return pieces


def nested(chance: Random) -> list[bytes]:
    """Multiparts or messages, one in the other, deeper than anybody's patience."""
    depth = chance.choice((10, 100, 3000))
    if chance.random() < 0.5:
        return [b"Content-Type: message/rfc822\r\n\r\n"] * depth
    return [
        each
        for level in range(depth)
        for each in (b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level),)
    ]


# --- JSON ---

_LEAVES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63,
    10**400,
    0.5,
    -0.0,
    float("inf"),
    float("nan"),
    "",
    "x",
    "*",
    "[",
    "\x00",
    "\ud800",
    "451 4.7.1 Later",
    "NO [ALERT] Too many",
    "421",
    "smtp.rcpt",
    "imap.command",
    "x" * 5000,
    "\r\n",
    "first",
    [],
    {},
)


def value(chance: Random, depth: int = 3) -> Any:
    """Any JSON value."""
    kind = chance.random()
    if depth == 0 or kind < 0.6:
        return copy.deepcopy(chance.choice(_LEAVES))
    if kind < 0.8:
        return [value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    keys = ("id", "point", "when", "action", "match", "scope", "first", "nth", "reply", "drop", "delay_ms", "x", "")
    return {chance.choice(keys): value(chance, depth - 1) for _ in range(chance.randint(0, 3))}


def spoilt(chance: Random, good: Any) -> Any:
    """A copy in which something is not as it was."""
    whole = [copy.deepcopy(good)]
    for _ in range(chance.randint(1, 3)):
        holder, key = _place(chance, whole)
        change = chance.randint(0, 3)
        if change == 0:
            holder[key] = value(chance)
        elif change == 1 and isinstance(holder, dict):
            del holder[key]
        elif change == 2 and isinstance(holder, dict):
            holder[chance.choice(("x", "", "first", "reply", "drop", "close", str(key).upper()))] = holder[key]
        else:
            holder[key] = [holder[key], copy.deepcopy(holder[key])]
    return whole[0]


def _place(chance: Random, holder: Any) -> tuple[Any, Any]:
    """Somewhere in a tree: who holds it, and under which key."""
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = chance.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.3:
            return holder, key
        holder = inner
