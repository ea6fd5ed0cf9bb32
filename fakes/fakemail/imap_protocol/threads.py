"""THREAD and UID THREAD: ORDEREDSUBJECT and REFERENCES (RFC 5256 section 3).

Owns: how messages become trees. Called by: table.

Nothing here calls itself: a thread may be as deep as a folder is long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from fakemail.imap_protocol.context import Answer, Context, Ok, Request
from fakemail.imap_protocol.events import paused
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.search_keys import charset_at, criteria, matching
from fakemail.imap_protocol.sorting import sent_s, subject_of
from fakemail.imap_protocol.subjects import Subject, collated
from fakemail.imap_protocol.syntax import SyntaxFault
from fakemail.imap_protocol.view import View
from fakemail.mime import field_value, field_values
from fakemail.uids import Range, batches

#: A message identifier (RFC 5322 section 3.6.4), its left side quoted or not.
_ID: Final = re.compile(r'<("(?:[^"\\]|\\.)*"|[^<>@"\s]+)@([^<>\s]+)>')
_BETWEEN_PAUSES: Final = 512
#: Threads in one piece of the answer.
_THREADS: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Threaded:
    """What a message says that matters for threads."""

    #: As it is told: message number or UID.
    number: int
    sent_s: int
    subject: Subject
    #: Empty if it has none.
    message_id: str = ""
    #: Of the messages that it answers, the parent last.
    references: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class Node:
    """A message in its thread, or one that is only spoken of."""

    message: Threaded | None = None
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)

    @property
    def shown(self) -> Threaded:
        """The message, or the first one below: what a thread is sorted by and named after."""
        node = self
        while node.message is None:
            node = node.children[0]
        return node.message


def thread(context: Context, request: Request) -> Answer:
    """RFC 5256 section 3, BASE.6.4.THREAD."""
    cursor, view = request.cursor, context.here
    cursor.space()
    algorithm = cursor.word()
    build = _ALGORITHMS.get(algorithm)
    if build is None or not context.has(f"THREAD={algorithm}"):
        raise SyntaxFault(f"unknown threading algorithm {algorithm}")
    cursor.space()
    key, _ = yield from criteria(context, cursor, charset_at(cursor))
    found = yield from matching(view, key)
    context.facts["messages"] = len(found)
    read = (_read(view, batch, by_uid=request.by_uid) for batch in batches(found, length=_BETWEEN_PAUSES))
    messages = [each for part in (yield from paused(read)) for each in part]
    threads = [written(node) for node in build(messages)]
    yield b"* THREAD" + b" " * bool(threads)
    for start in range(0, len(threads), _THREADS):
        yield b"".join(threads[start : start + _THREADS])
    yield b"\r\n"
    return Ok(text="THREAD completed", expunges=request.by_uid)


def _read(view: View, batch: list[Range], *, by_uid: bool) -> list[Threaded]:
    found = []
    for low, high in batch:
        for uid in range(low, high + 1):
            message = Message(view.folder, view.uids.position(uid), uid)
            own = _ID.search(field_value(message.header, "message-id") or "")
            found.append(
                Threaded(
                    number=uid if by_uid else message.number,
                    sent_s=sent_s(message),
                    subject=subject_of(message),
                    message_id=_normal(own) if own else "",
                    references=_references(message.header),
                )
            )
    return found


def _references(header: bytes) -> tuple[str, ...]:
    """Of References; where that has none, the first of In-Reply-To."""
    named = [_normal(each) for value in field_values(header, "references") for each in _ID.finditer(value)]
    if named:
        return tuple(named)
    answered = (each for value in field_values(header, "in-reply-to") for each in _ID.finditer(value))
    return tuple(_normal(each) for each in answered)[:1]


def _normal(match: re.Match[str]) -> str:
    """Quoting makes no difference."""
    left = match[1]
    if left.startswith('"'):
        left = re.sub(r"\\(.)", r"\1", left[1:-1])
    return f"{left}@{match[2]}"


# ORDEREDSUBJECT -------------------------------------------------------------------------------------------------------


def by_subject(messages: Iterable[Threaded]) -> list[Node]:
    """One thread for each base subject, whose first message is the parent of all others."""
    threads: dict[str, list[Threaded]] = {}
    for each in sorted(messages, key=_moment):
        threads.setdefault(collated(each.subject.base), []).append(each)
    # The first of each came in the order of their dates.
    return [Node(first, children=[Node(each) for each in rest]) for first, *rest in threads.values()]


def _moment(message: Threaded) -> tuple[int, int]:
    return message.sent_s, message.number


# REFERENCES -----------------------------------------------------------------------------------------------------------


def by_references(messages: Iterable[Threaded]) -> list[Node]:
    """By what answers what; threads that are left over and share a subject are put together."""
    roots = _pruned(_linked(messages))
    _sort_below(roots)
    _sort(roots)
    roots = _merged(roots)
    _sort_below(roots)
    _sort(roots)
    return roots


def _linked(messages: Iterable[Threaded]) -> list[Node]:
    """Step 1 and 2: parents and children; those without a parent."""
    named: dict[str, Node] = {}
    nodes: list[Node] = []

    def node_of(name: str) -> Node:
        if name not in named:
            named[name] = Node()
            nodes.append(named[name])
        return named[name]

    for message in messages:
        node = node_of(message.message_id) if message.message_id else Node(message)
        if not message.message_id or node.message is not None:
            # No identifier, or one that another message has already: it is nobody's to be referred to.
            node = Node(message)
            nodes.append(node)
        node.message = message
        parent: Node | None = None
        for name in message.references:
            child = node_of(name)
            if parent is not None and child.parent is None:
                _link(parent, child)
            parent = child
        _unlink(node)
        if parent is not None:
            _link(parent, node)
    return [node for node in nodes if node.parent is None]


def _link(parent: Node, child: Node) -> None:
    """Unless it would make a loop."""
    above: Node | None = parent
    while above is not None:
        if above is child:
            return
        above = above.parent
    child.parent = parent
    parent.children.append(child)


def _unlink(node: Node) -> None:
    if node.parent is not None:
        node.parent.children.remove(node)
        node.parent = None


def _downwards(roots: Iterable[Node]) -> list[Node]:
    """Every node, parents before their children."""
    found = list(roots)
    for node in found:
        found += node.children
    return found


def _pruned(roots: list[Node]) -> list[Node]:
    """Step 3: without those that are only spoken of, whose children move up."""
    for node in reversed(_downwards(roots)):
        kept: list[Node] = []
        for child in node.children:
            kept += [child] if child.message is not None else child.children
        node.children = kept
    found: list[Node] = []
    for root in roots:
        # At the top several children keep their missing parent, so that they stay together.
        alone = root.message is None and len(root.children) <= 1
        found += root.children if alone else [root]
    return found


def _sort(nodes: list[Node]) -> None:
    nodes.sort(key=lambda node: _moment(node.shown))


def _sort_below(roots: list[Node]) -> None:
    """Step 6: siblings by the date that they were sent, from the bottom up."""
    for node in reversed(_downwards(roots)):
        _sort(node.children)


def _merged(roots: list[Node]) -> list[Node]:
    """Step 5: threads with the same subject become one."""
    table: dict[str, Node] = {}
    for root in roots:
        name = collated(root.shown.subject.base)
        if name and (name not in table or _speaks_better(root, table[name])):
            table[name] = root
    found: dict[Node, None] = dict.fromkeys(roots)
    for root in roots:
        name = collated(root.shown.subject.base)
        other = table.get(name)
        if other is None or other is root:
            continue
        del found[root]
        if root.message is None and other.message is None:
            other.children += root.children
        elif other.message is None or (_is_reply(root) and not _is_reply(other)):
            other.children.append(root)
        else:
            table[name] = both = Node(children=[other, root])
            del found[other]
            found[both] = None
    return list(found)


def _is_reply(node: Node) -> bool:
    return node.shown.subject.is_reply


def _speaks_better(node: Node, other: Node) -> bool:
    """For the subject of both: a missing parent, or the one that is no answer."""
    return other.message is not None and (node.message is None or (_is_reply(other) and not _is_reply(node)))


_ALGORITHMS: Final[dict[str, Callable[[Iterable[Threaded]], list[Node]]]] = {
    "ORDEREDSUBJECT": by_subject,
    "REFERENCES": by_references,
}


# The answer -----------------------------------------------------------------------------------------------------------


def written(root: Node) -> bytes:
    """One thread (RFC 5256 section 5, thread-list): ``(3 6 (4 23)(44 7 96))``."""
    return "".join(_words(root)).encode()


def _words(root: Node) -> Iterator[str]:
    todo: list[Node | str] = [")", root]
    yield "("
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            yield node
            continue
        if node.message is not None:
            yield str(node.message.number) + " " * bool(node.children)
        if len(node.children) == 1:
            todo.append(node.children[0])
        else:
            for child in reversed(node.children):
                todo += [")", child, "("]
