"""Where the events of a fault are counted: all together, or each client, user, recipient or folder on its own.

Owns: the scopes and how each finds the name under which an event is counted. Never does: counting.
Called by: parse (to validate), plan (to count), table.

Rule: a new scope is a row of ``SCOPES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: What a server tells of an event, beside the connection it happened on.
Context = Mapping[str, str | Sequence[str] | int]
#: Under which an event is counted; its repr is part of what chance is drawn from.
Key = int | str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """One way to count."""

    #: For people.
    words: str
    #: What a point must tell for it.
    needs: tuple[str, ...] = ()
    #: The name for (connection, context).
    key: Callable[[int, Context], Key]


def _name(context: Context, *keys: str) -> tuple[str, ...]:
    """The values of some keys; of several recipients all, in their order."""
    found: list[str] = []
    for key in keys:
        value = context.get(key, "")
        found += [value] if isinstance(value, str) else [str(value)] if isinstance(value, int) else value
    return tuple(each.lower() for each in found)


#: Every scope.
SCOPES: Final[Mapping[str, Scope]] = {
    "server": Scope(words="all events together", key=lambda _, __: ""),
    "connection": Scope(words="each connection on its own", key=lambda connection, _: connection),
    "user": Scope(words="each user on its own", needs=("user",), key=lambda _, context: _name(context, "user")),
    "recipient": Scope(
        words="each recipient on its own", needs=("recipient",), key=lambda _, context: _name(context, "recipient")
    ),
    "sender-recipient": Scope(
        words="each pair of sender and recipient on its own, as greylisting does",
        needs=("sender", "recipient"),
        key=lambda _, context: _name(context, "sender", "recipient"),
    ),
    "folder": Scope(
        words="each folder of each user on its own",
        needs=("user", "folder"),
        key=lambda _, context: _name(context, "user", "folder"),
    ),
}
