"""Read mailboxes over IMAP (RFC 3501): ``open_session``, then ``folders`` and ``changes_since``. Called by service.

session     what is asked of a mailbox, and tokens
wire        the connection, its errors and spans
replies     what the server's replies mean (pure)
"""

from email_service.imap.replies import RemoteFolder, RemoteMessage
from email_service.imap.session import Batch, ImapSession, SyncToken, open_session
from email_service.imap.wire import ImapEndpoint

__all__ = [
    "Batch",
    "ImapEndpoint",
    "ImapSession",
    "RemoteFolder",
    "RemoteMessage",
    "SyncToken",
    "open_session",
]
