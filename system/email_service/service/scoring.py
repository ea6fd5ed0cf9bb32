"""Score messages that are rows already: the use case behind ``check_spam``.

Rule 1: a batch is read, scored and written in one transaction, which holds the lease: a second execution does it again
and finds the same. Rule 2: what is not the caller's, or not there any more, counts as ``missing`` and is not touched.
The verdict goes to the row alone: the mailbox stays as it is, and results hold counts.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import jobs
from email_service.message import spam
from email_service.service.work import Settled, Work

#: Messages that are scored in one transaction: a fraction of a second.
BATCH: Final = 100

#: Of a body no more is fetched than is judged; an inline picture is no file.
_READ: Final = text(
    """
    SELECT m.id, m.headers, m.subject, left(m.body_text, :text_characters) AS body_text,
           left(m.body_html, :html_characters) AS body_html, m.internal_date,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(a.filename, a.content_type) ORDER BY a.id), '[]')
            FROM email_attachments a
            WHERE a.message_id = m.id AND NOT (a.inline AND a.content_type LIKE 'image/%')) AS files
    FROM email_messages m
    WHERE m.id = ANY(CAST(:ids AS uuid[])) AND m.tenant_id = :tenant AND m.user_id = :user
    ORDER BY m.id
    FOR UPDATE
    """
)
_WRITE: Final = text(
    """
    UPDATE email_messages m
    SET is_spam = v.is_spam, spam_score = v.score, spam_indicators = CAST(v.indicators AS jsonb),
        spam_checked_at = clock_timestamp()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:spam AS boolean[]), CAST(:scores AS float8[]), CAST(:indicators AS text[]))
         AS v(id, is_spam, score, indicators)
    WHERE m.id = v.id
    """
)


def check_spam(work: Work) -> Settled:
    """Score the messages, and write down how each looks and why.

    Raises:
        LeaseLostError: another execution has the job.
    """
    wanted = iter(dict.fromkeys(uuid.UUID(i) for i in work.lease.args["message_ids"]))
    counts = Counter(checked=0, spam=0, missing=0)
    while ids := list(islice(wanted, BATCH)):
        with work.tools.database.session(work.lease.scope) as session:
            jobs.hold(session, work.lease)
            counts.update(_check(session, work, ids))
            session.commit()
    result = {"outcome": "checked", **counts}
    with work.tools.database.session(work.lease.scope) as session:
        jobs.finish(session, work.lease, work.ending("succeeded"), state="succeeded", outcome="checked", result=result)
        session.commit()
    return Settled(state="succeeded", outcome="checked", result=result)


def _check(session: Session, work: Work, ids: Sequence[uuid.UUID]) -> Counter[str]:
    scope = work.lease.scope
    limits = {"text_characters": spam.TEXT_CHARACTERS, "html_characters": spam.HTML_CHARACTERS}
    rows = session.execute(_READ, {"ids": ids, "tenant": scope.tenant_id, "user": scope.user_id, **limits}).all()
    verdicts = [spam.score(_suspect(row)) for row in rows]
    if rows:
        session.execute(
            _WRITE,
            {
                "ids": [row.id for row in rows],
                "spam": [verdict.is_spam for verdict in verdicts],
                "scores": [verdict.score for verdict in verdicts],
                "indicators": [_indicators(verdict) for verdict in verdicts],
            },
        )
    found = sum(verdict.is_spam for verdict in verdicts)
    return Counter(checked=len(rows), spam=found, missing=len(ids) - len(rows))


def _suspect(row: Any) -> spam.Suspect:
    return spam.Suspect(
        headers=tuple((name, value) for name, value in row.headers),
        subject=row.subject,
        text=row.body_text,
        html=row.body_html,
        files=tuple((name, content_type) for name, content_type in row.files),
        received=row.internal_date,
    )


def _indicators(verdict: spam.SpamVerdict) -> str:
    return json.dumps([{"name": i.name, "points": i.points, "detail": i.detail} for i in verdict.indicators])
