"""Folders in a LIST: their names in modified UTF-7, their types, their status (pure). Called by session and moving."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from email_service.imap.replies import NOT_QUOTABLE, Value, integer, readable
from email_service.imap.values import FolderStatus, RemoteFolder

#: RFC 6154 section 2 -> our names.
_SPECIAL_USE: Final = {
    "\\sent": "sent",
    "\\drafts": "drafts",
    "\\trash": "trash",
    "\\junk": "spam",
    "\\archive": "archive",
    "\\all": "archive",
}
#: The way back.
SPECIAL_USES: Final = {
    "sent": b"\\Sent",
    "drafts": b"\\Drafts",
    "trash": b"\\Trash",
    "spam": b"\\Junk",
    "archive": b"\\Archive",
}
_WELL_KNOWN: Final = {
    **dict.fromkeys(("sent", "sent items", "sent mail", "sent messages"), "sent"),
    **dict.fromkeys(("draft", "drafts"), "drafts"),
    **dict.fromkeys(("bin", "deleted items", "deleted messages", "trash"), "trash"),
    **dict.fromkeys(("bulk mail", "junk", "junk e-mail", "junk email", "spam"), "spam"),
    **dict.fromkeys(("all mail", "archive", "archives"), "archive"),
}
_UNSELECTABLE: Final = frozenset({"\\noselect", "\\nonexistent"})


class Listed(NamedTuple):
    """A folder that can be opened, as it is listed."""

    #: In lower case.
    flags: frozenset[str]
    #: The last part of the name.
    leaf: str
    #: The name on the wire: not every server's modified UTF-7 survives decoding and encoding.
    name: bytes


def listed_folder(reply: list[Value]) -> Listed | None:
    """The folder of ``(flags) delimiter name``; None if it can't be opened."""
    flags, delimiter, name = (*reply, None, None, None)[:3]
    if not isinstance(flags, list) or not isinstance(name, bytes) or NOT_QUOTABLE.search(name):
        return None
    words = frozenset(readable(flag).lower() for flag in flags if isinstance(flag, bytes))
    if words & _UNSELECTABLE:
        return None
    path = decode_name(name)
    leaf = path.rsplit(readable(delimiter), 1)[-1] if isinstance(delimiter, bytes) and delimiter else path
    return Listed(words, leaf, name)


def folder_status(items: list[Value]) -> FolderStatus:
    """The status of ``MESSAGES 3 UIDNEXT 7 ...``."""
    pairs = {
        key.upper(): integer(value)
        for key, value in zip(items[::2], items[1::2], strict=False)
        if isinstance(key, bytes)
    }
    # A mailbox without modification sequences says 0 (RFC 7162 section 3.1.2.2).
    return FolderStatus(
        uidvalidity=pairs.get(b"UIDVALIDITY"),
        uidnext=pairs.get(b"UIDNEXT"),
        messages=pairs.get(b"MESSAGES"),
        highestmodseq=pairs.get(b"HIGHESTMODSEQ") or None,
    )


def typed_folders(listed: Sequence[Listed], statuses: Mapping[bytes, FolderStatus] | None = None) -> list[RemoteFolder]:
    """Each type goes to one folder: to the one that is flagged so, else to the first with a well-known name."""
    types: dict[int, str] = {}
    for place, (_, _, name) in enumerate(listed):
        if name.upper() == b"INBOX":
            types[place] = "inbox"
    for guess in (_flagged_type, _named_type):
        for place, (flags, leaf, _) in enumerate(listed):
            kind = guess(flags, leaf)
            if kind is not None and kind not in types.values():
                types.setdefault(place, kind)
    return [
        RemoteFolder(
            name=decode_name(name), type=types.get(place, "custom"), status=statuses.get(name) if statuses else None
        )
        for place, (_, _, name) in enumerate(listed)
    ]


def _flagged_type(flags: frozenset[str], _leaf: str) -> str | None:
    return next((_SPECIAL_USE[flag] for flag in sorted(flags) if flag in _SPECIAL_USE), None)


def _named_type(_flags: frozenset[str], leaf: str) -> str | None:
    return _WELL_KNOWN.get(leaf.lower())


def decode_name(name: bytes) -> str:
    """Modified UTF-7 (RFC 3501 section 5.1.3); what is none stays as it is."""
    text = name.decode("utf-8", "replace")
    try:
        decoded = re.sub("&([^-]*)-", lambda run: _decode_run(run[1]), text)
    except ValueError:
        return text
    return text if "\0" in decoded else decoded


def _decode_run(run: str) -> str:
    if not run:
        return "&"
    padded = run.replace(",", "/") + "=" * (-len(run) % 4)
    return base64.b64decode(padded, validate=True).decode("utf-16-be")


def encode_name(name: str) -> bytes:
    """A name as the server wants it: modified UTF-7."""
    return re.sub(r"&|[^\x20-\x7e]+", lambda run: _encode_run(run[0]), name).encode("ascii")


def _encode_run(run: str) -> str:
    if run == "&":
        return "&-"
    encoded = base64.b64encode(run.encode("utf-16-be", "surrogatepass")).decode("ascii")
    return f"&{encoded.rstrip('=').replace('/', ',')}-"
