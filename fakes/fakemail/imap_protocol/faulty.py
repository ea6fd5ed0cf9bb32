"""What a fault makes of an answer, as events. Pure. Called by: session, auth, selecting, fetch.

Order: the wait, then the pace, then the cut; an answer instead of the usual one comes last.
"""

from __future__ import annotations

from collections.abc import Iterator

from fakemail.faults import Action
from fakemail.imap_protocol.events import Close, Delay, Event, Pace, Stall


class Answered(Exception):  # noqa: N818  # not one for users of fakemail: the command is over
    """A fault has answered the command."""


def carried_out(action: Action | None) -> Iterator[Event]:
    """All but the reply; after a cut or a stall nothing that follows is heard."""
    if action is None:
        return
    if action.delay_ms:
        yield Delay(delay_ms=action.delay_ms)
    if action.bytes_per_s is not None:
        yield Pace(bytes_per_s=action.bytes_per_s)
    if action.drop:
        yield Close(abrupt=True)
    if action.stall:
        yield Stall()


def replied(action: Action, tag: bytes) -> Iterator[Event]:
    """The reply, tagged unless it says BYE, which ends the connection as ``close`` does."""
    reply = action.reply or ""
    farewell = reply.startswith("BYE")
    yield (b"*" if farewell else tag) + b" " + reply.encode("ascii") + b"\r\n"
    if farewell or action.close:
        yield Close()


def spoilt(action: Action | None, tag: bytes) -> Iterator[Event]:
    """Both of the above; raises Answered if there was a reply."""
    yield from carried_out(action)
    if action is not None and action.reply is not None:
        yield from replied(action, tag)
        raise Answered
