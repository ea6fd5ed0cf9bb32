"""A conversation with the IMAP core, step by step; a step that fails says its own file and line."""

import re
import sys

from fakemail.faults import Plan, parse_faults
from fakemail.imap_protocol import Close, Delay, ImapSession
from fakemail.mailbox import MailStore

USER, PASSWORD = "ann@example.test", "canary-password"


class Transcript:
    """One client of one store."""

    def __init__(self, store=None, *, faults=(), clock=lambda: 1_700_000_000_000_000_000):
        self.store = store or MailStore(seed=7, clock=clock)
        if store is None:
            self.store.add_user(USER, PASSWORD)
        self.notes = []
        self.events = []
        plan = Plan(7, parse_faults(list(faults)))
        self.session = ImapSession(
            self.store, note=lambda kind, **facts: self.notes.append({"kind": kind, **facts}), decide=plan.decide
        )

    @property
    def inbox(self):
        return self.store.user(USER).folder("INBOX")

    def send(self, data):
        """What the core answers to these bytes, whole."""
        self.session.feed(data)
        return self.pull()

    def pull(self):
        out = b""
        for event in self.session.events():
            if isinstance(event, bytes):
                out += event
            else:
                self.events.append(event)
        return out

    def step(self, line, *expected):
        """Send a line; the answer's lines must be these, where <any> stands for anything within a line."""
        caller = sys._getframe(1)
        place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        answer = self.send(line.encode() + b"\r\n").decode("utf-8", errors="replace")
        lines = answer.removesuffix("\r\n").split("\r\n") if answer else []
        same = len(lines) == len(expected) and all(map(_fits, lines, expected))
        told = "\n  ".join(["", *lines])
        wanted = "\n  ".join(["", *expected])
        assert same, f"{place}\nsent: {line}\nanswer:{told}\nexpected:{wanted}"

    def login(self):
        self.step(f"l LOGIN {USER} {PASSWORD}", "l OK [CAPABILITY <any>] <any>")
        return self

    def select(self, folder="INBOX"):
        self.send(f"s SELECT {folder}\r\n".encode())
        assert self.session.state == "selected"
        return self

    @property
    def closed(self):
        return any(isinstance(event, Close) for event in self.events)

    @property
    def delays_ms(self):
        return [event.delay_ms for event in self.events if isinstance(event, Delay)]


def _fits(line, expected):
    return re.fullmatch(re.escape(expected).replace("<any>", ".+"), line) is not None
