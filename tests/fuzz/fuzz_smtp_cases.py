"""SMTP clients of every manner, as data that can be saved; made from chance, and played with an oracle.

Owns: commands and messages in every shape of dots and line ends, a strict reader of replies, what must hold.
Never does: know how a connection is made.
Called by: the SMTP target.

What must hold
- a reply is well-formed (RFC 5321 section 4.2, RFC 2034), and there is one for each command, in order;
- a message that got 250 is in the ledger with the very bytes that the rules of transparency give (section 4.5.2), one
  that got another code is not, and no bytes inside a message become commands;
- whatever came, QUIT is answered by 221, or the connection was closed behind a 421 or another refusal.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from fuzz_campaign import Case, raw, text

USER, PASSWORD = b"ann@example.test", b"canary-password"
#: What may be swallowed by a chunk before a client gives up to be heard again.
FILLER_BYTES_MAX = 300_000
_REPLY = re.compile(rb"(?:[2-5]\d\d-[^\r\n]*\r\n)*[2-5]\d\d [^\r\n]*\r\n")
_LINE = re.compile(rb"([2-5]\d\d)[ -]([\t\x20-\x7e]*)")
_ENHANCED = re.compile(rb"([245])\.\d{1,3}\.\d{1,3}(?: |\Z)")
LINE_BYTES_MAX = 512


class OracleError(AssertionError):
    """What must hold does not."""


class Wire(Protocol):
    """A connection to the server under test."""

    closed: bool

    def send(self, data: bytes) -> None:
        """Hand over bytes."""

    def hear(self, enough: Callable[[bytes], bool]) -> bytes:
        """What has been said since, once it is enough or the connection is over."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A message that the server has confirmed."""

    sha256: str
    size_bytes: int


# --- replies ---


def replies(data: bytes) -> list[bytes]:
    """The codes of all replies; OracleError for anything that is none."""
    codes, at = [], 0
    while at < len(data):
        match = _REPLY.match(data, at)
        if match is None:
            raise OracleError(f"no reply at {at}: {data[at : at + 200]!r}")
        codes.append(_code(match[0]))
        at = match.end()
    return codes


