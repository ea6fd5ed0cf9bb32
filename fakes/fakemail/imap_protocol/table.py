"""The transition table: which command may come in which state, and who answers it (RFC 3501 section 6).

A new command is a row here and a handler; a capability that is switched off takes its rows along. Called by: session.
"""

from __future__ import annotations

from typing import Final

from fakemail.imap_protocol import (
    auth,
    condstore,
    connection,
    fetch,
    listing,
    messages,
    names,
    search,
    selecting,
    sorting,
    threads,
)
from fakemail.imap_protocol.context import AUTHENTICATED, NOT_AUTHENTICATED, SELECTED, Command, Handler

_ANY: Final = frozenset({NOT_AUTHENTICATED, AUTHENTICATED, SELECTED})
_BEFORE: Final = frozenset({NOT_AUTHENTICATED})
_AFTER: Final = frozenset({AUTHENTICATED, SELECTED})
_SELECTED: Final = frozenset({SELECTED})


def _row(states: frozenset[str], run: Handler, section: str, capability: str | None = None) -> Command:
    return Command(states=states, run=run, section=section, capability=capability)


COMMANDS: Final[dict[str, Command]] = {
    "CAPABILITY": _row(_ANY, connection.capability, "RFC 3501 section 6.1.1"),
    "NOOP": _row(_ANY, connection.noop, "RFC 3501 section 6.1.2"),
    "LOGOUT": _row(_ANY, connection.logout, "RFC 3501 section 6.1.3"),
    "ID": _row(_ANY, connection.id_, "RFC 2971 section 3.1", "ID"),
    "STARTTLS": _row(_BEFORE, connection.starttls, "RFC 3501 section 6.2.1", "STARTTLS"),
    "AUTHENTICATE": _row(_BEFORE, auth.authenticate, "RFC 3501 section 6.2.2"),
    "LOGIN": _row(_BEFORE, auth.login, "RFC 3501 section 6.2.3"),
    "ENABLE": _row(_AFTER, condstore.enable, "RFC 5161 section 3.1", "ENABLE"),
    "SELECT": _row(_AFTER, selecting.select, "RFC 3501 section 6.3.1"),
    "EXAMINE": _row(_AFTER, selecting.examine, "RFC 3501 section 6.3.2"),
    "CREATE": _row(_AFTER, names.create, "RFC 3501 section 6.3.3"),
    "DELETE": _row(_AFTER, names.delete, "RFC 3501 section 6.3.4"),
    "RENAME": _row(_AFTER, names.rename, "RFC 3501 section 6.3.5"),
    "SUBSCRIBE": _row(_AFTER, names.subscribe, "RFC 3501 section 6.3.6"),
    "UNSUBSCRIBE": _row(_AFTER, names.unsubscribe, "RFC 3501 section 6.3.7"),
    "LIST": _row(_AFTER, listing.list_, "RFC 3501 section 6.3.8"),
    "LSUB": _row(_AFTER, listing.lsub, "RFC 3501 section 6.3.9"),
    "STATUS": _row(_AFTER, names.status, "RFC 3501 section 6.3.10"),
    "APPEND": _row(_AFTER, messages.append, "RFC 3501 section 6.3.11"),
    "NAMESPACE": _row(_AFTER, names.namespace, "RFC 2342 section 5", "NAMESPACE"),
    "IDLE": _row(_AFTER, selecting.idle, "RFC 2177 section 3", "IDLE"),
    "CHECK": _row(_SELECTED, connection.noop, "RFC 3501 section 6.4.1"),
    "CLOSE": _row(_SELECTED, selecting.close, "RFC 3501 section 6.4.2"),
    "UNSELECT": _row(_SELECTED, selecting.unselect, "RFC 3691 section 2", "UNSELECT"),
    "EXPUNGE": _row(_SELECTED, messages.expunge, "RFC 3501 section 6.4.3"),
    "SEARCH": _row(_SELECTED, search.search, "RFC 3501 section 6.4.4"),
    "SORT": _row(_SELECTED, sorting.sort, "RFC 5256 section 3", "SORT"),
    # Its algorithms are capabilities: the command looks for them itself.
    "THREAD": _row(_SELECTED, threads.thread, "RFC 5256 section 3"),
    "FETCH": _row(_SELECTED, fetch.fetch, "RFC 3501 section 6.4.5"),
    "STORE": _row(_SELECTED, messages.store, "RFC 3501 section 6.4.6"),
    "COPY": _row(_SELECTED, messages.copy, "RFC 3501 section 6.4.7"),
    "MOVE": _row(_SELECTED, messages.move, "RFC 6851 section 3.1", "MOVE"),
}

#: What may follow UID (RFC 3501 section 6.4.8; EXPUNGE by RFC 4315 section 2.1, MOVE by RFC 6851 section 3.2, SORT and
#: THREAD by RFC 5256 section 3), with the capability that it needs.
UID_COMMANDS: Final = {
    **dict.fromkeys(("FETCH", "STORE", "SEARCH", "COPY", "THREAD")),
    "MOVE": "MOVE",
    "EXPUNGE": "UIDPLUS",
    "SORT": "SORT",
}
#: Command -> the states that it may come in.
TRANSITIONS: Final = {**{name: row.states for name, row in COMMANDS.items()}, "UID": _SELECTED}
