"""Bring every credential under the current key, while the service runs.

Rule 1: what was changed meanwhile is left as it is: a row is written only over the seal that was read.
Rule 2: each batch is a commit, and what is done is known by its key id: a run that was cut off is simply begun again.
Rule 3: every credential is opened once, also those under the current key: what no key opens is told, never touched.
Called by ``python -m email_service rotate-keys``. Tenants are read as mail_system, credentials as mail_app.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from email_service.errors import CredentialError
from email_service.models import Credential
from email_service.tenancy import SYSTEM, Database, Scope
from email_service.vault import SealedCredential, Vault

#: Credentials of one transaction; each costs 0.1 ms.
BATCH: Final = 200
#: More than this is not a race any more.
PASSES_MAX: Final = 5


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """What became of all credentials."""

    #: Sealed under the current key now (or to be sealed, in a dry run).
    resealed: int
    #: Under the current key before.
    current: int
    #: Changed or removed by others in each pass: begin again, their key may be an earlier one.
    changed: int
    #: Tenant and credential id of those that no key opens.
    unopened: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class _Seal:
    """A credential as it was read."""

    id: uuid.UUID
    sealed: SealedCredential


def rotate_keys(system: Database, database: Database, vault: Vault, *, dry_run: bool, batch: int = BATCH) -> Rotation:
    """Reseal all credentials of all tenants.

    Raises:
        DatabaseError: what was committed stays; begin again.
    """
    with system.session(SYSTEM) as session:
        tenants = session.execute(text("SELECT id FROM tenants ORDER BY id")).scalars().all()
    found = [_rotate_tenant(database, vault, tenant, dry_run=dry_run, batch=batch) for tenant in tenants]
    return Rotation(
        resealed=sum(r.resealed for r in found),
        current=sum(r.current for r in found),
        changed=sum(r.changed for r in found),
        unopened=tuple(pair for r in found for pair in r.unopened),
    )


def _rotate_tenant(database: Database, vault: Vault, tenant: str, *, dry_run: bool, batch: int) -> Rotation:
    """Pass over a tenant until nobody has got in between: who did may have sealed with the earlier key."""
    resealed = 0
    for _ in range(PASSES_MAX):
        outcomes = list(_rotate(database, vault, tenant, dry_run=dry_run, batch=batch))
        tally = Counter(outcome for outcome, _ in outcomes)
        found = Rotation(
            resealed=resealed + tally["resealed"],
            current=tally["current"] - resealed,
            changed=tally["changed"],
            unopened=tuple((tenant, credential_id) for outcome, credential_id in outcomes if outcome == "unopened"),
        )
        if not found.changed:
            break
        resealed = found.resealed
    return found


def _rotate(database: Database, vault: Vault, tenant: str, *, dry_run: bool, batch: int) -> Iterator[tuple[str, str]]:
    """What became of each credential of a tenant, and its id; told once its batch is committed."""
    scope, last = Scope(tenant_id=tenant, user_id=SYSTEM.user_id), uuid.UUID(int=0)
    while True:
        with database.session(scope) as session:
            seals = _seals(session, scope, last, batch)
            outcomes = [(_one(session, vault, scope, seal, dry_run=dry_run), str(seal.id)) for seal in seals]
            session.commit()
        yield from outcomes
        if len(seals) < batch:
            return
        last = seals[-1].id


def _seals(session: Session, scope: Scope, after: uuid.UUID, limit: int) -> Sequence[_Seal]:
    columns = (Credential.id, Credential.key_id, Credential.salt, Credential.nonce, Credential.ciphertext)
    query = select(*columns).where(Credential.tenant_id == scope.tenant_id, Credential.id > after)
    rows: Sequence[Any] = session.execute(query.order_by(Credential.id).limit(limit)).all()
    return [
        _Seal(
            id=row.id,
            sealed=SealedCredential(key_id=row.key_id, salt=row.salt, nonce=row.nonce, ciphertext=row.ciphertext),
        )
        for row in rows
    ]


def _one(session: Session, vault: Vault, scope: Scope, seal: _Seal, *, dry_run: bool) -> str:
    try:
        if seal.sealed.key_id == vault.current or dry_run:
            vault.unseal(seal.sealed, scope.tenant_id, str(seal.id))
            return "current" if seal.sealed.key_id == vault.current else "resealed"
        new = vault.reseal(seal.sealed, scope.tenant_id, str(seal.id))
    except CredentialError:
        return "unopened"
    return "resealed" if _replace(session, scope, seal, new) else "changed"


def _replace(session: Session, scope: Scope, seal: _Seal, new: SealedCredential) -> bool:
    # A password that was changed meanwhile has another nonce, whichever key it was sealed with.
    statement = (
        update(Credential)
        .where(
            Credential.id == seal.id,
            Credential.tenant_id == scope.tenant_id,
            Credential.key_id == seal.sealed.key_id,
            Credential.nonce == seal.sealed.nonce,
        )
        .values(key_id=new.key_id, salt=new.salt, nonce=new.nonce, ciphertext=new.ciphertext)
        .returning(Credential.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).one_or_none() is not None
