"""Read mailboxes over IMAP (RFC 3501): ``open_session``, then ``folders`` and ``changes_since``. Called by service.

session     what is asked of a mailbox, and tokens
wire        the connection, its errors and spans
replies     what the server's replies mean (pure)
values      what goes in and comes out (pure)
"""

from email_service.imap.session import ImapSession, open_session
from email_service.imap.values import (
    Batch,
    Flags,
    FolderStatus,
    ImapEndpoint,
    Known,
    Moved,
    RemoteFolder,
    RemoteMessage,
    SyncToken,
    UnreadableMessage,
)

__all__ = [
    "Batch",
    "Flags",
    "FolderStatus",
    "ImapEndpoint",
    "ImapSession",
    "Known",
    "Moved",
    "RemoteFolder",
    "RemoteMessage",
    "SyncToken",
    "UnreadableMessage",
    "open_session",
]
