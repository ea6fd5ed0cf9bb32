"""How the use cases come to a mailbox, and how they end at the time limit. Called by ``mailbox`` and ``deleting``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy.orm import Session

from email_service import imap
from email_service.errors import ImapError, TimeLimitError
from email_service.models import EmailClient
from email_service.service.work import Work, check_host, password_of


def endpoint_of(session: Session, work: Work, client: EmailClient) -> imap.ImapEndpoint:
    """The client's IMAP server, its addresses checked, and the account on it.

    Raises:
        HostNotAllowedError: names the host.
        ConnectError: its name can't be resolved now.
        CredentialError: the credential can't be opened.
    """
    return imap.ImapEndpoint(
        host=client.imap_host,
        port=client.imap_port,
        encryption=client.imap_encryption,
        username=client.username,
        password=password_of(session, work.tools.vault, client),
        addresses=check_host(work.tools.settings, client.imap_host, client.imap_port),
        auth=client.auth,
    )


@contextmanager
def time_limit(work: Work, counts: Counter[str]) -> Iterator[None]:
    """The soft time limit is told as what it is, wherever it struck: SQLAlchemy and psycopg fail over it in their way.

    ``counts`` is what has been committed.

    Raises:
        TimeLimitError: something was: the next execution goes on from there.
        ImapError: nothing was: going on would go on for ever.
    """
    before = counts.copy()
    try:
        yield
    except Exception as err:
        if not _struck(err):
            raise
        if counts == before:
            raise ImapError("the server is too slow: nothing was done within the time limit") from err
        raise TimeLimitError(work.lease.name) from err


def _struck(error: BaseException | None) -> bool:
    """Whether the limit is the error, or what it came of; a chain of errors may bite its own tail."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, SoftTimeLimitExceeded):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
