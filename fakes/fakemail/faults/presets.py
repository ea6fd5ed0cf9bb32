"""Faults that somebody met: by name, ready to be put.

Owns: the presets, each with what it plays and the report it comes from. Never does: putting them in force.
Called by: lists (``parse_faults`` knows them by name), control, table.

Rule 1: a preset heals by itself where real servers do: the second attempt of a client that tries again succeeds.
Rule 2: ids begin with the preset's name, so that any presets can be in force together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fakemail.faults.model import Fault
from fakemail.faults.parse import parse_fault


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Some faults under a name; iterating over it gives them."""

    #: What it plays, in one sentence.
    sentence: str
    #: Who met it: an issue as owner/name#number, or the RFC that foresees it.
    report: str = ""
    #: In order.
    faults: tuple[Fault, ...]

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)


def _fault(
    fault_id: str,
    point: str,
    when: dict[str, object],
    action: dict[str, object],
    *,
    match: dict[str, str] | None = None,
    scope: str = "",
) -> Fault:
    said: dict[str, object] = {"id": fault_id, "point": point, "when": when, "action": action}
    said |= ({"match": match} if match else {}) | ({"scope": scope} if scope else {})
    return parse_fault(said, where=fault_id)


_ALWAYS: Final[dict[str, object]] = {"always": True}
_ONCE: Final[dict[str, object]] = {"first": 1}
_TWICE: Final[dict[str, object]] = {"first": 2}

