"""What the sent folder proves: a message that was sent from here meets its copy on the server. Called by ``mailbox``.

Both are asked of the rows, not of what a batch brought: whichever came first, the copy or our own row, they meet at the
end of the next synchronisation.
"""

from __future__ import annotations

import uuid
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service.jobs import Lease
from email_service.service.syncing import folders

#: What the server's copy tells better than the row that was written at sending. The row keeps its id and its Bcc.
_COPIED: Final = (
    "uidvalidity", "uid", "sender", "recipients_to", "recipients_cc", "subject", "body_text", "body_html", "headers",
    "flags", "size_bytes", "sha256", "raw", "internal_date", "sent_at", "attachment_count", "is_broken",
)  # fmt: skip
_TWINS: Final = text(
    """
    SELECT DISTINCT ON (ours.id) ours.id AS ours, copy.id AS copy
    FROM email_messages ours JOIN email_messages copy
      ON copy.tenant_id = ours.tenant_id AND copy.message_id = ours.message_id AND copy.folder_id = ours.folder_id
         AND copy.uid IS NOT NULL
    WHERE ours.folder_id = :folder AND ours.uid IS NULL AND ours.tenant_id = :tenant
    ORDER BY ours.id, copy.uid
    """
)
#: The copy's attachments are the message's; uploads that our row had taken are the same bytes under other ids.
_ATTACHMENTS: Final = text(
    """
    UPDATE email_attachments a SET message_id = :ours WHERE a.message_id = :copy
    AND NOT EXISTS (SELECT 1 FROM email_attachments b WHERE b.message_id = :ours)
    """
)
_MERGE: Final = text(
    f"""
    WITH copy AS (DELETE FROM email_messages WHERE id = :copy RETURNING *)
    UPDATE email_messages ours SET is_sent = true, {", ".join(f"{name} = copy.{name}" for name in _COPIED)}
    FROM copy WHERE ours.id = :ours
    """  # noqa: S608  # made of the constants above
)
#: A job is ``unknown`` while one of its recipients is.
_PROVEN: Final = text(
    """
    SELECT j.id FROM jobs j
    WHERE j.client_id = :client AND j.tenant_id = :tenant AND j.state = 'unknown' AND EXISTS (
        SELECT 1 FROM email_messages m WHERE m.tenant_id = :tenant AND m.message_id = j.message_id
        AND m.folder_id = :folder AND m.uid IS NOT NULL)
    """
)
_SENT: Final = text(
    "UPDATE recipients SET state = 'sent', was_unknown = true, updated_at = clock_timestamp() "
    "WHERE job_id = ANY(:jobs) AND tenant_id = :tenant AND state = 'unknown'"
)
_SETTLED: Final = text(
    """
    UPDATE jobs j SET state = 'succeeded', outcome = c.outcome, error_type = NULL, error_detail = NULL,
        result = coalesce(j.result, '{}') || jsonb_build_object(
            'message_id', j.message_id, 'recipients_sent', c.sent, 'outcome', c.outcome),
        settled_xid = pg_current_xact_id(), apart_xid = pg_current_xact_id(), unknown_xid = j.settled_xid,
        unknown_error_type = j.error_type
    FROM (SELECT job_id, count(*) FILTER (WHERE state = 'sent') AS sent,
                 CASE WHEN bool_or(state = 'failed') THEN 'partial' ELSE 'sent' END AS outcome
          FROM recipients WHERE job_id = ANY(:jobs) AND tenant_id = :tenant GROUP BY job_id
          HAVING bool_and(state IN ('sent', 'failed'))) c
    WHERE j.id = c.job_id
    """
)


def meet(session: Session, lease: Lease, folder_id: uuid.UUID) -> int:
    """Merge our rows of the sent folder with the server's copies, and settle what was unknown; answers how many sends.

    A job that is settled so gets a new place in the feed: who saw it as unknown sees it again. Its execution stays as
    it ended. The caller commits.
    """
    place = {"folder": folder_id, "tenant": lease.scope.tenant_id}
    twins = session.execute(_TWINS, place).all()
    for row in twins:
        session.execute(_ATTACHMENTS, {"ours": row.ours, "copy": row.copy})
        session.execute(_MERGE, {"ours": row.ours, "copy": row.copy})
    if twins:
        folders.recount(session, [folder_id])
    proven = list(session.scalars(_PROVEN, place | {"client": lease.client_id}))
    if proven:
        values = {"jobs": proven, "tenant": lease.scope.tenant_id}
        session.execute(_SENT, values)
        session.execute(_SETTLED, values)
    return len(proven)
