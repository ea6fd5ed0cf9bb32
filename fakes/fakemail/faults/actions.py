"""What a server does instead of, or before, what it would do.

Owns: the actions, the form of their arguments and which of them go together. Never does: doing them, drawing jitter.
Called by: parse (``read_action``), plan (hands them out), table; the servers read ``Action``.

Rule 1: a new action is a row of ``ACTIONS``, a field of ``Action`` and the points that allow it.
Rule 2: ``delay_ms`` comes first, then ``mailbox``, then everything else; ``close`` comes after the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from fakemail.faults import checks
from fakemail.faults.errors import FaultError
from fakemail.faults.garble import GARBLES
from fakemail.faults.points import Point

#: No client waits longer.
DELAY_MS_MAX: Final = 86_400_000
#: Certificates that a client must not trust: their date, their name, their issuer.
CERTIFICATES: Final = ("expired", "wrong-host", "self-signed")


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a server does; ``ACTIONS`` says it in words."""

    #: The fault that says so.
    fault_id: str
    #: Waited before anything else. What ``Plan.decide`` answers has its jitter drawn already.
    delay_ms: int = 0
    #: The delay varies by up to so much either way; 0 in what ``Plan.decide`` answers.
    jitter_ms: int = 0
    #: Sent instead of the usual reply, without tag and CRLF.
    reply: str | None = None
    #: The connection is closed after the reply.
    close: bool = False
    #: The connection is cut without a word.
    drop: bool = False
    #: No answer ever comes, and the line stays open.
    stall: bool = False
    #: How far a transfer goes before it is cut, stalls or waits; None: half a literal, nothing of a body.
    after_bytes: int | None = None
    #: Pace of a transfer.
    bytes_per_s: int | None = None
    #: Capabilities or EHLO keywords that are not announced.
    strip: tuple[str, ...] = ()
    #: The certificate that is shown.
    certificate: str | None = None
    #: The TLS handshake fails with an alert.
    alert: bool = False
    #: The OAuth token is answered as one that has expired.
    expired_token: bool = False
    #: A key of ``GARBLES``: how the message is spoilt.
    garble: str | None = None
    #: Response codes that SELECT leaves out.
    omit: tuple[str, ...] = ()
    #: What another client does to the folder meanwhile.
    mailbox: str | None = None

    def as_dict(self) -> dict[str, object]:
        """The form that ``read_action`` reads."""
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name in ACTIONS}
        unsaid = {each.name: each.default for each in fields(self)}
        kept = {name: value for name, value in said.items() if value != unsaid[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()} or {
            "delay_ms": 0
        }


@dataclass(frozen=True, kw_only=True)
class ActionKind:
    """One action: how its argument is written and what it does."""

    #: The argument, for people.
    form: str
    #: What the server does, for people.
    words: str
    #: Reads (value, where, point).
    read: Callable[[object, str, Point], Any]
    #: It means something only beside one of these.
    beside: tuple[str, ...] = ()
    #: At most one such action is in a fault; the others say more about it, or only wait.
    main: bool = True


def _yes(value: object, where: str, _point: Point) -> bool:
    return checks.yes(value, where=where)


def _count(least: int, most: int | None = None) -> Callable[[object, str, Point], int]:
    return lambda value, where, _point: checks.count(value, where=where, least=least, most=most)


def _one_of(known: tuple[str, ...]) -> Callable[[object, str, Point], str]:
    return lambda value, where, _point: checks.one_of(value, where=where, known=known)


def _reply(value: object, where: str, point: Point) -> str:
    reply = checks.text(value, where=where)
    assert point.reply is not None  # noqa: S101  # a point that allows the action says so
    if not point.reply.pattern.fullmatch(reply):
        raise FaultError(where=where, problem=f"{reply!r} given", allowed=point.reply.form)
    return reply


def _names(value: object, where: str, point: Point) -> tuple[str, ...]:
    return checks.some_of(value, where=where, known=point.names[where.rpartition(".")[2]])


def _mailbox(value: object, where: str, point: Point) -> str:
    return checks.one_of(value, where=where, known=point.names["mailbox"])


#: Every action.
ACTIONS: Final[Mapping[str, ActionKind]] = {
    "reply": ActionKind(
        form="text, as the point says", words="answers this instead; the verb or command does not run", read=_reply
    ),
    "close": ActionKind(
        form="`true`", words="closes the connection after the reply", read=_yes, beside=("reply",), main=False
    ),
    "drop": ActionKind(form="`true`", words="cuts the connection without a word", read=_yes),
    "stall": ActionKind(form="`true`", words="never answers and keeps the line open", read=_yes),
    "delay_ms": ActionKind(
        form=f"0 to {DELAY_MS_MAX}", words="waits first; alone, or before another action",
        read=_count(0, DELAY_MS_MAX), main=False,
    ),
    "jitter_ms": ActionKind(
        form="0 to `delay_ms`", words="varies the delay by up to so much either way, drawn from the seed",
        read=_count(0, DELAY_MS_MAX), beside=("delay_ms",), main=False,
    ),
    "after_bytes": ActionKind(
        form="0 up", words="lets so much pass before that; left out: half of a literal, nothing of a message",
        read=_count(0), beside=("drop", "stall", "delay_ms"), main=False,
    ),
    "bytes_per_s": ActionKind(
        form="1 up", words="slows the transfer, or the answer to the command, down to this pace", read=_count(1)
    ),
    "strip": ActionKind(form="list of names", words="does not announce these", read=_names),
    "certificate": ActionKind(
        form=", ".join(f"`{name}`" for name in CERTIFICATES), words="shows a certificate that is not to be trusted",
        read=_one_of(CERTIFICATES),
    ),
    "alert": ActionKind(form="`true`", words="breaks the TLS handshake off with an alert", read=_yes),
    "expired_token": ActionKind(
        form="`true`", words="answers an OAuth token as one that has expired: the error in JSON, then the refusal",
        read=_yes,
    ),
    "garble": ActionKind(
        form=", ".join(f"`{name}`" for name in GARBLES), words="spoils the message that is served",
        read=_one_of(tuple(GARBLES)),
    ),
    "omit": ActionKind(form="list of names", words="leaves these response codes out of the answer", read=_names),
    "mailbox": ActionKind(
        form="`arrive`, `expunge`, `flags`, `reset-uidvalidity`",
        words="lets another client change the folder before the command goes on", read=_mailbox,
    ),
}  # fmt: skip


def read_action(value: object, *, where: str, fault_id: str, point: str, at: Point) -> Action:
    """The action of a fault at a point; raises FaultError."""
    given = checks.table(value, where=where, optional=tuple(ACTIONS))
    if foreign := [name for name in given if name not in at.actions]:
        problem = f"{foreign[0]!r} has no meaning at {point}"
        raise FaultError(where=where, problem=problem, allowed=", ".join(at.actions), key=foreign[0])
    read = {name: ACTIONS[name].read(argument, f"{where}.{name}", at) for name, argument in given.items()}
    _check_together(read, where=where, allowed=at.actions)
    return Action(fault_id=fault_id, **read)


def _check_together(read: Mapping[str, Any], *, where: str, allowed: tuple[str, ...]) -> None:
    main = [name for name in read if ACTIONS[name].main]
    if len(main) > 1:
        mains = ", ".join(name for name in allowed if ACTIONS[name].main)
        raise FaultError(where=where, problem=f"{' and '.join(main)} given together", allowed=f"one of {mains}")
    for name in read:
        needs = [other for other in ACTIONS[name].beside if other in allowed]
        if ACTIONS[name].beside and not read.keys() & set(needs):
            problem = f"given without {' or '.join(needs)}"
            raise FaultError(where=f"{where}.{name}", problem=problem, allowed=f"{name} beside {' or '.join(needs)}")
    if not main and "delay_ms" not in read:
        raise FaultError(where=where, problem="no action given", allowed=", ".join(allowed))
    if read.get("jitter_ms", 0) > read.get("delay_ms", 0):
        raise FaultError(
            where=f"{where}.jitter_ms",
            problem=f"{read['jitter_ms']} given",
            allowed=f"a whole number from 0 to delay_ms ({read['delay_ms']})",
        )
