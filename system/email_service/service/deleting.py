"""Delete messages over IMAP."""

from __future__ import annotations

from email_service.service.work import Settled, Work


def delete_messages(work: Work) -> Settled:
    """Delete messages over IMAP."""
    raise NotImplementedError(work.lease.name)