_IMAP: Final = {
    "gmail-connection-limit": Preset(
        sentence="The first two logins of each user are refused with Gmail's words for too many connections.",
        report="jstedfast/MailKit#377",
        faults=(
            _fault("gmail-connection-limit", "imap.auth", _TWICE, scope="user",
                   action={"reply": "NO [ALERT] Too many simultaneous connections. (Failure)"}),
        ),
    ),
    "o365-throttle": Preset(
        sentence="The first two SELECTs of each user after a good login fail as Office 365 fails them.",
        report="mscdex/node-imap#689",
        faults=(
            _fault("o365-throttle", "imap.command", _TWICE, match={"command": "SELECT"}, scope="user",
                   action={"reply": "BAD User is authenticated but not connected."}),
        ),
    ),
    "imap-unavailable": Preset(
        sentence="The first three logins meet a server whose user database is down.",
        report="RFC 5530 section 3",
        faults=(
            _fault("imap-unavailable", "imap.auth", {"first": 3},
                   {"reply": "NO [UNAVAILABLE] Temporary authentication failure"}),
        ),
    ),
    "imap-login-refused": Preset(
        sentence="No password is right.",
        report="RFC 5530 section 3",
        faults=(
            _fault("imap-login-refused", "imap.auth", _ALWAYS,
                   {"reply": "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"}),
        ),
    ),
    "imap-connection-drops": Preset(
        sentence="The first two connections are cut before the greeting, the third is served.",
        report="Shopify/toxiproxy#404",
        faults=(_fault("imap-connection-drops", "imap.connect", _TWICE, {"drop": True}),),
    ),
    "overquota-append": Preset(
        sentence="APPEND finds the mailbox full.",
        report="RFC 9208 section 4.3.1",
        faults=(
            _fault("overquota-append", "imap.command", _ALWAYS, match={"command": "APPEND"},
                   action={"reply": "NO [OVERQUOTA] The mailbox is over its quota"}),
        ),
    ),
    "imap-bye-midway": Preset(
        sentence="The server shuts down at each user's second FETCH.",
        report="RFC 3501 section 7.1.5",
        faults=(
            _fault("imap-bye-midway", "imap.command", {"nth": 2}, match={"command": "FETCH"}, scope="user",
                   action={"reply": "BYE [UNAVAILABLE] Server shutting down"}),
        ),
    ),
    "drop-in-literal": Preset(
        sentence="The connection breaks 512 bytes into the first message that is served to each user.",
        report="chatmail/async-imap#94",
        faults=(
            _fault("drop-in-literal", "imap.literal", _ONCE, {"after_bytes": 512, "drop": True}, scope="user"),
        ),
    ),
    "stall-in-literal": Preset(
        sentence="The line falls silent 512 bytes into the first message that is served to each user.",
        report="jstedfast/MailKit#22",
        faults=(
            _fault("stall-in-literal", "imap.literal", _ONCE, {"after_bytes": 512, "stall": True}, scope="user"),
        ),
    ),
    "uidvalidity-reset": Preset(
        sentence="The second time a folder is selected its UIDs are new, and UIDVALIDITY says so.",
        report="thunderbird/thunderbird-android#1074",
        faults=(
            _fault("uidvalidity-reset", "imap.select", {"nth": 2}, {"mailbox": "reset-uidvalidity"}, scope="folder"),
        ),
    ),
    "missing-uidnext": Preset(
        sentence="SELECT does not say UIDNEXT.",
        report="modern-email/defects#43",
        faults=(_fault("missing-uidnext", "imap.select", _ALWAYS, {"omit": ["UIDNEXT"]}),),
    ),
    "arrive-between-search-and-fetch": Preset(
        sentence="A message arrives right before each user's first three FETCHes, unseen by the SEARCH before.",
        report="RFC 3501 section 5.2",
        faults=(
            _fault("arrive-between-search-and-fetch", "imap.command", {"first": 3}, {"mailbox": "arrive"},
                   match={"command": "FETCH"}, scope="user"),
        ),
    ),
    "expunge-between-search-and-fetch": Preset(
        sentence="A message is expunged by another client right before each user's first three FETCHes.",
        report="RFC 2180 section 4.1",
        faults=(
            _fault("expunge-between-search-and-fetch", "imap.command", {"first": 3}, {"mailbox": "expunge"},
                   match={"command": "FETCH"}, scope="user"),
        ),
    ),
    "idle-dies": Preset(
        sentence="Every second IDLE of a user is ended by the server with a BYE.",
        report="stalwartlabs/stalwart#280",
        faults=(
            _fault("idle-dies", "imap.idle", {"every": 2}, {"reply": "BYE Autologout; idle for too long"},
                   scope="user"),
        ),
    ),
    "idle-silence": Preset(
        sentence="Every second IDLE of a user is cut without a word.",
        report="mjs/imapclient#234",
        faults=(_fault("idle-silence", "imap.idle", {"every": 2}, {"drop": True}, scope="user"),),
    ),
    "slow-imap": Preset(
        sentence="Every command waits 300 ms give or take 200, and messages come at 64 kB per second.",
        faults=(
            _fault("slow-imap-commands", "imap.command", _ALWAYS, {"delay_ms": 300, "jitter_ms": 200}),
            _fault("slow-imap-literals", "imap.literal", _ALWAYS, {"bytes_per_s": 65_536}),
        ),
    ),
    "bad-base64": Preset(
        sentence="Every third message that is served has base64 that can't be decoded.",
        report="martinrusev/imbox#175",
        faults=(_fault("bad-base64", "imap.message", {"every": 3}, {"garble": "base64"}),),
    ),
    "broken-mime": Preset(
        sentence="Every third message that is served is a multipart without a boundary.",
        report="mikel/mail#807",
        faults=(_fault("broken-mime", "imap.message", {"every": 3}, {"garble": "no-boundary"}),),
    ),
    "bad-charset": Preset(
        sentence="Every third message that is served names a charset that there is not.",
        report="martinrusev/imbox#177",
        faults=(_fault("bad-charset", "imap.message", {"every": 3}, {"garble": "charset"}),),
    ),
    "wrong-size": Preset(
        sentence="Every third message that is served is shorter than its RFC822.SIZE.",
        report="stalwartlabs/vandelay#12",
        faults=(_fault("wrong-size", "imap.message", {"every": 3}, {"garble": "truncate"}),),
    ),
    "imap-starttls-stripped": Preset(
        sentence="CAPABILITY does not offer STARTTLS, as when someone on the way takes it out.",
        report="OfflineIMAP/offlineimap#669",
        faults=(_fault("imap-starttls-stripped", "imap.capability", _ALWAYS, {"strip": ["STARTTLS"]}),),
    ),
}  # fmt: skip

