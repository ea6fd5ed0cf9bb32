"""Conversations with the IMAP core, step by step; a step that fails says its own file and line."""

from __future__ import annotations

import base64
import re
import sys

from fakemail.faults import Plan, parse_faults
from fakemail.imap_protocol import Close, Delay, ImapOptions, ImapSession, Pace, Stall, StartTls, without
from fakemail.imap_protocol.events import Gather
from fakemail.mailbox import MailStore

USER, PASSWORD = "ann@example.test", "canary-password"
#: 14 November 2023, 22:13:20.
NOW_S = 1_700_000_000

MAIL = (
    b"From: Ann =?utf-8?q?M=C3=BCller?= <ann@example.test>\r\nTo: bob@example.test, Carl <carl@example.test>\r\n"
    b'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= "quoted"\r\nDate: Mon, 01 Jan 2024 10:00:00 +0000\r\n'
    b"Message-ID: <1@example.test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nwithin\r\n\r\n--b--\r\n"
)
SHORT = b"Subject: short\r\n\r\nbody\r\n"

#: What FLAGS names where no keyword was used.
FLAGS = "\\Answered \\Flagged \\Deleted \\Seen \\Draft"


class Transcript:
    """One client of one store."""

    _connections = 0

    def __init__(self, store=None, *, faults=(), options=None, plan=None, off=()):
        self.store = store or MailStore(seed=7, clock=lambda: NOW_S * 1_000_000_000)
        if store is None:
            self.store.add_user(USER, PASSWORD, "canary-token")
        self.notes = []
        self.events = []
        Transcript._connections += 1
        number = Transcript._connections
        self.plan = plan or Plan(7, parse_faults(list(faults)))
        self.session = ImapSession(
            self.store,
            note=lambda kind, **facts: self.notes.append({"kind": kind, **facts}),
            decide=lambda point, **context: self.plan.decide(point, connection=number, **context),
            active=self.plan.active,
            options=options or ImapOptions(without=without(frozenset(off))),
        )
        # As the shell does when a client has connected.
        self.store.connections["imap", ""] += 1

    @property
    def account(self):
        return self.store.user(USER)

    @property
    def inbox(self):
        return self.account.folder("INBOX")

    def send(self, data):
        """What the core answers to these bytes, whole."""
        self.session.feed(data)
        return self.pull()

    def pull(self):
        out = b""
        for event in self.session.events():
            if (data := written(event)) is not None:
                out += data
                continue
            self.events.append(event)
            if isinstance(event, StartTls):
                self.session.tls_started()
        return out

    def step(self, line, *expected):
        """Send a line; the answer's lines must be these, where <any> stands for anything within a line."""
        self._compare(line, self.lines(line), expected, sys._getframe(1))

    def told(self, *expected):
        """What the core says by itself must be these lines."""
        self._compare("(nothing)", _lines(self.pull()), expected, sys._getframe(1))

    def lines(self, line):
        """Send a line; the lines of the answer."""
        return _lines(self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n"))

    def ok(self, command):
        """Run a command that must succeed; the untagged lines of its answer."""
        *untagged, tagged = self.lines(f"k {command}")
        place = _place(sys._getframe(1))
        assert tagged.startswith("k OK "), f"{place}\nsent: {command}\nanswer: {tagged}"
        return untagged

    def code(self, command):
        """The response code of a command that must succeed; empty if there is none."""
        tagged = self.lines(f"k {command}")[-1]
        place = _place(sys._getframe(1))
        assert tagged.startswith("k OK "), f"{place}\nsent: {command}\nanswer: {tagged}"
        match = re.match(r"k OK \[([^]]*)\]", tagged)
        return match[1] if match else ""

    @staticmethod
    def _compare(sent, lines, expected, frame):
        same = len(lines) == len(expected) and all(map(_fits, lines, expected))
        told, wanted = ("\n  ".join(["", *each]) for each in (lines, expected))
        assert same, f"{_place(frame)}\nsent: {sent!r}\nanswer:{told}\nexpected:{wanted}"

    def login(self):
        self.step(f"l LOGIN {USER} {PASSWORD}", "l OK [CAPABILITY <any>] <any>")
        return self

    def select(self, folder="INBOX", how="SELECT"):
        self.send(f"s {how} {folder}\r\n".encode())
        assert self.session.state == "selected"
        return self

    def enable(self, *names):
        self.ok(f"ENABLE {' '.join(names)}")
        return self

    def append(self, raw, *, folder="INBOX", flags="()"):
        """By this client; the UID that the message got."""
        answer = self.send(b"a APPEND %b %b {%d+}\r\n%b\r\n" % (folder.encode(), flags.encode(), len(raw), raw))
        return int(re.search(rb"APPENDUID \d+ (\d+)", answer)[1])

    def fetch(self, number, item):
        """The literal that answers FETCH of one item."""
        answer = self.send(f"f FETCH {number} {item}\r\n".encode())
        head, size, rest = re.match(rb"(\* \d+ FETCH \([^{]*) \{(\d+)\}\r\n(.*)", answer, re.DOTALL).groups()
        del head
        return rest[: int(size)]

    def leave(self):
        """The connection is gone."""
        self.session.close()

    @property
    def closed(self):
        return any(isinstance(event, Close) for event in self.events)

    @property
    def dropped(self):
        return any(isinstance(event, Close) and event.abrupt for event in self.events)

    @property
    def stalled(self):
        return any(isinstance(event, Stall) for event in self.events)

    @property
    def delays_ms(self):
        return [event.delay_ms for event in self.events if isinstance(event, Delay)]

    @property
    def paces(self):
        return [event.bytes_per_s for event in self.events if isinstance(event, Pace)]


def selected(*mails, faults=(), off=(), options=None):
    """A client that has INBOX selected, which holds these messages; none of them is recent any more."""
    client = Transcript(faults=faults, off=off, options=options)
    for raw in mails:
        client.store.store(client.inbox, raw)
    client.inbox.recent_from = client.inbox.uidnext
    return client.login().select()


def another(first, folder="INBOX", *, faults=(), off=()):
    """A second client of the same store, with a folder selected."""
    return Transcript(first.store, faults=faults, off=off).login().select(folder)


def written(event):
    """What the shell writes for an event; None for one that is no bytes."""
    return event if isinstance(event, bytes) else b"".join(event.parts) if isinstance(event, Gather) else None


def plain(*parts):
    """A SASL message of PLAIN in base64."""
    return base64.b64encode("\0".join(parts).encode()).decode()


def _lines(answer):
    text = answer.decode("utf-8", errors="replace")
    return text.removesuffix("\r\n").split("\r\n") if text else []


def _place(frame):
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _fits(line, expected):
    return re.fullmatch(re.escape(expected).replace("<any>", ".+"), line) is not None


class Reply:
    """Reads server data: strings as bytes, atoms and numbers as str, NIL as None, lists as lists."""

    _ATOM = re.compile(rb"(?:[^\x00-\x20()\"{\[]|\[[^\]]*\])+")

    def __init__(self, data):
        self.data, self.at = data, 0

    def values(self, end=b""):
        """All values up to a closing parenthesis, or to the end of what there is."""
        found = []
        while not self.data.startswith(end or b"\r\n", self.at) and self.at < len(self.data):
            if self.data.startswith(b" ", self.at):
                self.at += 1
                continue
            found.append(self.value())
        assert self.at < len(self.data) or not end, f"no {end!r} in {self.data!r}"
        self.at += len(end)
        return found

    def value(self):
        here = self.data[self.at : self.at + 1]
        if here == b"(":
            self.at += 1
            return self.values(b")")
        if match := re.compile(rb'"((?:[^"\\\r\n]|\\["\\])*)"').match(self.data, self.at):
            self.at = match.end()
            return re.sub(rb"\\(.)", rb"\1", match[1])
        if match := re.compile(rb"\{(\d+)\}\r\n").match(self.data, self.at):
            self.at = match.end() + int(match[1])
            assert self.at <= len(self.data), "a literal is cut short"
            return self.data[match.end() : self.at]
        match = self._ATOM.match(self.data, self.at)
        assert match, f"no value at {self.at} of {self.data!r}"
        self.at = match.end()
        return None if match[0] == b"NIL" else match[0].decode()


def parsed(data):
    """The values of one piece of server data."""
    reply = Reply(data)
    found = reply.values()
    assert reply.at == len(data) or data[reply.at :] == b"\r\n", f"more than one line: {data!r}"
    return found
