"""IMAP4rev1 without I/O (RFC 3501 and its extensions): bytes in, bytes and events out.

events      what the core asks of the shell
syntax      framing and tokens, with their limits; mutf7: folder names
view        the selected folder as one client was told of it
context     what a command may see and change; table: the transition table
session     the state machine
offer       capabilities, before and after login
connection, auth, names, listing, selecting, messages, fetch, search, sorting, threads, condstore    the commands
message, structure, addresses, texts, subjects, fetch_items, search_keys    one message, and what is said of it

The shell around it (imap_server) owns sockets, waiting and faults' delays.
"""

from fakemail.imap_protocol.context import ImapOptions
from fakemail.imap_protocol.events import Close, Delay, Event, Gather, Pace, Pause, Piece, Stall, StartTls, Wait
from fakemail.imap_protocol.offer import CAPABILITIES, without
from fakemail.imap_protocol.session import ImapSession
from fakemail.imap_protocol.table import COMMANDS, TRANSITIONS

__all__ = [
    "CAPABILITIES", "COMMANDS", "TRANSITIONS", "Close", "Delay", "Event", "Gather", "ImapOptions", "ImapSession",
    "Pace", "Pause", "Piece", "Stall", "StartTls", "Wait", "without",
]  # fmt: skip