def _code(reply: bytes) -> bytes:
    codes = set()
    for line in reply.split(b"\r\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None or len(line) + 2 > LINE_BYTES_MAX:
            raise OracleError(f"no line of a reply: {line!r}")
        codes.add(match[1])
        enhanced = _ENHANCED.match(match[2])
        if enhanced and enhanced[1] != match[1][:1]:
            raise OracleError(f"two classes in one reply: {line!r}")
    if len(codes) != 1:
        raise OracleError(f"several codes in one reply: {reply!r}")
    return codes.pop()


# --- making ---


def make(chance: Random) -> Case:
    """A case: EHLO as a rule, then steps of all kinds."""
    hello = [_commands([b"EHLO client.test"], chance)] if chance.random() < 0.9 else []
    steps = [chance.choice(_STEPS)(chance) for _ in range(chance.randint(1, 6))]
    return {"steps": [*hello, *steps], "end": chance.choice(("quit", "quit", "quit", "reset", "close", "half"))}


def _commands(lines: Sequence[bytes], chance: Random) -> dict[str, Any]:
    """Commands in one go, each with one reply."""
    data = b"".join(line + b"\r\n" for line in lines)
    return {"kind": "commands", "count": len(lines), "chunks": [text(each) for each in _cut(chance, data)]}


def _line(chance: Random) -> bytes:
    paths = (
        b"<ann@example.test>",
        b"<nobody@elsewhere.test>",
        b"<>",
        b"<@a,@b:ann@example.test>",
        b"<ann>",
        b"ann@example.test",
        b'<"quoted part"@example.test>',
        b"<\xc3\xa4@example.test>",
        b"<a@[127.0.0.1]>",
        b"<" + b"a" * 300 + b"@b.test>",
        b"<a@b@c>",
        b"< ann@example.test >",
        b"<postmaster>",
        b"<ann@example.test",
        b"<a\x00b@c.test>",
    )
    parameters = (
        b"",
        b"",
        b"",
        b" SIZE=1000",
        b" SIZE=99999999999999999999",
        b" BODY=8BITMIME",
        b" BODY=BINARYMIME",
        b" SMTPUTF8",
        b" RET=FULL ENVID=a+2Bb",
        b" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b",
        b" SIZE=",
        b" X=Y",
        b" AUTH=<>",
        b" SIZE=1 SIZE=2",
        b" NOTIFY=NEVER,DELAY",
        b" ENVID=" + b"a" * 200,
    )
    verb = (
        chance.choice((b"MAIL FROM:", b"RCPT TO:", b"RCPT TO:", b"mail from:", b"MAIL FROM: ", b"RCPT TO :"))
        + chance.choice(paths)
        + chance.choice(parameters)
    )
    others = (
        b"NOOP",
        b"NOOP text",
        b"RSET",
        b"RSET now",
        b"HELP",
        b"HELP MAIL",
        b"HELP \xff",
        b"VRFY ann",
        b"VRFY",
        b"EXPN list",
        b"EHLO again.test",
        b"EHLO",
        b"EHLO [127.0.0.1]",
        b"HELO old.test",
        b"HELO",
        b"EHLO " + b"x" * 300,
        b"EHLO a\x00b",
        b"",
        b" ",
        b"NONSENSE",
        b"N" * 600,
        b"NOOP " + b"x" * 12_000,
        b"NOOP " + b"x" * 13_000,
        b"STARTTLS now",
        b"\xff\xfe",
        b"AUTH",
        b"AUTH NONSENSE",
        b"AUTH PLAIN " + _plain(PASSWORD),
        b"AUTH PLAIN !!!",
        b"AUTH PLAIN =",
        b"AUTH LOGIN a b",
        b"GET / HTTP/1.1",
        b"BDAT",
        b"BDAT x",
        b"BDAT 0",
        b"BDAT 0 LAST",
        b"NOOP\tx",
        b"NOOP\x00",
        b"MAIL",
        b"RCPT",
        b"\x00",
    )
    return verb if chance.random() < 0.5 else chance.choice(others)


def _one(chance: Random) -> dict[str, Any]:
    return _commands([_line(chance)], chance)


def _pipeline(chance: Random) -> dict[str, Any]:
    return _commands([_line(chance) for _ in range(chance.randint(2, 8))], chance)


def _message(chance: Random) -> dict[str, Any]:
    """A whole transaction; the message comes after its 354, or without waiting for it."""
    body = _body(chance)
    recipients = [b"RCPT TO:<%s>" % chance.choice((USER, b"x@elsewhere.test")) for _ in range(chance.randint(1, 4))]
    return {
        "kind": "message",
        "envelope": [text(each) for each in (b"RSET", b"MAIL FROM:<sender@elsewhere.test>", *recipients)],
        "chunks": [text(each) for each in _cut(chance, body)],
        "waits": chance.random() < 0.7,
    }


def _body(chance: Random) -> bytes:
    """A message as it comes over the wire, with its end; every shape of line end and dot that is not the end."""
    pieces = (
        b"Subject: x\r\n",
        b"\r\n",
        b"text\r\n",
        b".\n",
        b"\n.\n",
        b"\n.\r\n.",
        b"\r.\r",
        b"\r.\r\n",
        b"..\r\n",
        b"...\r\n",
        b".x\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff\xfe",
        b"." * 50,
        b"x" * 2000,
        b"a line without an end",
        b"\r\n.\r",
        b"\r\n\r",
        b"\r\r\n",
        b"MAIL FROM:<smuggled@elsewhere.test>\r\n",
        b"\n.\nMAIL FROM:<smuggled@elsewhere.test>\n",
        b"QUIT\r\n",
        b"x" * 70_000,
        b"\r\n.\nRSET\r\nMAIL FROM:<smuggled@elsewhere.test>\r\n",
        b"From \r\n",
        b"\r\n..\r\n",
        b"\x1a",
        b"\r\n.\rQUIT\r\n",
    )
    made = b"".join(chance.choice(pieces) for _ in range(chance.randint(0, 12)))
    # The end may come once only: an earlier one is a message of its own, and that is another step.
    made = re.sub(rb"(?:(?<=\r\n)|\A)\.\r\n", b"..\r\n", made + (b"\r\n" if made else b""))
    while b"\r\n.\r\n" in made:
        made = made.replace(b"\r\n.\r\n", b"\r\n..\r\n")
    return made + b".\r\n"


def content(body: bytes) -> bytes:
    """What a message on the wire means (section 4.5.2), found by lines and not by searching."""
    lines = body.split(b"\r\n")
    assert lines[-2:] == [b".", b""], "the end and nothing behind it"
    return b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines[:-2])


