"""A batch as PostgreSQL takes it fastest: one array a column, one statement a table.

Row by row costs a round trip each; COPY is refused on tables with row-level security. ``prepare`` runs in the thread
that reads ahead, where MIME is parsed and digests are taken; attachments are put into the blob store by the thread that
writes, which has the time. Called by ``mailbox``; ``store`` writes what it makes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeAlias

import psycopg
from psycopg.types.array import ListBinaryDumper

from email_service import imap, message
from email_service.blobs import BlobRef
from email_service.service.syncing.folders import Folder


class Column(list[Any]):
    """Values of one column. They travel in PostgreSQL's binary form.

    psycopg writes lists as text, each value quoted by a regular expression: half of all time that a message took.
    """


# For this class alone: in binary form a list of texts no longer passes for a list of anything.
psycopg.adapters.register_dumper(Column, ListBinaryDumper)

#: All columns of some rows, by name.
Columns: TypeAlias = Mapping[str, Column]

#: Of email_messages: what differs from row to row, and the type of its array.
MESSAGE_COLUMNS: Final = {
    "id": "uuid",
    "uid": "bigint",
    "message_id": "text",
    "sender": "text",
    "recipients_to": "jsonb",
    "recipients_cc": "jsonb",
    "subject": "text",
    "body_text": "text",
    "body_html": "text",
    "headers": "jsonb",
    "flags": "jsonb",
    "size_bytes": "bigint",
    "sha256": "bytea",
    "raw": "bytea",
    "internal_date": "timestamptz",
    "sent_at": "timestamptz",
    "attachment_count": "int",
    "is_broken": "bool",
}
#: Of email_attachments.
ATTACHMENT_COLUMNS: Final = {
    "message_id": "uuid",
    "id": "uuid",
    "blob_key": "text",
    "filename": "text",
    "content_type": "text",
    "content_id": "text",
    "inline": "bool",
    "size_bytes": "bigint",
    "sha256": "bytea",
}
#: An entry of a B-tree index ends at 2,704 bytes; longer ones than RFC 5322's line are nobody's Message-ID.
_MESSAGE_ID_BYTES_MAX: Final = 998
#: Flags have no case (RFC 3501 section 2.3.2); those that rows are asked for are written in one way.
_SYSTEM_FLAGS: Final = {
    flag.lower(): flag for flag in ("\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen", "$Junk", "$Forwarded")
}
_INT4_MAX: Final = 2**31 - 1
#: What a row holds of a message that PostgreSQL refused.
_BARE: Final = {
    **dict.fromkeys(("message_id", "body_html", "sent_at")),
    **dict.fromkeys(("sender", "subject", "body_text"), ""),
    **dict.fromkeys(("recipients_to", "recipients_cc", "headers"), "[]"),
    "attachment_count": 0,
    "is_broken": True,
}
_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch that has only to be written."""

    folder: Folder
    #: Without its messages: they are in the columns.
    batch: imap.Batch
    messages: Columns = field(repr=False)
    #: Attachments that are not in the blob store yet, each with its message's id; and rows of those that are.
    parts: Sequence[tuple[uuid.UUID, message.ParsedAttachment]] = field(repr=False)
    attachments: Columns = field(repr=False)
    #: The messages as they came, None of those that could not be had.
    raws: Sequence[bytes | None] = field(repr=False)

    @property
    def uids(self) -> Sequence[int]:
        """Of the new messages."""
        return self.messages["uid"]

    @property
    def size_bytes(self) -> int:
        """Of the messages as they came."""
        return sum(map(len, filter(None, self.raws)))

    def stored(self, put_many: Callable[[Sequence[bytes]], Sequence[BlobRef]]) -> Self:
        """With its attachments in the blob store.

        Raises:
            BlobError: they can't be put there.
        """
        if not self.parts:
            return self
        refs = put_many([part.data for _, part in self.parts])
        rows = [_attachment_row(row_id, part, ref) for (row_id, part), ref in zip(self.parts, refs, strict=True)]
        return replace(self, parts=(), attachments=_columns(ATTACHMENT_COLUMNS, rows))

    def singles(self) -> Iterator[Self]:
        """The messages one by one, each with its attachments."""
        for index, row_id in enumerate(self.messages["id"]):
            parts = [at for at, owner in enumerate(self.attachments["message_id"]) if owner == row_id]
            yield replace(
                self,
                messages=_rows(self.messages, [index]),
                attachments=_rows(self.attachments, parts),
                raws=[self.raws[index]],
            )

    def bare(self) -> Columns:
        """The messages as rows that take nothing for granted but what the server says of them, and their bytes."""
        count = len(self.uids)
        bare = {name: Column([value] * count) for name, value in _BARE.items()}
        return {**self.messages, **bare, "raw": Column(self.raws)}


