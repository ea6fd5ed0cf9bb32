"""Delete messages over IMAP: into the trash, or for good. The use case behind ``delete_emails``.

Rule 1: the server is asked first; the rows follow in one commit with what is left to do. Each step can be done twice.
Rule 2: what is in the trash at the beginning is expunged, and that is written down before the first step: an execution
that finds in the trash what an earlier one has moved there must not take it for the user's wish to have it gone.
Rule 3: what is not the caller's, or not there any more, counts as ``gone`` and is never touched.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from email_service import imap, jobs
from email_service.errors import UidValidityError
from email_service.models import EmailFolder
from email_service.service.syncing import folders
from email_service.service.syncing.access import endpoint_of, time_limit
from email_service.service.work import Settled, Work, owned_client

#: Messages of one folder that leave it together.
BATCH: Final = 200
#: The trash of a server that has none.
TRASH: Final = "Trash"

_FIND: Final = text(
    """
    SELECT m.id, m.folder_id, m.uidvalidity, m.uid, f.name AS folder, f.type AS kind
    FROM email_messages m JOIN email_folders f ON f.id = m.folder_id
    WHERE m.id = ANY(CAST(:ids AS uuid[])) AND m.tenant_id = :tenant AND m.user_id = :user AND m.client_id = :client
    ORDER BY m.folder_id, m.uidvalidity, m.uid, m.id
    """
)
_LOCK: Final = text("SELECT 1 FROM email_folders WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE")
_DELETE: Final = text("DELETE FROM email_messages WHERE id = ANY(CAST(:ids AS uuid[]))")
#: A synchronisation may have met the moved message in the trash before us: ours keeps its id and what is known of it,
#: if that synchronisation has not been to the folder that it left as well.
_DELETE_COPIES: Final = text(
    """
    DELETE FROM email_messages copy
    USING unnest(CAST(:ids AS uuid[]), CAST(:uids AS bigint[])) AS u(id, uid) JOIN email_messages ours ON ours.id = u.id
    WHERE copy.folder_id = :trash AND copy.uidvalidity = :uidvalidity AND copy.uid = u.uid AND copy.id <> u.id
    """
)
_REPLACE: Final = text(
    """
    UPDATE email_messages m SET folder_id = :trash, uidvalidity = :uidvalidity, uid = u.uid
    FROM unnest(CAST(:ids AS uuid[]), CAST(:uids AS bigint[])) AS u(id, uid) WHERE m.id = u.id
    """
)
#: What has no UID is no mail of the server's: it changes its place here alone.
_MOVE_LOCAL: Final = text("UPDATE email_messages SET folder_id = :trash WHERE id = ANY(CAST(:ids AS uuid[]))")


@dataclass(frozen=True, kw_only=True)
class _Message:
    """A message that is to go, and where it is."""

    id: uuid.UUID
    folder_id: uuid.UUID
    folder: str
    uidvalidity: int | None
    #: None where no server has it.
    uid: int | None
    #: For good; otherwise into the trash.
    expunge: bool


@dataclass(kw_only=True)
class _Task:
    """What is left to do, and what has been done."""

    work: Work
    left: dict[uuid.UUID, _Message]
    in_trash: list[str]
    counts: Counter[str]
    #: The row of the trash; None until something is to be moved there.
    trash: EmailFolder | None = field(default=None)

    def save(self, session: Session, done: Sequence[_Message] = (), **counts: int) -> None:
        """Write down what has been done; the caller commits, then calls ``advance``."""
        rest = [str(i) for i in self.left if i not in {m.id for m in done}]
        args = {**self.work.lease.args, "message_ids": rest, "in_trash": self.in_trash}
        jobs.progress(session, self.work.lease, self.counts + Counter(counts), args=args)

    def advance(self, done: Sequence[_Message], **counts: int) -> None:
        """It is committed."""
        self.counts.update(counts)
        for message in done:
            del self.left[message.id]


def delete_messages(work: Work) -> Settled:
    """Move messages to the trash, or expunge them where ``permanent`` is asked for or they are in the trash already.

    Raises:
        MailServiceError: its ``transient`` says whether a retry may help; what was done so far is kept.
    """
    endpoint, task = _begin(work)
    with time_limit(work, task.counts):
        if task.left:
            with imap.open_session(endpoint, work.tools.settings.mail_timeout_s, tls=work.tools.tls) as session:
                _delete(task, session)
    result = {"outcome": "deleted", **{name: task.counts[name] for name in ("moved", "expunged", "gone")}}
    with work.tools.database.session(work.lease.scope) as session:
        jobs.finish(session, work.lease, work.ending("succeeded"), state="succeeded", outcome="deleted", result=result)
        session.commit()
    return Settled(state="succeeded", outcome="deleted", result=result)


def _begin(work: Work) -> tuple[imap.ImapEndpoint, _Task]:
    """Find the messages, and write down what is to become of them."""
    lease = work.lease
    wanted = [uuid.UUID(i) for i in dict.fromkeys(lease.args["message_ids"])]
    with work.tools.database.session(lease.scope) as session:
        endpoint = endpoint_of(session, work, owned_client(session, lease.scope, lease.client_id))
        rows = session.execute(_FIND, {"ids": wanted, "user": lease.scope.user_id, **_owner(work)}).all()
        in_trash = lease.args.get("in_trash")
        if in_trash is None:
            in_trash = [str(row.id) for row in rows if row.kind == "trash"]
        task = _Task(
            work=work,
            left={row.id: _message(row, lease.args, in_trash) for row in rows},
            in_trash=in_trash,
            counts=Counter({name: int(n) for name, n in (lease.so_far or {}).items()}),
        )
        gone = len(wanted) - len(rows)
        task.save(session, gone=gone)
        session.commit()
    task.advance((), gone=gone)
    return endpoint, task


def _message(row: Any, args: Mapping[str, Any], in_trash: Sequence[str]) -> _Message:
    return _Message(
        id=row.id,
        folder_id=row.folder_id,
        folder=row.folder,
        uidvalidity=row.uidvalidity,
        uid=row.uid,
        expunge=bool(args["permanent"]) or str(row.id) in in_trash,
    )


def _delete(task: _Task, session: imap.ImapSession) -> None:
    there = {remote.name for remote in session.folders()}
    if not all(message.expunge for message in task.left.values()):
        task.trash = _trash(task.work, session.ensure_folder("trash", TRASH))
    for messages in _batches(task.left.values()):
        first = messages[0]
        if first.uid is None or first.uidvalidity is None:
            _commit(task, messages, uids=None)
        elif first.folder not in there:
            # Its rows go with the next synchronisation.
            _pass(task, messages, "gone")
        elif task.trash is not None and not first.expunge and first.folder == task.trash.name:
            # The server has made it its trash since the last synchronisation.
            _pass(task, messages, "moved")
        else:
            _leave(task, session, messages, first.uidvalidity)


def _batches(messages: Iterable[_Message]) -> Iterator[list[_Message]]:
    """Some messages of one folder, under one UIDVALIDITY, that go the same way."""

    def key(message: _Message) -> tuple[Any, ...]:
        return (message.folder_id, message.uidvalidity or 0, message.uid is None, message.expunge)

    for _, group in groupby(sorted(messages, key=key), key=key):
        rest = list(group)
        for start in range(0, len(rest), BATCH):
            yield rest[start : start + BATCH]


def _leave(task: _Task, session: imap.ImapSession, messages: Sequence[_Message], uidvalidity: int) -> None:
    """Ask the server, then let the rows follow."""
    first, uids = messages[0], [message.uid for message in messages if message.uid is not None]
    with task.work.tools.database.session(task.work.lease.scope) as rows:
        jobs.hold(rows, task.work.lease)
        rows.commit()
    try:
        if first.expunge:
            moved = session.expunge(first.folder, uidvalidity, uids)
        else:
            assert task.trash is not None, "asked for before the first batch"  # noqa: S101
            moved = session.move(first.folder, uidvalidity, uids, task.trash.name)
    except UidValidityError:
        # The rows speak of a folder that is no more; the next synchronisation replaces them.
        _pass(task, messages, "gone")
    else:
        _commit(task, messages, uids=moved)


def _pass(task: _Task, messages: Sequence[_Message], what: str) -> None:
    """Nothing is to be done to these."""
    with task.work.tools.database.session(task.work.lease.scope) as session:
        task.save(session, messages, **{what: len(messages)})
        session.commit()
    task.advance(messages, **{what: len(messages)})


def _commit(task: _Task, messages: Sequence[_Message], *, uids: imap.Moved | None) -> None:
    """The rows of messages that have left their folder; ``uids`` None: no server had them."""
    first, gone = messages[0], len(uids.gone) if uids else 0
    counts = {"expunged" if first.expunge else "moved": len(messages) - gone, "gone": gone}
    touched = {first.folder_id} | ({task.trash.id} if task.trash and not first.expunge else set())
    with task.work.tools.database.session(task.work.lease.scope) as session:
        session.execute(_LOCK, {"ids": list(touched)})
        if first.expunge:
            session.execute(_DELETE, {"ids": [message.id for message in messages]})
        else:
            _follow(session, task, messages, uids)
        folders.recount(session, touched)
        task.save(session, messages, **counts)
        session.commit()
    task.advance(messages, **counts)


def _follow(session: Session, task: _Task, messages: Sequence[_Message], moved: imap.Moved | None) -> None:
    """Rows into the trash; where the server did not say under which UID, the next synchronisation brings them."""
    assert task.trash is not None, "asked for before the first batch"  # noqa: S101
    ids = [message.id for message in messages]
    if moved is None:
        session.execute(_MOVE_LOCAL, {"trash": task.trash.id, "ids": ids})
        return
    uids = {message.id: uid for message in messages if (uid := moved.uids.get(message.uid or 0)) is not None}
    values = {"trash": task.trash.id, "uidvalidity": moved.uidvalidity, "ids": list(uids), "uids": list(uids.values())}
    session.execute(_DELETE, {"ids": [row_id for row_id in ids if row_id not in uids]})
    if uids:
        session.execute(_DELETE_COPIES, values)
        session.execute(_REPLACE, values)


def _trash(work: Work, remote: imap.RemoteFolder) -> EmailFolder:
    """The row of the trash; made if no synchronisation has seen it yet."""
    with work.tools.database.session(work.lease.scope) as session:
        query = select(EmailFolder).where(
            EmailFolder.client_id == work.lease.client_id,
            EmailFolder.tenant_id == work.lease.scope.tenant_id,
            EmailFolder.name == remote.name,
        )
        row = session.scalars(query).one_or_none() or folders.new_row(session, work.lease, remote.name, remote.type)
        session.commit()
        return row


def _owner(work: Work) -> dict[str, Any]:
    return {"client": work.lease.client_id, "tenant": work.lease.scope.tenant_id}