def _chunks(chance: Random) -> dict[str, Any]:
    """A transaction with BDAT: any octets at all, in chunks."""
    parts = [chance.randbytes(chance.choice((0, 1, 10, 500, 20_000))) for _ in range(chance.randint(1, 4))]
    parts[0] += chance.choice((b"", b"\r\n.\r\n", b"\r\nQUIT\r\n"))
    return {"kind": "bdat", "parts": [text(each) for each in parts]}


def _login(chance: Random) -> dict[str, Any]:
    """AUTH in all its forms, right and wrong, finished and given up."""
    plain, junk = (
        _plain(chance.choice((PASSWORD, b"wrong"))),
        chance.choice((b"*", b"", b"!!", b"A" * 9000, b"AAAA", b"\xff")),
    )
    user, password = base64.b64encode(USER), base64.b64encode(PASSWORD)
    bearer = base64.b64encode(b"user=%s\1auth=Bearer %s\1\1" % (USER, chance.choice((PASSWORD, b"expired"))))
    dialogues = (
        [b"AUTH PLAIN", plain],
        [b"AUTH PLAIN", junk],
        [b"AUTH LOGIN", user, password],
        [b"AUTH LOGIN", user, junk],
        [b"AUTH LOGIN", junk],
        [b"AUTH LOGIN " + user, password],
        [b"AUTH XOAUTH2 " + bearer, b""],
        [b"AUTH XOAUTH2", bearer, b""],
        [b"AUTH XOAUTH2", junk, b""],
        [b"AUTH PLAIN " + plain],
    )
    return {"kind": "auth", "lines": [text(each) for each in chance.choice(dialogues)]}


def _plain(password: bytes) -> bytes:
    return base64.b64encode(b"\0".join((b"", USER, password)))


def _stream(chance: Random) -> dict[str, Any]:
    """Bytes that keep no rule."""
    lines = [_line(chance) + b"\r\n" for _ in range(chance.randint(0, 5))]
    data = b"".join([*lines, chance.choice((b"", b"DATA\r\n" + _body(chance), b"BDAT %d\r\n" % chance.randint(0, 60)))])
    if chance.random() < 0.2:
        data = chance.randbytes(chance.randint(1, 3000))
    for _ in range(chance.randint(0, 5)):
        at = chance.randint(0, len(data))
        kind = chance.randint(0, 3)
        if kind == 0:
            data = data[:at] + chance.randbytes(chance.randint(1, 6)) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + chance.randint(1, 20) :]
        elif kind == 2:
            data = data.replace(b"\r\n", chance.choice((b"\n", b"\r", b"\r\r\n", b"\n\r")), chance.randint(1, 2))
        else:
            data = re.sub(rb"BDAT \d+", b"BDAT " + chance.choice((b"99999999", b"9" * 40, b"3")), data)
    return {"kind": "stream", "chunks": [text(each) for each in _cut(chance, data)]}


_STEPS = (_one, _one, _pipeline, _message, _message, _message, _chunks, _login, _stream)


def _cut(chance: Random, data: bytes) -> list[bytes]:
    style = chance.random()
    if style < 0.4 or len(data) < 2:
        return [data]
    if style > 0.93 and len(data) < 200:
        return [data[at : at + 1] for at in range(len(data))]
    # Most ends of a message are cut through somewhere.
    around = [max(0, len(data) - chance.randint(0, 6)) for _ in range(2)]
    places = sorted([*(chance.randint(0, len(data)) for _ in range(chance.randint(0, 4))), *around])
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


# --- playing ---


