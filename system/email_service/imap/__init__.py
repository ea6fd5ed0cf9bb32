"""Read mailboxes over IMAP (RFC 3501), and move what is in them: ``open_session``. Called by service.

session     what is asked of a mailbox
changes     what has changed in a folder since a token
reading     messages in batches, with those that can't be had
moving      moving, expunging, making folders: all that writes
folder      an open folder, its news, and questions to it
login       who we are
wire        the connection: commands out, replies in
names       folders in a list (pure)
replies     what the server's replies mean (pure)
refusals    errors made ours, spans
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
