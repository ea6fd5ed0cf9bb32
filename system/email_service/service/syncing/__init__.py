"""Turn a mailbox into rows: incremental, in batches, each with the token that speaks for it in one commit.

Rule 1: a message's identity is (folder, UIDVALIDITY, UID), so reading it twice changes nothing.
Rule 2: the token is committed with the rows that it speaks for: whatever kills a sync, the next goes on from there.
Rule 3: one execution at a time holds a client; a second one says so and does nothing.

access    how use cases come to a mailbox, and the time limit
mailbox   the use case: hold the client, read, settle
folders   the server's folders and their rows
ahead     a thread that reads and parses one batch ahead
columns   a batch as arrays of columns
store     a batch into rows
sent      what the sent folder proves
due       which clients are due
"""

from email_service.service.syncing.due import DueClient, due_clients
from email_service.service.syncing.mailbox import BATCH, sync_mailbox

__all__ = ["BATCH", "DueClient", "due_clients", "sync_mailbox"]
