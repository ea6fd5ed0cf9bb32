"""What must not be read is taken out of a log line, whoever wrote it: the last line of defence, not the first.

Two kinds: the secrets that this process was given (``Redactor``), as they are and in the forms that they travel in, and
what looks like a credential whoever it belongs to. It never knows a mailbox's password: that none is written is the
other modules' duty, and the rig's gate ``no-secrets`` is the proof. Called by logs for every line, so it is cheap: a
line is searched for plain words first, and only one that has such a word meets an expression.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "***"
#: Shorter secrets would blacken words that only look like them.
SECRET_CHARS_MIN: Final = 6
#: Base64, which words of a sentence are not: these have neither a capital nor a digit.
_BLOB: Final = r"(?=(?-i:\S*[A-Z0-9=]))[A-Za-z0-9+/_-]{6,}={0,2}"
#: What stands before a value in a header, an assignment, JSON, or JSON inside a JSON string.
_IS: Final = r"""(?:\\?["'])?\s*[:=]\s*(?:\\?["'])?"""
_VALUE: Final = r"""[^\s"'\\,;}&]+"""

#: A word in lower case that the line must have, the expression, and what takes its place.
_LOOKS: Final = tuple(
    (word, re.compile(pattern, re.IGNORECASE), into)
    for word, pattern, into in (
        ("authorization", rf"(authorization{_IS})(?:(?:bearer|basic|digest)\s+)?{_VALUE}", rf"\1{HIDDEN}"),
        ("bearer", rf"\b(bearer\s+){_BLOB}[\w.~+/=-]*", rf"\1{HIDDEN}"),
        ("basic", rf"\b(basic\s+){_BLOB}", rf"\1{HIDDEN}"),
        # Three parts of base64url, the first of which begins as JSON does: a signed token.
        ("eyj", r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*", HIDDEN),
        # The last @ before the path ends the login, whatever the password holds.
        ("://", r"(://[^\s/:@\"']*):[^\s/\"']*@", rf"\1:{HIDDEN}@"),
        (
            "auth",
            rf"(\bauth(?:enticate)?\s+(?:plain|login|xoauth2|oauthbearer|cram-md5|scram-\S+)\s+){_BLOB}",
            rf"\1{HIDDEN}",
        ),
        # IMAP's LOGIN after its tag: the name may stay.
        (
            " login ",
            r"""(\b[A-Za-z0-9]{1,12} LOGIN (?:\\?"[^"]*"|[^\s"]+) )(?:\\?"(?:[^"\\]|\\.)*"|[^\s"]+)""",
            rf"\1{HIDDEN}",
        ),
        ("passw", rf"(passw(?:or)?d{_IS}){_VALUE}", rf"\1{HIDDEN}"),
        ("secret", rf"((?:client_|token_)secret{_IS}){_VALUE}", rf"\1{HIDDEN}"),
        ("_token", rf"((?:access|refresh|id)_token{_IS}){_VALUE}", rf"\1{HIDDEN}"),
    )
)


class Redactor:
    """Takes out what looks like a credential, and the secrets it was given."""

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        found = {form for secret in secrets for form in _forms(secret)}
        # The longest first: one may be part of another.
        self._known = tuple(sorted(found, key=len, reverse=True))

    def __call__(self, line: str) -> str:
        """The line as it may be written."""
        for secret in self._known:
            if secret in line:
                line = line.replace(secret, HIDDEN)
        lower = line.lower()
        for word, expression, into in _LOOKS:
            if word in lower:
                line = expression.sub(into, line)
        return line

    def __repr__(self) -> str:
        return f"Redactor({len(self._known)} forms)"


def _forms(secret: str | bytes) -> Iterator[str]:
    """A secret as it is, in JSON, in a URL, in hexadecimal, and inside base64 of something longer."""
    raw = secret.encode() if isinstance(secret, str) else secret
    if len(raw) < SECRET_CHARS_MIN:
        return
    if isinstance(secret, str):
        yield from (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))
    yield from (raw.hex(), raw.hex().upper())
    for shift in range(3):
        # Without the characters that a neighbour changes.
        text = base64.b64encode(b"\0" * shift + raw).decode()[-(-shift * 4 // 3) : (shift + len(raw)) * 4 // 3]
        yield from (text, text.replace("+", "-").replace("/", "_"))
