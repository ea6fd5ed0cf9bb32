"""Where a fault may happen: the protocol events that the servers ask the plan about.

Owns: the points, what ``match`` may say at each, which actions make sense there and what a reply must look like.
Never does: asking. Called by: parse (to validate), table (to document), plan (to sort faults by point).

Rule: a new point is a row here and one ``Plan.decide`` in a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What an answer that a fault gives must look like."""

    #: One line, without its CRLF.
    pattern: re.Pattern[str]
    #: The same for people.
    form: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A protocol event at which a fault may happen."""

    #: The event, in words.
    event: str
    #: Keys that a fault's ``match`` may use here, and that the server must tell.
    match: tuple[str, ...] = ()
    #: The actions that make sense here.
    actions: tuple[str, ...]
    #: What a reply must look like, where there is one.
    reply: Reply | None = None
    #: For actions that name something: which names there are here.
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


#: What ``match`` may look at, in words.
MATCH_KEYS: Final[Mapping[str, str]] = {
    "recipient": "the address of RCPT TO; of several, one that fits is enough",
    "sender": 'the address of MAIL FROM; `""` is the null reverse-path of a bounce',
    "user": 'who is logged in, or at the auth points who tries to; `""` is nobody',
    "mechanism": "`LOGIN` (the IMAP command), or the SASL mechanism in capitals",
    "command": "the verb in capitals; of IMAP's UID commands both names fit, `FETCH` and `UID FETCH`",
    "folder": "the folder that is selected, or that SELECT names",
}

#: What EHLO may announce (RFC 5321 section 2.2.2), and so what may be withheld.
SMTP_KEYWORDS: Final = (
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH", "DSN", "CHUNKING", "HELP",
)  # fmt: skip
#: What CAPABILITY may announce (RFC 3501 section 7.2.1), and so what may be withheld.
IMAP_CAPABILITIES: Final = (
    "LITERAL+", "SASL-IR", "ID", "ENABLE", "STARTTLS", "LOGINDISABLED", "AUTH=PLAIN", "AUTH=XOAUTH2",
    "AUTH=OAUTHBEARER", "IDLE", "NAMESPACE", "CHILDREN", "MULTIAPPEND", "BINARY", "UNSELECT", "UIDPLUS", "ESEARCH",
    "SEARCHRES", "SORT", "THREAD=ORDEREDSUBJECT", "THREAD=REFERENCES", "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE",
    "CREATE-SPECIAL-USE", "MOVE", "CONDSTORE", "QRESYNC", "STATUS=SIZE",
)  # fmt: skip
#: What SELECT answers and a careless server leaves out (RFC 3501 section 6.3.1, RFC 7162 section 3.1.2).
SELECT_CODES: Final = ("UIDVALIDITY", "UIDNEXT", "HIGHESTMODSEQ", "PERMANENTFLAGS", "UNSEEN")
#: What another client may do to the folder meanwhile.
MAILBOX_CHANGES: Final = ("arrive", "expunge", "flags", "reset-uidvalidity")

_WAITS: Final = ("drop", "stall", "delay_ms", "jitter_ms")
_ANSWERS: Final = ("reply", "close", *_WAITS)
_TLS: Final = ("alert", "certificate", *_WAITS)
_TRANSFER: Final = (*_WAITS, "after_bytes", "bytes_per_s")
_ENVELOPE: Final = ("recipient", "sender", "user")
_SMTP: Final = Reply(
    # RFC 5321 section 4.2: three digits and text on one line, so line breaks are kept out as well.
    pattern=re.compile(r"[45]\d\d [\x20-\x7e]*[\x21-\x7e]"),
    form="a 4xx or 5xx reply with text, such as '451 4.3.0 Try again later'",
)
_TAGGED: Final = Reply(
    # RFC 3501 section 7.1: BYE is untagged, NO and BAD get the command's tag.
    pattern=re.compile(r"(NO|BAD|BYE) (\[[^\]\r\n]+\] )?[\x20-\x7e]*[\x21-\x7e]"),
    form="NO, BAD or BYE with text, such as 'NO [UNAVAILABLE] Try again later'",
)
_BYE: Final = Reply(
    pattern=re.compile(r"BYE [\x20-\x7e]*[\x21-\x7e]"),
    form="BYE with text, such as 'BYE [UNAVAILABLE] Too many connections'",
)

#: Every point.
POINTS: Final[Mapping[str, Point]] = {
    "smtp.connect": Point(event="a client has connected, before the 220", actions=_ANSWERS, reply=_SMTP),
    "smtp.tls": Point(event="the TLS handshake begins, on the TLS port or after STARTTLS", actions=_TLS),
    "smtp.ehlo": Point(
        event="EHLO or HELO",
        actions=(*_ANSWERS, "strip"),
        reply=_SMTP,
        names={"strip": SMTP_KEYWORDS},
    ),
    "smtp.starttls": Point(event="STARTTLS, before its 220", actions=_ANSWERS, reply=_SMTP),
    "smtp.auth": Point(
        event="AUTH, before the check",
        match=("user", "mechanism"),
        actions=(*_ANSWERS, "expired_token"),
        reply=_SMTP,
    ),
    "smtp.command": Point(event="any verb, before it runs", match=("command", "user"), actions=_ANSWERS, reply=_SMTP),
    "smtp.mail": Point(event="MAIL FROM", match=("sender", "user"), actions=_ANSWERS, reply=_SMTP),
    "smtp.rcpt": Point(event="RCPT TO", match=_ENVELOPE, actions=_ANSWERS, reply=_SMTP),
    "smtp.data": Point(event="DATA, before the 354", match=_ENVELOPE, actions=_ANSWERS, reply=_SMTP),
    "smtp.body": Point(
        event="the message arrives; with a reply it is read to its end and not kept",
        match=_ENVELOPE,
        actions=("reply", "close", *_TRANSFER),
        reply=_SMTP,
    ),
    "smtp.accepted": Point(
        event="the message is stored, before the 250; it stays stored, whatever the reply says",
        match=_ENVELOPE,
        actions=_ANSWERS,
        reply=_SMTP,
    ),
    "smtp.quit": Point(event="QUIT, before the 221", match=("user",), actions=_ANSWERS, reply=_SMTP),
    "imap.connect": Point(event="a client has connected, before the greeting", actions=_ANSWERS, reply=_BYE),
    "imap.tls": Point(event="the TLS handshake begins, on the TLS port or after STARTTLS", actions=_TLS),
    "imap.capability": Point(
        event="capabilities are announced: in the greeting, by CAPABILITY, after login",
        match=("user",),
        actions=("strip",),
        names={"strip": IMAP_CAPABILITIES},
    ),
    "imap.auth": Point(
        event="LOGIN or AUTHENTICATE, before the check",
        match=("user", "mechanism"),
        actions=(*_ANSWERS, "expired_token"),
        reply=_TAGGED,
    ),
    "imap.command": Point(
        event="a whole command has arrived, before it runs",
        match=("command", "user", "folder"),
        actions=(*_ANSWERS, "mailbox", "bytes_per_s"),
        reply=_TAGGED,
        names={"mailbox": MAILBOX_CHANGES},
    ),
    "imap.select": Point(
        event="SELECT or EXAMINE, before its answer",
        match=("user", "folder"),
        actions=("omit", "mailbox"),
        names={"omit": SELECT_CODES, "mailbox": ("reset-uidvalidity",)},
    ),
    "imap.message": Point(
        event="a message is served by FETCH",
        match=("user", "folder"),
        actions=("garble",),
    ),
    "imap.literal": Point(
        event="a literal of 1 kB or more is served",
        match=("user", "folder"),
        actions=_TRANSFER,
    ),
    "imap.reply": Point(
        event="a command has run, before its tagged reply",
        match=("command", "user", "folder"),
        actions=_ANSWERS,
        reply=_TAGGED,
    ),
    "imap.idle": Point(event="IDLE begins", match=("user", "folder"), actions=_ANSWERS, reply=_BYE),
}
