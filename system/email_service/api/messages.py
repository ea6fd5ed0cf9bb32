"""Routes of messages and attachments. What a message holds is data that strangers wrote: it is never rendered here."""

from __future__ import annotations

import re
import uuid
from typing import Any, Final
from urllib.parse import quote

from flask import Response

from email_service.api import answers, schemas
from email_service.api.routing import Call, Table
from email_service.service import accounts, reading

table = Table("messages")
uploads = Table("attachments")

_MEDIA: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
#: Should a browser show what it was told to save, it runs no script and loads nothing.
_HARMLESS: Final = "default-src 'none'; sandbox"


@table.route("GET", "/email/messages", query=schemas.MessagePage, answer=answers.Messages)
def list_messages(call: Call) -> dict[str, Any]:
    """List messages, the newest first; of one client or folder, or those that fit."""
    page: schemas.MessagePage = call.query
    wanted = reading.MessageFilter(
        client_id=page.client_id,
        folder_id=page.folder_id,
        q=page.q,
        unseen=page.unseen,
        spam=page.spam,
        has_attachments=page.has_attachments,
    )
    with call.reading() as session:
        return reading.messages(session, call.scope, wanted, limit=page.limit, cursor=page.cursor)


@table.route("GET", "/email/messages/{message_id}", answer=answers.Message)
def get_message(call: Call, message_id: uuid.UUID) -> dict[str, Any]:
    """Show a message with its bodies, headers and attachments."""
    with call.reading() as session:
        return reading.message(session, call.scope, message_id)


@table.route("GET", "/email/messages/{message_id}/raw", answer="message/rfc822")
def get_raw_message(call: Call, message_id: uuid.UUID) -> Response:
    """Read the bytes of a message as they came, if they were kept."""
    with call.reading() as session:
        data = reading.raw_message(session, call.scope, message_id)
    return _file(data, "message/rfc822", f"{message_id}.eml")


@table.route("GET", "/email/messages/{message_id}/attachments", answer=answers.Attachments)
def list_attachments(call: Call, message_id: uuid.UUID) -> dict[str, Any]:
    """List the attachments of a message."""
    with call.reading() as session:
        return {"attachments": reading.attachments(session, call.scope, message_id)}


@uploads.route("POST", "/email/attachments", upload=True, status=201, answer=answers.Attachment, located="id")
def upload_attachment(call: Call) -> dict[str, Any]:
    """Upload a file that a message will take along."""
    upload = call.upload()
    with call.session() as session:
        row = accounts.store_attachment(
            session,
            call.scope,
            call.tools.blobs,
            filename=upload.filename,
            content_type=upload.content_type,
            data=upload.data,
        )
        session.commit()
        return reading.attachment_values(row)


@uploads.route("GET", "/email/attachments/{attachment_id}", answer=answers.Attachment)
def get_attachment(call: Call, attachment_id: uuid.UUID) -> dict[str, Any]:
    """Show an attachment or an upload, without its bytes."""
    with call.reading() as session:
        return reading.attachment(session, call.scope, attachment_id)


@uploads.route("GET", "/email/attachments/{attachment_id}/content", answer="*/*", cached=True)
def get_attachment_content(call: Call, attachment_id: uuid.UUID) -> Response:
    """Read the bytes of an attachment or an upload; 304 if the caller has them."""
    with call.reading() as session:
        found = reading.stored_file(session, call.scope, attachment_id)
    etag = f'"{found.sha256.hex()}"'
    if call.etag is not None and etag in [tag.strip().removeprefix("W/") for tag in call.etag.split(",")]:
        return Response(status=304, headers={"ETag": etag})
    data = call.tools.blobs.get(found.blob_key, call.scope.tenant_id)
    media = found.content_type if _MEDIA.fullmatch(found.content_type) else "application/octet-stream"
    answer = _file(data, media, found.filename)
    answer.headers["ETag"] = etag
    return answer


@uploads.route("DELETE", "/email/attachments/{attachment_id}", status=204, problems=(409,))
def delete_attachment(call: Call, attachment_id: uuid.UUID) -> None:
    """Remove an upload; refused while a send that waits takes it along."""
    with call.session() as session:
        accounts.delete_attachment(session, call.scope, attachment_id)
        session.commit()


def _file(data: bytes, media: str, name: str) -> Response:
    answer = Response(data, content_type=media)
    answer.headers["Content-Disposition"] = disposition(name)
    answer.headers["Content-Security-Policy"] = _HARMLESS
    return answer


def disposition(name: str) -> str:
    """``attachment`` with a file name, in ASCII for old readers and in full (RFC 6266 section 4.3, RFC 8187)."""
    plain = re.sub(r"[^\x20-\x7e]|[\"\\%;]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'
