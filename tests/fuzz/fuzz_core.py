"""The IMAP core as a wire: no socket, no clock, what the shell around it would do and nothing more.

Called by: the core's target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fuzz_imap_grammar as grammar

from fakemail.faults import Plan
from fakemail.imap_protocol import Close, Delay, Event, ImapSession, Pace, Pause, Stall
from fakemail.mailbox import MailStore

NANOSECONDS = 1_700_000_000_000_000_000


def store() -> MailStore:
    """Users, folders and mail: synthesised, odd, none."""
    made = MailStore(seed=7, clock=lambda: NANOSECONDS)
    for address, password in grammar.USERS.items():
        account = made.add_user(address.decode(), password.decode())
        for name in ("Archive", "Archive/2024", "Many", "Odd", "Empty"):
            made.create(account, name)
        for name, count in (("INBOX", 12), ("Archive", 5), ("Many", 1500)):
            made.seed_folder(account.folder(name), count=count, seed=3, profile="small")
        for raw in grammar.MESSAGES:
            made.store(account.folder("Odd"), raw)
    return made


def uidvalidities() -> list[int]:
    """Of the folders of such a store: they are the same each time."""
    account = store().user(next(iter(grammar.USERS)).decode())
    return [folder.uidvalidity for folder in account.folders.values()]


class CoreWire:
    """One session."""

    def __init__(self, mail: MailStore, plan: Plan | None = None) -> None:
        plan = plan or Plan(1)
        self.session = ImapSession(mail, note=_no_note, decide=plan.decide, active=plan.active)
        self.closed = False
        #: Cut, as a fault wants it: what was said may end anywhere.
        self.cut = False
        self._said = bytearray(self.session.greeting())
        self._limit = 6_000_000

    def send(self, data: bytes, meanwhile: Callable[[], None] | None = None) -> None:
        """Feed, and take all that follows; from an answer without end the client goes away."""
        if self.closed:
            return
        self.session.feed(data)
        self.pull(meanwhile)

    def pull(self, meanwhile: Callable[[], None] | None = None) -> None:
        """What the shell writes when it is woken; it may be kept from the next piece by others' work."""
        events = self.session.events()
        for event in events:
            self._take(event)
            if len(self._said) > self._limit:
                events.close()
                return
            if meanwhile is not None:
                meanwhile()
                meanwhile = None
        if meanwhile is not None:
            meanwhile()
        # What the others did may be news.
        for event in self.session.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, bytes):
            self._said += event
        elif isinstance(event, Close):
            self.closed, self.cut = True, event.abrupt
        elif isinstance(event, Stall):
            self.closed = self.cut = True
        else:
            assert isinstance(event, Delay | Pace | Pause), f"no shell knows {event!r}"

    def hear(self, _enough: Callable[[bytes], bool]) -> bytes:
        """All that was said: nothing more will come."""
        said = bytes(self._said)
        self._said.clear()
        return said

    def leave(self) -> None:
        """The connection is lost."""
        self.closed = True
        self.session.close()


def _no_note(_kind: str, **_facts: Any) -> None:
    return