def prepare(folder: Folder, batch: imap.Batch, *, keep_raw: bool) -> Prepared:
    """Parse the batch; with ``keep_raw`` every message is kept as it came, not only a broken one."""
    parsed = [message.parse(remote.raw) for remote in batch.messages]
    ids = [uuid.uuid4() for _ in parsed]
    rows = [_row(*each, keep_raw=keep_raw) for each in zip(ids, batch.messages, parsed, strict=True)]
    rows += [_unreadable_row(remote) for remote in batch.unreadable]
    return Prepared(
        folder=folder,
        batch=replace(batch, messages=(), unreadable=()),
        messages=_columns(MESSAGE_COLUMNS, rows),
        parts=[(row_id, part) for row_id, mail in zip(ids, parsed, strict=True) for part in mail.attachments],
        attachments=_columns(ATTACHMENT_COLUMNS, []),
        raws=[*(remote.raw for remote in batch.messages), *(None for _ in batch.unreadable)],
    )


def _row(
    row_id: uuid.UUID, remote: imap.RemoteMessage, mail: message.ParsedMessage, *, keep_raw: bool
) -> tuple[Any, ...]:
    return (
        row_id,
        remote.uid,
        _indexable(mail.message_id),
        mail.from_,
        _json(mail.to),
        _json(mail.cc),
        mail.subject,
        mail.text,
        mail.html,
        _json(mail.headers),
        flags_json(remote.flags),
        remote.size_bytes,
        hashlib.sha256(remote.raw).digest(),
        remote.raw if keep_raw or mail.broken else None,
        remote.internal_date,
        mail.date,
        len(mail.attachments),
        mail.broken,
    )


def _attachment_row(message_id: uuid.UUID, part: message.ParsedAttachment, ref: BlobRef) -> tuple[Any, ...]:
    return (
        message_id,
        uuid.uuid4(),
        ref.key,
        part.filename,
        part.content_type,
        part.content_id,
        part.inline,
        ref.size_bytes,
        bytes.fromhex(ref.sha256),
    )


def _unreadable_row(remote: imap.UnreadableMessage) -> tuple[Any, ...]:
    """What is known of a message that can't be had: its place, its flags, perhaps its header."""
    mail = message.parse(remote.header)
    return (
        uuid.uuid4(),
        remote.uid,
        _indexable(mail.message_id),
        mail.from_,
        _json(mail.to),
        _json(mail.cc),
        mail.subject,
        "",
        None,
        _json(mail.headers),
        flags_json(remote.flags),
        min(remote.size_bytes or 0, _INT4_MAX),
        None,
        None,
        remote.internal_date,
        mail.date,
        0,
        True,
    )


def _rows(columns: Columns, indexes: Iterable[int]) -> Columns:
    wanted = list(indexes)
    return {name: Column(values[index] for index in wanted) for name, values in columns.items()}


def _columns(names: Iterable[str], rows: Sequence[tuple[Any, ...]]) -> Columns:
    if not rows:
        return {name: Column() for name in names}
    return dict(zip(names, map(Column, zip(*rows, strict=True)), strict=True))


def _indexable(message_id: str | None) -> str | None:
    if message_id is None or len(message_id) * 4 <= _MESSAGE_ID_BYTES_MAX:
        return message_id
    return message_id.encode()[:_MESSAGE_ID_BYTES_MAX].decode(errors="ignore")


@functools.lru_cache(maxsize=4096)
def flags_json(flags: imap.Flags) -> str:
    """Flags as a row keeps them: in one order whatever the server's, without what PostgreSQL refuses."""
    clean = (flag.replace("\0", "").encode("utf-8", "replace").decode() for flag in flags)
    return _json(sorted({_SYSTEM_FLAGS.get(flag.lower(), flag) for flag in clean}))


@functools.lru_cache(maxsize=4096)
def flags_of(text: str) -> imap.Flags:
    """The flags of ``flags_json``."""
    return tuple(json.loads(text))
