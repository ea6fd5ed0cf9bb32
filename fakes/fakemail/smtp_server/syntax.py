"""Paths and parameters of MAIL and RCPT (RFC 5321 sections 4.1.2 and 4.1.1.11, RFC 6531, RFC 1870, RFC 3461, RFC 4954).

Owns: their grammar. Never does: I/O, sessions, limits of a server. What can't be read raises RefusedError with the
reply that says so. Called by: verbs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fakemail import FakemailError


class RefusedError(FakemailError):
    """A command gets this reply instead of being done."""

    def __init__(self, reply: str, *, close: bool = False) -> None:
        super().__init__(reply)
        #: Code, enhanced code and text, one line (RFC 5321 section 4.2, RFC 2034).
        self.reply = reply
        #: The connection is closed after it.
        self.close = close


# RFC 6531 section 3.3 adds every character beyond ASCII to atoms, quoted text and labels; half of a surrogate pair
# stands for an octet that is no UTF-8, and belongs nowhere.
_UTF8: Final = "\u0080-\ud7ff\ue000-\U0010ffff"
_ATOM: Final = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_UTF8}]+"
_DOT_STRING: Final = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED: Final = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_LABEL: Final = rf"[A-Za-z0-9{_UTF8}](?:[A-Za-z0-9\-{_UTF8}]*[A-Za-z0-9{_UTF8}])?"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL: Final = r"\[(?P<literal>[!-Z^-~]+)\]"
#: A source route is read and ignored (section 3.6.1, appendix C).
_ROUTE: Final = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PATH: Final = re.compile(rf"<{_ROUTE}(?P<mailbox>(?:{_DOT_STRING}|{_QUOTED})@(?:{_DOMAIN}|{_LITERAL}))>(?= |$)")
_POSTMASTER: Final = re.compile(r"<postmaster>(?= |$)", re.IGNORECASE)
_GENERAL_LITERAL: Final = re.compile(r"[A-Za-z0-9\-]*[A-Za-z0-9]:[!-Z^-~]+")
_PARAMETER: Final = re.compile(rf"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~{_UTF8}]+))?")
_UNQUOTED: Final = re.compile(_DOT_STRING)
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
#: RFC 3461 section 4.4, RFC 3461 section 4.2.
_ENVID_CHARS_MAX: Final = 100
_ORCPT_CHARS_MAX: Final = 500
_NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})


def parse_path(argument: str, keyword: str) -> tuple[str, str]:
    """(mailbox, the rest) of ``FROM:<a@b> SIZE=1``; raises RefusedError.

    The mailbox is as it was written, without its source route; empty for the null reverse-path ``<>``.
    """
    if argument[: len(keyword)].upper() != keyword:
        raise RefusedError(f"501 5.5.4 Syntax: {_VERBS[keyword]}")
    # A space after the colon is forbidden (section 4.1.1.2) and common.
    text = argument[len(keyword) :].lstrip(" ")
    if path := _PATH.match(text):
        if (literal := path["literal"]) is not None and not _is_literal(literal):
            raise RefusedError(_BAD_ADDRESS[keyword])
        return path["mailbox"], text[path.end() :]
    if keyword == "FROM:" and (text == "<>" or text.startswith("<> ")):
        return "", text[2:]
    # Section 4.1.1.3: the one mailbox that needs no domain.
    if keyword == "TO:" and (path := _POSTMASTER.match(text)):
        return path[0][1:-1], text[path.end() :]
    raise RefusedError(_BAD_ADDRESS[keyword])


_VERBS: Final = {
    "FROM:": "MAIL FROM:<address> [SP parameters]",
    "TO:": "RCPT TO:<address> [SP parameters]",
}
#: RFC 3463 section 3.2.
_BAD_ADDRESS: Final = {"FROM:": "501 5.1.7 Bad sender address syntax", "TO:": "501 5.1.3 Bad recipient address syntax"}


def _is_literal(text: str) -> bool:
    """Section 4.1.3: an IPv4 address, ``IPv6:`` and one, or another tag and its text."""
    try:
        if text[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(text[5:])
            return True
        if ":" not in text:
            ipaddress.IPv4Address(text)
            return True
    except ValueError:
        return False
    return _GENERAL_LITERAL.fullmatch(text) is not None


def plain(mailbox: str) -> str:
    """The mailbox without quotes that it does not need: both forms name the same one (section 4.1.2)."""
    if not mailbox.startswith('"'):
        return mailbox
    local, _, domain = mailbox.rpartition("@")
    inner = re.sub(r"\\(.)", r"\1", local[1:-1])
    return f"{inner}@{domain}" if _UNQUOTED.fullmatch(inner) else mailbox


def domain_of(mailbox: str) -> str:
    """In lower case; empty for postmaster."""
    return mailbox.rpartition("@")[2].lower() if "@" in mailbox else ""


@dataclass(frozen=True, kw_only=True)
class MailParameters:
    """What MAIL says beyond the sender."""

    #: Declared (RFC 1870 section 3).
    size_bytes: int = 0
    #: 7BIT | 8BITMIME (RFC 6152).
    body: str = "7BIT"
    smtputf8: bool = False
    #: FULL | HDRS, and the sender's name for the envelope (RFC 3461 sections 4.3 and 4.4).
    ret: str = ""
    envid: str = ""
    #: Who submitted it, by the client's word (RFC 4954 section 5).
    auth: str = ""


@dataclass(frozen=True, kw_only=True)
class RecipientParameters:
    """What RCPT says beyond the recipient (RFC 3461 sections 4.1 and 4.2)."""

    notify: tuple[str, ...] = ()
    orcpt: str = ""


#: Of nearly every message; shared, because making one costs as much as reading the command.
NO_MAIL_PARAMETERS: Final = MailParameters()
NO_RECIPIENT_PARAMETERS: Final = RecipientParameters()


@dataclass(frozen=True, kw_only=True)
class _Parameter:
    """How a parameter is read."""

    #: The EHLO keyword that offers it.
    keyword: str
    #: Of the dataclass.
    name: str
    #: Raises ValueError.
    read: Callable[[str | None], object]


def parse_mail_parameters(rest: str, offered: frozenset[str]) -> MailParameters:
    """Parameters of MAIL; raises RefusedError for one that is unknown, not offered, doubled or broken."""
    if not rest:
        return NO_MAIL_PARAMETERS
    values = _read(rest, offered, _MAIL)
    return MailParameters(**values)  # type: ignore[arg-type]  # each reader makes its field's type


def parse_recipient_parameters(rest: str, offered: frozenset[str]) -> RecipientParameters:
    """Parameters of RCPT; raises RefusedError as for MAIL."""
    if not rest:
        return NO_RECIPIENT_PARAMETERS
    values = _read(rest, offered, _RCPT)
    return RecipientParameters(**values)  # type: ignore[arg-type]  # as above


def _read(rest: str, offered: frozenset[str], table: Mapping[str, _Parameter]) -> dict[str, object]:
    values: dict[str, object] = {}
    for word in rest.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise RefusedError("501 5.5.4 Bad parameter syntax")
        name = match[1].upper()
        parameter = table.get(name)
        if parameter is None or parameter.keyword not in offered:
            raise RefusedError(f"555 5.5.4 Parameter {name} not recognized or not offered")
        if parameter.name in values:
            raise RefusedError(f"501 5.5.4 Parameter {name} given twice")
        try:
            values[parameter.name] = parameter.read(match[2])
        except ValueError as err:
            raise RefusedError(f"501 5.5.4 Bad value of {name}: {err}") from err
    return values


def _size(value: str | None) -> int:
    # RFC 1870 section 3: up to twenty digits.
    if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
        raise ValueError("1 to 20 digits")
    return int(value)


def _one_of(*allowed: str) -> Callable[[str | None], str]:
    def read(value: str | None) -> str:
        if (word := (value or "").upper()) not in allowed:
            raise ValueError(" or ".join(allowed))
        return word

    return read


def _flag(value: str | None) -> bool:
    if value is not None:
        raise ValueError("it takes no value")
    return True


def _envid(value: str | None) -> str:
    return _xtext(value, chars_max=_ENVID_CHARS_MAX)


def _submitter(value: str | None) -> str:
    return "<>" if value == "<>" else _xtext(value, chars_max=_ORCPT_CHARS_MAX)


def _orcpt(value: str | None) -> str:
    kind, semicolon, address = (value or "").partition(";")
    if not semicolon or not re.fullmatch(r"[A-Za-z0-9\-]+", kind):
        raise ValueError("type;address")
    # RFC 6533 section 3: of type utf-8 it may be in UTF-8 as it is.
    decoded = address if kind.lower() == "utf-8" else _xtext(address, chars_max=_ORCPT_CHARS_MAX)
    return f"{kind};{decoded}"


def _notify(value: str | None) -> tuple[str, ...]:
    words = tuple((value or "").upper().split(","))
    if words != ("NEVER",) and (not _NOTIFY.issuperset(words) or len(set(words)) < len(words)):
        raise ValueError("NEVER, or some of SUCCESS, FAILURE, DELAY")
    return words


def _xtext(value: str | None, *, chars_max: int) -> str:
    """RFC 3461 section 4: printable ASCII, others as +hex."""
    if value is None or len(value) > chars_max or not _XTEXT.fullmatch(value):
        raise ValueError(f"xtext of 1 to {chars_max} characters")
    return re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), value)


_MAIL: Final[Mapping[str, _Parameter]] = {
    "SIZE": _Parameter(keyword="SIZE", name="size_bytes", read=_size),
    "BODY": _Parameter(keyword="8BITMIME", name="body", read=_one_of("7BIT", "8BITMIME")),
    "SMTPUTF8": _Parameter(keyword="SMTPUTF8", name="smtputf8", read=_flag),
    "RET": _Parameter(keyword="DSN", name="ret", read=_one_of("FULL", "HDRS")),
    "ENVID": _Parameter(keyword="DSN", name="envid", read=_envid),
    "AUTH": _Parameter(keyword="AUTH", name="auth", read=_submitter),
}
_RCPT: Final[Mapping[str, _Parameter]] = {
    "NOTIFY": _Parameter(keyword="DSN", name="notify", read=_notify),
    "ORCPT": _Parameter(keyword="DSN", name="orcpt", read=_orcpt),
}
