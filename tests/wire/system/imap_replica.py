"""A folder's rows in memory, kept by batches as a database would keep them."""

import hashlib
from itertools import islice


class Replica:
    """What a client knows of one folder: UID -> (flags, SHA-256), and the token of the last batch."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = {}
        self.uidvalidity = None
        self.token = None
        #: Windows that were compared with the rows.
        self.asked = []
        #: UIDs that were handed out as new, in order.
        self.handed_out = []
        self.unreadable = {}

    def known(self, first, last):
        self.asked.append((first, last))
        return {uid: tuple(flags) for uid, (flags, _) in self.rows.items() if first <= uid <= last}

    def synchronise(self, session, *, batch=100, stop_after=None, between=lambda: None):
        """Apply batches, all or so many; ``between`` happens while one is stored. Answers how many there were."""
        batches = session.changes_since(self.folder, self.token, self.known, batch=batch)
        count = 0
        for change in islice(batches, stop_after):
            self.apply(change)
            between()
            assert change.more or next(batches, None) is None
            count += 1
        return count

    def apply(self, batch):
        if batch.reset:
            self.rows.clear()
        for gone in batch.vanished:
            for uid in [uid for uid in self.rows if uid in gone]:
                del self.rows[uid]
        for uid, flags in batch.flags.items():
            if uid in self.rows:
                self.rows[uid] = (frozenset(flags), self.rows[uid][1])
        for message in batch.messages:
            assert message.uid not in self.rows, f"UID {message.uid} was handed out twice"
            self.rows[message.uid] = (frozenset(message.flags), hashlib.sha256(message.raw).hexdigest())
            self.handed_out.append(message.uid)
        for message in batch.unreadable:
            assert message.uid not in self.rows, f"UID {message.uid} was handed out twice"
            self.rows[message.uid] = (frozenset(message.flags), None)
            self.unreadable[message.uid] = message
        self.uidvalidity, self.token = batch.uidvalidity, batch.token
        assert self.token.last_uid >= max(self.rows, default=0)