_SMTP: Final = {
    "greylisting": Preset(
        sentence="The first attempt of each sender to reach each recipient is put off, the second succeeds.",
        report="karolyi/py3-validate-email#81",
        faults=(
            _fault("greylisting", "smtp.rcpt", _ONCE, {"reply": "451 4.7.1 Greylisted, please try again later"},
                   scope="sender-recipient"),
        ),
    ),
    "smtp-rate-limit": Preset(
        sentence="More than ten messages at once, or five per second, are too many.",
        report="axllent/mailpit#676",
        faults=(
            _fault("smtp-rate-limit", "smtp.mail", {"bucket": {"capacity": 10, "per_s": 5}},
                   {"reply": "421 4.7.0 Too many messages, slow down"}),
        ),
    ),
    "smtp-connection-rate": Preset(
        sentence="More than ten connections at once, or five per second, are too many.",
        report="axllent/mailpit#676",
        faults=(
            _fault("smtp-connection-rate", "smtp.connect", {"bucket": {"capacity": 10, "per_s": 5}},
                   {"reply": "421 4.7.0 Too many connections, slow down"}),
        ),
    ),
    "smtp-connection-drops": Preset(
        sentence="The first two connections are cut before the 220, the third is served.",
        report="Shopify/toxiproxy#404",
        faults=(_fault("smtp-connection-drops", "smtp.connect", _TWICE, {"drop": True}),),
    ),
    "smtp-unavailable": Preset(
        sentence="The first three connections meet a server that is shutting down.",
        report="greenmail-mail-test/greenmail#124",
        faults=(
            _fault("smtp-unavailable", "smtp.connect", {"first": 3}, {"reply": "421 4.3.2 Service not available"}),
        ),
    ),
    "smtp-auth-535": Preset(
        sentence="No password is right.",
        report="greenmail-mail-test/greenmail#124",
        faults=(
            _fault("smtp-auth-535", "smtp.auth", _ALWAYS,
                   {"reply": "535 5.7.8 Authentication credentials invalid"}),
        ),
    ),
    "smtp-auth-454": Preset(
        sentence="The first two logins meet a server whose user database is down.",
        report="RFC 4954 section 6",
        faults=(
            _fault("smtp-auth-454", "smtp.auth", _TWICE, {"reply": "454 4.7.0 Temporary authentication failure"}),
        ),
    ),
    "sender-refused": Preset(
        sentence="A sender whose address begins with `refused` may not send.",
        report="greenmail-mail-test/greenmail#124",
        faults=(
            _fault("sender-refused", "smtp.mail", _ALWAYS, {"reply": "550 5.7.1 Sender address refused"},
                   match={"sender": "refused*@*"}),
        ),
    ),
    "partial-refusal": Preset(
        sentence="A recipient whose address begins with `nobody` is unknown, the others of the message are taken.",
        report="chatmail/async-smtp#72",
        faults=(
            _fault("partial-refusal", "smtp.rcpt", _ALWAYS, {"reply": "550 5.1.1 No such user here"},
                   match={"recipient": "nobody*@*"}),
        ),
    ),
    "mailbox-full": Preset(
        sentence="A recipient who begins with `full` has no room today (452), one with `overquota` never (552).",
        report="beyondcode/helo-community#57",
        faults=(
            _fault("mailbox-full-452", "smtp.rcpt", _ALWAYS, {"reply": "452 4.2.2 Mailbox full, try again later"},
                   match={"recipient": "full*@*"}),
            _fault("mailbox-full-552", "smtp.rcpt", _ALWAYS, {"reply": "552 5.2.2 Mailbox over quota"},
                   match={"recipient": "overquota*@*"}),
        ),
    ),
    "spam-refused": Preset(
        sentence="Every third message is refused as spam once it has arrived, and not kept.",
        report="rnwood/smtp4dev#165",
        faults=(
            _fault("spam-refused", "smtp.body", {"every": 3}, {"reply": "554 5.7.1 Message looks like spam"}),
        ),
    ),
    "slow-smtp": Preset(
        sentence="Every verb waits 300 ms give or take 200.",
        faults=(_fault("slow-smtp", "smtp.command", _ALWAYS, {"delay_ms": 300, "jitter_ms": 200}),),
    ),
    "slow-data": Preset(
        sentence="Messages are read at 4 kB per second.",
        faults=(_fault("slow-data", "smtp.body", _ALWAYS, {"bytes_per_s": 4096}),),
    ),
    "drop-before-data": Preset(
        sentence="The first DATA is answered by a cut line: the message was surely not taken.",
        report="RFC 5321 section 3.8",
        faults=(_fault("drop-before-data", "smtp.data", _ONCE, {"drop": True}),),
    ),
    "drop-in-body": Preset(
        sentence="The connection breaks 256 bytes into the first message: it was surely not taken.",
        report="Shopify/toxiproxy#122",
        faults=(_fault("drop-in-body", "smtp.body", _ONCE, {"after_bytes": 256, "drop": True}),),
    ),
    "drop-after-data": Preset(
        sentence="The first message is taken and the line cut before the 250: who sends it again sends it twice.",
        report="kobotoolbox/kpi#7435",
        faults=(_fault("drop-after-data", "smtp.accepted", _ONCE, {"drop": True}),),
    ),
    "stall-after-data": Preset(
        sentence="The first message is taken and the 250 never comes: who gives up and sends it again sends it twice.",
        report="freescout-help-desk/freescout#5457",
        faults=(_fault("stall-after-data", "smtp.accepted", _ONCE, {"stall": True}),),
    ),
    "starttls-refused": Preset(
        sentence="STARTTLS is offered and then refused.",
        report="RFC 3207 section 4",
        faults=(
            _fault("starttls-refused", "smtp.starttls", _ALWAYS,
                   {"reply": "454 4.7.0 TLS not available due to temporary reason"}),
        ),
    ),
    "starttls-stripped": Preset(
        sentence="EHLO does not offer STARTTLS, as when someone on the way takes it out.",
        report="muquit/mailsend-go#11",
        faults=(_fault("starttls-stripped", "smtp.ehlo", _ALWAYS, {"strip": ["STARTTLS"]}),),
    ),
    "no-extensions": Preset(
        sentence="EHLO offers neither pipelining nor sizes nor 8-bit mail nor UTF-8 addresses.",
        report="RFC 5321 section 2.2.1",
        faults=(
            _fault("no-extensions", "smtp.ehlo", _ALWAYS,
                   {"strip": ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"]}),
        ),
    ),
}  # fmt: skip


def _tls(name: str, sentence: str, report: str, when: dict[str, object], action: dict[str, object]) -> Preset:
    """The same at both servers."""
    faults = tuple(_fault(f"{name}-{server}", f"{server}.tls", when, action) for server in ("smtp", "imap"))
    return Preset(sentence=sentence, report=report, faults=faults)


_BOTH: Final = {
    "expired-token": Preset(
        sentence="At each user's first login with OAuth the token has expired.",
        report="RFC 7628 section 3.2.2",
        faults=tuple(
            _fault(f"expired-token-{server}", f"{server}.auth", _ONCE, {"expired_token": True},
                   match={"mechanism": "XOAUTH2"}, scope="user")
            for server in ("imap", "smtp")
        ),
    ),
    "tls-handshake-failure": _tls(
        "tls-handshake-failure", "The first two TLS handshakes break off with an alert.",
        "bbottema/simple-java-mail#655", _TWICE, {"alert": True},
    ),
    "tls-wrong-host": _tls(
        "tls-wrong-host", "The certificate is for another host.", "RFC 7817 section 3",
        _ALWAYS, {"certificate": "wrong-host"},
    ),
    "tls-expired": _tls(
        "tls-expired", "The certificate has expired.", "RFC 5280 section 4.1.2.5",
        _ALWAYS, {"certificate": "expired"},
    ),
    "tls-self-signed": _tls(
        "tls-self-signed", "Nobody vouches for the certificate.", "RFC 5280 section 6.1",
        _ALWAYS, {"certificate": "self-signed"},
    ),
}  # fmt: skip

#: Every preset, by name.
PRESETS: Final[Mapping[str, Preset]] = _IMAP | _SMTP | _BOTH
