"""Score messages."""

from __future__ import annotations

from email_service.service.work import Settled, Work


def check_spam(work: Work) -> Settled:
    """Score messages."""
    raise NotImplementedError(work.lease.name)
