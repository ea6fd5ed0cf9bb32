"""Routes that make work, and those that tell what became of it.

Each POST takes an Idempotency-Key: the same key with the same request answers the task that it made the first time, and
with another request it is refused.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from email_service import jobs, message, policy, telemetry
from email_service.api import answers, schemas
from email_service.api.routing import Call, Table
from email_service.celery_app import submit
from email_service.jobs import NewJob
from email_service.service import accounts, reading, sending
from email_service.service.work import owned_address

mail = Table("mail")
sync = Table("clients")
tasks = Table("tasks")

_PREFIX: Final = "email_service.tasks."
#: Behind a key, for the second and later jobs of one request; no caller's key holds it.
_NEXT: Final = "\x1f"


@mail.route(
    "POST",
    "/email/send",
    body=schemas.NewMail,
    status=202,
    answer=answers.AcceptedMail,
    idempotent=True,
    problems=(422,),
    located="status_url",
)
def send_mail(call: Call) -> dict[str, Any]:
    """Send a message."""
    body: schemas.NewMail = call.body
    job_id = uuid.uuid4()

    def plan(session: Session) -> NewJob:
        address = owned_address(session, call.scope, body.client_id)
        accounts.owned_attachments(session, call.scope, [*body.attachment_ids, *(i.attachment_id for i in body.inline)])
        return NewJob(
            id=job_id,
            name=_PREFIX + "send_email",
            args=_mail_args(body),
            client_id=body.client_id,
            message_id=message.message_id_for(job_id, address.rpartition("@")[2]),
            idempotency_key=call.idempotency_key,
            request=_canonical(call, "send"),
        )

    roles = [("to", body.to), ("cc", body.cc), ("bcc", body.bcc)]
    enqueued = submit(
        call.celery,
        call.tools.database,
        call.scope,
        plan,
        lambda session: sending.add_recipients(session, call.scope, job_id, roles),
    )
    return _accepted(call, enqueued.id) | {"message_id": enqueued.message_id}


@sync.route(
    "POST",
    "/email/clients/{client_id}/sync",
    status=202,
    answer=answers.Accepted,
    idempotent=True,
    problems=(422,),
    located="status_url",
)
def sync_client(call: Call, client_id: uuid.UUID) -> dict[str, Any]:
    """Read a mailbox now."""

    def plan(session: Session) -> NewJob:
        owned_address(session, call.scope, client_id)
        return NewJob(
            id=uuid.uuid4(),
            name=_PREFIX + "sync_emails",
            args={},
            client_id=client_id,
            idempotency_key=call.idempotency_key,
            request=f"sync {client_id}".encode() if call.idempotency_key else None,
        )

    return _accepted(call, submit(call.celery, call.tools.database, call.scope, plan).id)


@mail.route(
    "POST",
    "/email/delete",
    body=schemas.Deletion,
    status=202,
    answer=answers.AcceptedBatch,
    idempotent=True,
    problems=(422,),
)
def delete_messages(call: Call) -> dict[str, Any]:
    """Move messages to the trash, or remove them for good."""
    body: schemas.Deletion = call.body
    return _batch(call, "delete_emails", "delete", body.message_ids, {"permanent": body.permanent})


@mail.route(
    "POST",
    "/email/spam",
    body=schemas.SpamCheck,
    status=202,
    answer=answers.AcceptedBatch,
    idempotent=True,
    problems=(422,),
)
def check_spam(call: Call) -> dict[str, Any]:
    """Check messages for spam."""
    body: schemas.SpamCheck = call.body
    return _batch(call, "check_spam", "spam", body.message_ids, {})


@tasks.route("GET", "/tasks/{task_id}", answer=answers.Task)
def get_task(call: Call, task_id: uuid.UUID) -> dict[str, Any]:
    """Show what became of a task."""
    with call.reading() as session:
        return jobs.status(session, call.scope, task_id)


@tasks.route("GET", "/tasks", query=schemas.FeedPage, answer=answers.Tasks)
def list_tasks(call: Call) -> dict[str, Any]:
    """Follow the tasks that are settled; without gaps."""
    page: schemas.FeedPage = call.query
    with call.reading() as session:
        rows, cursor = jobs.feed(session, call.scope, after=page.after, limit=page.limit)
    return {"tasks": rows, "cursor": cursor}


def _batch(call: Call, task: str, verb: str, ids: list[uuid.UUID], args: dict[str, Any]) -> dict[str, Any]:
    """One job per client, all in one transaction. The first is published at once, the others by the dispatcher."""
    made: list[NewJob] = []
    # Each job has a creation of its own, beside the first one's.
    request = telemetry.current_traceparent()

    def plan(session: Session) -> NewJob:
        if call.idempotency_key and jobs.keyed(session, call.scope, [call.idempotency_key]):
            # The messages may be gone by now; whether it is the same request is told by what was hashed.
            owners: dict[uuid.UUID, list[uuid.UUID]] = {ids[0]: ids}
        else:
            owners = reading.message_clients(session, call.scope, ids)
        for number, (client_id, message_ids) in enumerate(owners.items()):
            made.append(
                NewJob(
                    id=uuid.uuid4(),
                    name=_PREFIX + task,
                    args={"message_ids": [str(i) for i in message_ids], **args},
                    client_id=client_id,
                    idempotency_key=_numbered(call.idempotency_key, number),
                    request=_canonical(call, verb),
                )
            )
        return made[0]

    def write(session: Session) -> None:
        for job in made[1:]:
            queue = policy.TASKS[job.name].queue
            with telemetry.publish_span(
                queue, str(job.id), job.name, tenant_id=call.scope.tenant_id, parent=request
            ) as span:
                job_now = replace(job, traceparent=telemetry.traceparent(span))
                jobs.enqueue(session, call.scope, job_now, time_scale=call.tools.settings.time_scale, publish=False)

    enqueued = submit(call.celery, call.tools.database, call.scope, plan, write)
    found = [(job.id, job.client_id) for job in made] if enqueued.created else _earlier(call, len(ids))
    return {"tasks": [_accepted(call, job_id) | {"client_id": str(client_id)} for job_id, client_id in found]}


def _earlier(call: Call, count: int) -> list[tuple[uuid.UUID, uuid.UUID | None]]:
    """The jobs of the first request with this key; there were at most as many as messages."""
    keys = [_numbered(call.idempotency_key, number) or "" for number in range(count)]
    with call.reading() as session:
        return jobs.keyed(session, call.scope, keys)


def _numbered(key: str | None, number: int) -> str | None:
    return key if key is None or number == 0 else f"{key}{_NEXT}{number}"


def _mail_args(body: schemas.NewMail) -> dict[str, Any]:
    return {
        "subject": body.subject,
        "text": body.text,
        "html": body.html,
        "attachment_ids": [str(i) for i in body.attachment_ids],
        "inline": [{"attachment_id": str(i.attachment_id), "content_id": i.content_id} for i in body.inline],
        "reply_to": body.reply_to,
        "in_reply_to": body.in_reply_to,
        "references": body.references,
        "from_name": body.from_name,
    }


def _canonical(call: Call, verb: str) -> bytes | None:
    """What a request says, however it was written; for requests with a key alone."""
    if call.idempotency_key is None:
        return None
    return f"{verb} {call.body.model_dump_json()}".encode()


def _accepted(call: Call, job_id: uuid.UUID) -> dict[str, Any]:
    return {"task_id": str(job_id), "status_url": f"{call.base}/tasks/{job_id}"}