class Player:
    """One client: sends the steps and judges the replies."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        #: In order; a stream's are not among them.
        self.taken: list[Taken] = []
        #: Bytes without rules may have made messages of their own.
        self.sure = True
        self.lost = False
        self._codes: list[bytes] = []

    def greeting(self) -> None:
        """Section 3.1."""
        self._expect(1)

    def play(self, step: dict[str, Any]) -> None:
        """One step, if there is still somebody to talk to."""
        if not (self._wire.closed or self.lost):
            getattr(self, f"_{step['kind']}")(step)

    def quit(self) -> None:
        """Whatever was, it can be ended in order."""
        if not (self._wire.closed or self.lost):
            self._wire.send(b"QUIT\r\n")
            self._last_words(self._wire.hear(_never))

    def _last_words(self, said: bytes) -> None:
        codes = [*self._codes[-1:], *replies(said)]
        # Nothing may come behind a refusal that ended it before QUIT was there.
        ended = codes[-1] == b"221" or codes[-1][:1] in b"45"
        if not (self._wire.closed and ended):
            raise OracleError(f"221 or a refusal, and the end, expected: {codes}")

    def _expect(self, count: int) -> list[bytes]:
        """So many replies; fewer if the server ends the connection with a 421 or a refusal that says so."""
        said = self._wire.hear(lambda out: len(_REPLY.findall(out)) >= count and out.endswith(b"\r\n"))
        codes = replies(said)
        self._codes += codes
        # A goodbye may follow the last of many mistakes.
        if len(codes) == count or codes[count:] == [b"421"]:
            return codes[:count]
        if len(codes) > count or not self._wire.closed or self._codes[-1][:1] not in b"45":
            raise OracleError(f"{count} replies expected: {codes}, closed: {self._wire.closed}")
        return codes

    def _commands(self, step: dict[str, Any]) -> None:
        for chunk in step["chunks"]:
            self._wire.send(raw(chunk))
        codes = self._expect(step["count"])
        if b"354" in codes:
            raise OracleError("a 354 to what is no DATA")
        # A chunk's end is a message's, if there was one under way.
        self.sure = self.sure and b"BDAT" not in raw("".join(step["chunks"])).upper()

    def _message(self, step: dict[str, Any]) -> None:
        envelope = b"".join(raw(each) + b"\r\n" for each in step["envelope"]) + b"DATA\r\n"
        body, count = raw("".join(step["chunks"])), len(step["envelope"]) + 1
        self._wire.send(envelope)
        if step["waits"]:
            codes = self._expect(count)
            if codes[-1:] != [b"354"]:
                return
            self._send_all(step["chunks"])
            codes = self._expect(1)
        else:
            # A client that does not wait learns afterwards whether its message was read as one.
            self._send_all(step["chunks"])
            first = self._wire.hear(lambda out: len(_REPLY.findall(out)) >= count)
            codes = replies(first)
            if codes[count - 1 : count] != [b"354"]:
                self.lost = True
                return
            self._codes += codes
            codes = codes[count : count + 1] or self._expect(1)
        if codes[-1:] == [b"250"]:
            meant = content(body)
            self.taken.append(Taken(sha256=hashlib.sha256(meant).hexdigest(), size_bytes=len(meant)))

    def _send_all(self, chunks: Sequence[str]) -> None:
        for chunk in chunks:
            self._wire.send(raw(chunk))

    def _bdat(self, step: dict[str, Any]) -> None:
        self._wire.send(b"RSET\r\nMAIL FROM:<sender@elsewhere.test>\r\nRCPT TO:<%s>\r\n" % USER)
        if len(self._expect(3)) < 3:
            return
        parts = [raw(each) for each in step["parts"]]
        codes = []
        for number, part in enumerate(parts, 1):
            last = b" LAST" if number == len(parts) else b""
            self._wire.send(b"BDAT %d%s\r\n%s" % (len(part), last, part))
            codes += self._expect(1)
            if self._wire.closed:
                return
        if codes[-1:] == [b"250"]:
            whole = b"".join(parts)
            self.taken.append(Taken(sha256=hashlib.sha256(whole).hexdigest(), size_bytes=len(whole)))

    def _auth(self, step: dict[str, Any]) -> None:
        for line in [*step["lines"], "*", "*"]:
            self._wire.send(raw(line) + b"\r\n")
            codes = self._expect(1)
            if self._wire.closed or codes[-1:] != [b"334"]:
                return
        raise OracleError("a dialogue of AUTH without an end")

    def _stream(self, step: dict[str, Any]) -> None:
        data = raw("".join(step["chunks"]))
        self._send_all(step["chunks"])
        self.sure = False
        swallowed = sum(int(each[:20]) for each in re.findall(rb"(?i)BDAT +(\d+)", data))
        if swallowed > FILLER_BYTES_MAX:
            self.lost = True
            return
        # Ends a line, a message, a dialogue, a chunk; then the connection itself.
        self._wire.send(b"\r\n.\r\n*\r\n" + b"\r\n" * (swallowed // 2 + 1) + b"QUIT\r\n")
        said = self._wire.hear(_begins_tls)
        if _begins_tls(said):
            # By chance the pieces spelt STARTTLS: from here on the server waits for a hello, and rightly so.
            self.lost = True
            return
        self._last_words(said)


def _begins_tls(said: bytes) -> bool:
    """What was sent in the clear behind this is thrown away (RFC 3207 section 6)."""
    return said.endswith(b"220 2.0.0 Ready to start TLS\r\n")


def _never(_: bytes) -> bool:
    """Only the end is enough."""
    return False
