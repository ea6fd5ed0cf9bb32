"""A case: what the clients of one store do, as data that can be saved; made from chance, and played with an oracle.

Owns: the steps (an exchange that keeps the rules of framing, a pipeline of such, a stream that keeps none), and what
must hold after each.
Never does: know what a wire is made of: core and socket look alike here.
Called by: the IMAP targets.

What must hold
- what the server says is well-formed, and its message numbers are those that a client counts;
- a whole command gets exactly one tagged reply, or a BYE and the end of the connection;
- no tag is answered that was not sent, nor more often than it was sent;
- afterwards a NOOP is answered, or the connection has ended with a BYE.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

import fuzz_imap_grammar as grammar
from fuzz_campaign import Case, raw, text
from fuzz_imap_replies import MalformedError, Mirror, Reply, parse

#: A client goes away from a longer answer.
ANSWER_BYTES_MAX = 4_000_000
#: What may be swallowed as a literal before a client gives up to be heard again.
FILLER_BYTES_MAX = 300_000
_FROZEN = {"FETCH", "STORE", "SEARCH"}
#: What another client does while an answer is on its way.
_CHANGING = (
    "STORE", "UID STORE", "EXPUNGE", "UID EXPUNGE", "MOVE", "UID MOVE", "APPEND", "COPY", "DELETE", "RENAME", "CLOSE",
    "FETCH", "LOGOUT",
)  # fmt: skip
#: After these, and after commands that were spoilt, nobody knows whether a folder is selected and which.
_MAY_LEAVE = {"", "CLOSE", "UNSELECT", "DELETE", "RENAME", "LOGOUT"}


class OracleError(AssertionError):
    """What must hold does not."""


class Wire(Protocol):
    """A connection to the server under test."""

    #: The server has ended it.
    closed: bool

    def send(self, data: bytes, meanwhile: Callable[[], None] | None = None) -> None:
        """Hand over bytes; do something else before all of the answer has come."""

    def hear(self, enough: Callable[[bytes], bool]) -> bytes:
        """What the server has said since; a socket waits until it is enough, and raises if that takes too long."""

    def leave(self) -> None:
        """Go away without a word."""


# --- making ---


def make(chance: Random, *, sessions: int = 2) -> Case:
    """A case: mostly logged in with a folder selected, then steps of all kinds."""
    steps: list[dict[str, Any]] = []
    for session in range(sessions):
        for name in _way_in(chance):
            steps.append(_exchange(chance, session, len(steps), name=name))
    for _ in range(chance.randint(1, 8)):
        session = chance.randrange(sessions)
        step = _step(chance, session, len(steps))
        if step["kind"] == "exchange" and chance.random() < 0.25:
            step["meanwhile"] = _exchange(chance, (session + 1) % sessions, len(steps), name=chance.choice(_CHANGING))
        steps.append(step)
    return {"steps": steps}


def _way_in(chance: Random) -> list[str]:
    depth = chance.random()
    if depth < 0.1:
        return ["AUTHENTICATE"]
    if depth < 0.2:
        return ["LOGIN"]
    extended = ["ENABLE"] if depth < 0.5 else []
    return ["LOGIN", *extended, chance.choice(("SELECT", "SELECT", "SELECT", "EXAMINE"))]


def _step(chance: Random, session: int, number: int) -> dict[str, Any]:
    kind = chance.random()
    if kind < 0.45:
        return _exchange(chance, session, number)
    if kind < 0.7:
        return _exchange(chance, session, number, spoilt=True)
    if kind < 0.8:
        return _pipeline(chance, session, number)
    return _stream(chance, session, number)


def _draft(chance: Random, number: int, name: str | None = None) -> grammar.Draft:
    tag = b"t%dx%s" % (number, b"%04x" % chance.randrange(65_536))
    return grammar.command(grammar.Draft(chance=chance, tag=tag), name)


def _exchange(
    chance: Random, session: int, number: int, *, name: str | None = None, spoilt: bool = False
) -> dict[str, Any]:
    draft = _draft(chance, number, name)
    if spoilt:
        grammar.spoil(draft)
    pieces = draft.pieces()
    if not grammar.framed(pieces, lines=len(draft.lines)):
        return _stream_of(chance, session, b"".join(pieces))
    cut = [[text(each) for each in grammar.cut(chance, piece)] for piece in pieces]
    known = "" if spoilt else draft.name
    return {"kind": "exchange", "session": session, "name": known, "tag": text(draft.tag), "pieces": cut}


def _pipeline(chance: Random, session: int, number: int) -> dict[str, Any]:
    """Commands that wait for nothing, in one go: each is answered, in order."""
    tags, data = [], b""
    for at in range(chance.randint(2, 12)):
        draft = _draft(chance, number * 100 + at)
        pieces = draft.pieces()
        if len(pieces) == 1:
            tags.append(text(draft.tag))
            data += pieces[0]
    chunks = [text(each) for each in grammar.cut(chance, data)]
    return {"kind": "pipeline", "session": session, "tags": tags, "chunks": chunks}


def _stream(chance: Random, session: int, number: int) -> dict[str, Any]:
    """Commands whose bytes were changed anywhere; or no commands at all."""
    if chance.random() < 0.1:
        return _stream_of(chance, session, chance.randbytes(chance.randint(1, 400)))
    data = b""
    for at in range(chance.randint(1, 4)):
        data += b"".join(_draft(chance, number * 100 + at).pieces())
    return _stream_of(chance, session, grammar.scramble(chance, data))


def _stream_of(chance: Random, session: int, data: bytes) -> dict[str, Any]:
    return {"kind": "stream", "session": session, "chunks": [text(each) for each in grammar.cut(chance, data)]}


# --- playing ---


class Player:
    """One client: sends the steps and judges the answers."""

    def __init__(self, wire: Wire, seen: Counter[tuple[str, str]]) -> None:
        self._wire = wire
        #: How often which command was answered how.
        self._seen = seen
        self._mirror = Mirror()
        #: The end was told.
        self._bye = False
        #: In the middle of something that can't be told from outside.
        self._lost = False
        self._synced = 0

    def greeting(self) -> None:
        """Section 7.1: the server speaks first."""
        self._heard(lambda out: out.endswith(b"\r\n"))

    def play(self, step: dict[str, Any], others: Sequence[Player] = ()) -> None:
        """One step, if there is still somebody to talk to; ``others`` are by number who may do something meanwhile."""
        if self._wire.closed or self._lost:
            return
        if step["kind"] != "exchange":
            {"pipeline": self._pipeline, "stream": self._stream}[step["kind"]](step)
            return
        other = step.get("meanwhile")
        self._exchange(step, (lambda: others[other["session"]].play(other)) if other and others else None)

    def finish(self) -> None:
        """Whatever was, a NOOP is answered."""
        if not (self._wire.closed or self._lost):
            self._resync(swallowed=0)
        self._wire.leave()

    def _exchange(self, step: dict[str, Any], meanwhile: Callable[[], None] | None) -> None:
        tag, name = raw(step["tag"]), step["name"]
        self._mirror.frozen = name in _FROZEN
        if name in {"SELECT", "EXAMINE"}:
            self._mirror = Mirror()
        elif name in _MAY_LEAVE:
            self._mirror.blind = True
        replies: list[Reply] = []
        # What no server asks for twice ends whatever still waits for a line.
        for piece in [*step["pieces"], ["*\r\n"], ["DONE\r\n"], ["\r\n"]]:
            before = len(replies)
            for chunk in piece[:-1]:
                self._wire.send(raw(chunk))
            self._wire.send(raw(piece[-1]), meanwhile)
            meanwhile = None
            replies += self._heard(_until(tag))
            if self._wire.closed or self._lost or _tagged(replies):
                break
            # News may follow it: in IDLE there are some at once.
            if not any(each.tag == b"+" for each in replies[before:]):
                raise OracleError(f"neither an answer nor a continuation request: {replies[-3:]}")
        self._mirror.frozen = False
        self._judge_one(tag, name, replies)

    def _judge_one(self, tag: bytes, name: str, replies: list[Reply]) -> None:
        tagged = _tagged(replies)
        if [each.tag for each in tagged] == [tag]:
            self._seen[name, tagged[0].name.decode()] += 1
            return
        # It may end instead; that it said BYE is judged where it was heard.
        if tagged or not (self._wire.closed or self._lost):
            raise OracleError(f"one reply to {tag!r} expected: {tagged} in {replies[-5:]}")

    def _pipeline(self, step: dict[str, Any]) -> None:
        self._mirror.blind = True
        tags = [raw(each) for each in step["tags"]]
        if not tags:
            return
        replies: list[Reply] = []
        for chunk in step["chunks"]:
            self._wire.send(raw(chunk))
        replies += self._heard(_until(tags[-1]))
        answered = [each.tag for each in _tagged(replies)]
        if answered != tags and not ((self._wire.closed or self._lost) and answered == tags[: len(answered)]):
            raise OracleError(f"each of {tags} in order expected: {answered}")

    def _stream(self, step: dict[str, Any]) -> None:
        self._mirror.blind = True
        data = raw("".join(step["chunks"]))
        for chunk in step["chunks"]:
            self._wire.send(raw(chunk))
        sizes = [int(each[:20]) for each in re.findall(rb"\{(\d+)\+?\}", data)]
        self._resync(swallowed=sum(sizes), sent=data)

    def _resync(self, *, swallowed: int, sent: bytes = b"") -> None:
        """End whatever may be open: a line, IDLE, SASL, a literal that takes in what follows."""
        self._synced += 1
        filler, replies, total, tag = b"\r\n*\r\nDONE\r\n", [], 0, b""
        while not (self._wire.closed or self._lost or tag in {each.tag for each in replies}):
            if any(each.tag.startswith(b"sync") for each in replies):
                # It hears again: the last of them will be answered too.
                replies += self._heard(_answered(tag))
                continue
            if total > FILLER_BYTES_MAX:
                if swallowed < total - 4096:
                    raise OracleError(f"no answer to NOOP after {total} bytes")
                # A literal that takes in more than a case can send: nothing to learn.
                self._lost = True
                break
            tag = b"sync%dx%d" % (self._synced, total)
            unit = filler + tag + b" NOOP\r\n"
            self._wire.send(unit)
            sent, total = sent + unit, total + len(unit)
            filler += filler if len(filler) < 65_536 else b""
            # Where a literal may be open the answer may not come; else it must.
            replies += self._heard(_answered(tag), must=swallowed <= 0)
        counts = Counter(each.tag for each in _tagged(replies))
        for tag, count in counts.items():
            if count > sent.count(tag):
                raise OracleError(f"{tag!r} was answered {count} times and sent {sent.count(tag)} times")

    def _heard(self, enough: Callable[[bytes], bool], *, must: bool = True) -> list[Reply]:
        out = self._wire.hear(enough if must else lambda _: True)
        if len(out) > ANSWER_BYTES_MAX:
            self._wire.leave()
            self._lost = True
            return []
        replies = parse(out)
        for reply in replies:
            self._mirror.saw(reply)
            self._bye = self._bye or reply.name == b"BYE"
        if self._wire.closed and not self._bye:
            raise OracleError(f"the connection ended without a BYE: {replies[-3:]}")
        return replies


def _tagged(replies: Sequence[Reply]) -> list[Reply]:
    return [each for each in replies if each.tag not in {b"*", b"+"}]


def _answered(tag: bytes) -> Callable[[bytes], bool]:
    """Whether a reply to this tag has come."""
    return lambda out: out.endswith(b"\r\n") and re.search(rb"(?m)^" + re.escape(tag) + rb" ", out) is not None


def _until(tag: bytes) -> Callable[[bytes], bool]:
    """Whether a reply to this tag or a continuation request has come."""

    def enough(out: bytes) -> bool:
        # Cheap questions before the dear one.
        if not out.endswith(b"\r\n") or not re.search(rb"(?m)^(?:" + re.escape(tag) + rb"|\+) ", out):
            return False
        try:
            replies = parse(out)
        except MalformedError:
            # A literal that is not all there; or truly malformed, which is judged when the time is over.
            return False
        return any(each.tag in {tag, b"+"} for each in replies)

    return enough
