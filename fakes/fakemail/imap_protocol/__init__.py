"""IMAP4rev1 without I/O (RFC 3501): bytes in, bytes and events out.

syntax      framing and tokens, with their limits
fetch       what FETCH says of a message
search      SEARCH as a predicate
session     the state machine

The shell around it (imap_server) owns sockets, waiting and faults' delays.
"""

from fakemail.imap_protocol.session import TRANSITIONS, Close, Delay, ImapSession, Wait

__all__ = ["TRANSITIONS", "Close", "Delay", "ImapSession", "Wait"]
