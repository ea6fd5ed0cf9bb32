"""What a use case is given: the lease it works under and the tools of its process."""

from __future__ import annotations

import logging
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from email_service import hosts, smtp
from email_service.blobs import Blobs
from email_service.config import Settings
from email_service.errors import DatabaseError, PermissionDeniedError
from email_service.jobs import Ending, Lease
from email_service.models import Credential, EmailClient
from email_service.steps import begin as begin_steps
from email_service.tenancy import Database, Scope, run
from email_service.vault import SealedCredential, Secret, Vault

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
#: Between two tries while the database is away.
PAUSE_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Tools:
    """One process's connections and keys; made after the fork."""

    settings: Settings
    #: As mail_app.
    database: Database
    #: As mail_system.
    system: Database
    vault: Vault
    blobs: Blobs
    #: Trust for TLS to mail servers; None for the system's.
    tls: ssl.SSLContext | None
    #: Sessions with SMTP servers that are kept between sends.
    smtp: smtp.Connections
    clock: Callable[[], datetime]
    #: PSS of this process now, None where the system can't tell.
    pss_bytes: Callable[[], int | None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One execution: its lease and its tools."""

    tools: Tools
    lease: Lease
    #: Seconds by step of SMTP and IMAP: begins to fill when this is made, in the context that does the work.
    steps: Mapping[str, float] = field(default_factory=begin_steps, repr=False)
    #: How it was said to end; the last one is what its row has.
    endings: list[Ending] = field(default_factory=list, repr=False)

    def ending(self, outcome: str, error_type: str | None = None, *, error_detail: str | None = None) -> Ending:
        """How this execution ends, now."""
        ending = Ending(
            outcome=outcome,
            ended_at=self.tools.clock(),
            error_type=error_type,
            error_detail=error_detail,
            pss_peak_bytes=self.tools.pss_bytes(),
            steps={name: round(seconds, 6) for name, seconds in self.steps.items()},
        )
        self.endings.append(ending)
        return ending


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a use case answers once it has settled its job."""

    #: signals.JOB_STATES_FINAL.
    state: str
    outcome: str
    #: Goes to Celery's result: counts and ids, never content.
    result: dict[str, object]


def insist(work: Work, change: Callable[[], _T]) -> _T:
    """Make a change, again and again while the database is away and the lease lasts: for what must not be forgotten.

    Raises:
        DatabaseError: it was away for longer.
        LeaseLostError: another execution has the job by now.
    """
    left_s = work.tools.settings.lease_s - (work.tools.clock() - work.lease.started_at).total_seconds()
    deadline, tick = time.monotonic() + left_s, threading.Event()
    while True:
        try:
            return change()
        except DatabaseError as err:
            if time.monotonic() + PAUSE_S > deadline:
                raise
            _log.warning("the database is away (%s): what is known is kept until it is back", err.code)
            tick.wait(PAUSE_S)


def owned_client(session: Session, scope: Scope, client_id: uuid.UUID | None) -> EmailClient:
    """The client, if the scope owns it.

    Raises:
        PermissionDeniedError: it does not, or there is none.
    """
    client = session.scalars(
        select(EmailClient).where(
            EmailClient.id == client_id,
            EmailClient.tenant_id == scope.tenant_id,
            EmailClient.user_id == scope.user_id,
        )
    ).one_or_none()
    if client is None:
        raise PermissionDeniedError(f"e-mail client {client_id}")
    return client


_ADDRESS: Final = text("SELECT address FROM email_clients WHERE id = :id AND tenant_id = :tenant AND user_id = :user")


def owned_address(session: Session, scope: Scope, client_id: uuid.UUID) -> str:
    """The address of the client, if the scope owns it: all that an accepted request needs, without making an object.

    Raises:
        PermissionDeniedError: it does not, or there is none.
    """
    values = {"id": client_id, "tenant": scope.tenant_id, "user": scope.user_id}
    rows = run(session, _ADDRESS, values)
    if not rows:
        raise PermissionDeniedError(f"e-mail client {client_id}")
    address: str = rows[0].address
    return address


def password_of(session: Session, vault: Vault, client: EmailClient) -> Secret:
    """Unseal the client's password.

    Raises:
        CredentialError: it was sealed with a key that is not here, or for somebody else.
    """
    row = session.get_one(Credential, client.credential_id)
    sealed = SealedCredential(key_id=row.key_id, salt=row.salt, nonce=row.nonce, ciphertext=row.ciphertext)
    return vault.unseal(sealed, tenant_id=client.tenant_id, credential_id=str(row.id))


def check_host(settings: Settings, host: str, port: int) -> tuple[str, ...]:
    """The addresses to connect to: checked at creation, and again at each use, as list and name service may change.

    Raises:
        HostNotAllowedError: names the host.
        ConnectError: the name can't be resolved now.
    """
    return hosts.permitted(settings, host, port)
