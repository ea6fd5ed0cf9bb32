"""A Maildir or an mbox file brought into a user's folders.

Owns: which folder of a Maildir becomes which folder of the user. Never does: reading the files (files does), HTTP.
Called by: serving (the start configuration), the endpoint that loads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fakemail.files import LoadedMail, load_maildir, load_mbox
from fakemail.mailbox import Account, Folder, MailStore

#: The name that files gives to mail which is in no folder of a Maildir.
_TOP = "INBOX"


def load(store: MailStore, folder: Folder, path: Path) -> int:
    """Put the mail of a path into a folder, that of a Maildir's own folders below it; answers how many messages came.

    Loaded into INBOX, a Maildir's folders keep their names. Raises MailFileError for what is no mail.
    """
    account, count = store.user(folder.address), 0
    for mail in _messages(path):
        target = _target(store, account, folder, mail.folder)
        store.store(target, mail.raw, flags=mail.flags, received_s=mail.received_s)
        count += 1
    return count


def _messages(path: Path) -> Iterator[LoadedMail]:
    return load_maildir(path) if path.is_dir() else load_mbox(path)


def _target(store: MailStore, account: Account, folder: Folder, name: str) -> Folder:
    """The folder for mail that lies in ``name``, made if it is not there."""
    if name == _TOP:
        return folder
    full = name if folder.name == _TOP else f"{folder.name}/{name}"
    if full not in account.folders:
        store.create(account, full)
        account.subscribed.add(full)
    return account.folder(full)
