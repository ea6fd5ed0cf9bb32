"""Key rotation on real rows: as the command does it, and as others get in between."""

from __future__ import annotations

import base64
import os
import uuid

import psycopg
import pytest
from sqlalchemy import select, update

from email_service import __main__ as command
from email_service.errors import CredentialError
from email_service.models import Credential
from email_service.service.rotating import rotate_keys
from email_service.tenancy import Scope
from email_service.vault import SealedCredential, Vault

OLD, NEW, LOST = (os.urandom(32) for _ in range(3))
BEFORE = Vault({"k1": OLD}, current="k1")
BETWEEN = Vault({"k1": OLD, "k2": NEW}, current="k2")
AFTER = Vault({"k2": NEW}, current="k2")


class Credentials:
    """A tenant's credentials, as its own rows."""

    def __init__(self, rows, tenant):
        self.rows, self.scope = rows, Scope(tenant_id=tenant, user_id="u")

    def add(self, password, vault=BEFORE):
        credential_id = uuid.uuid4()
        sealed = vault.seal(password, self.scope.tenant_id, str(credential_id))
        with self.rows.session(self.scope) as session:
            session.add(Credential(id=credential_id, tenant_id=self.scope.tenant_id, user_id="u", **vars(sealed)))
            session.commit()
        return credential_id

    def change(self, credential_id, password, vault):
        sealed = vault.seal(password, self.scope.tenant_id, str(credential_id))
        with self.rows.session(self.scope) as session:
            session.execute(update(Credential).where(Credential.id == credential_id).values(**vars(sealed)))
            session.commit()

    def sealed(self, credential_id):
        with self.rows.session(self.scope) as session:
            row = session.scalars(select(Credential).where(Credential.id == credential_id)).one()
        return SealedCredential(key_id=row.key_id, salt=row.salt, nonce=row.nonce, ciphertext=row.ciphertext)

    def opened(self, credential_id, vault):
        return vault.unseal(self.sealed(credential_id), self.scope.tenant_id, str(credential_id)).reveal()


@pytest.fixture
def credentials(postgres, app_rows, tenant):
    # The command goes over all tenants: what earlier tests have left is not to be in the figures.
    with psycopg.connect(postgres.owner) as connection:
        connection.execute("TRUNCATE credentials CASCADE")
    return Credentials(app_rows, tenant)


@pytest.fixture
def run(postgres, monkeypatch, capsys, tmp_path):
    """The command with both keys; its exit code, and what it printed."""
    for name in [name for name in os.environ if name.startswith(("MAIL_", "DATABASE_", "CREDENTIAL_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "DATABASE_URL": postgres.app,
        "DATABASE_SYSTEM_URL": postgres.system,
        "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(NEW).decode(),
        "MAIL_CREDENTIAL_KEY_ID": "k2",
        "MAIL_CREDENTIAL_KEYS_OLD": f"k1={base64.b64encode(OLD).decode()}",
        "MAIL_TOKEN_SECRET": "s" * 40,
        "MAIL_BLOB_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments):
        code = command.main(["rotate-keys", *arguments])
        return (code, *capsys.readouterr())

    return run


def test_after_a_rotation_the_old_key_is_not_needed(run, credentials):
    ids = {credentials.add(f"password {i}"): f"password {i}" for i in range(5)}
    kept = credentials.add("new one", BETWEEN)
    seal = credentials.sealed(kept)
    assert run() == (0, "key k2: 5 resealed, 1 under it already\n", "")
    assert {i: credentials.opened(i, AFTER) for i in ids} == ids
    assert credentials.sealed(kept) == seal
    assert run() == (0, "key k2: 0 resealed, 6 under it already\n", "")


def test_a_dry_run_counts_and_changes_nothing(run, credentials):
    credential_id = credentials.add("password")
    seal = credentials.sealed(credential_id)
    assert run("--dry-run") == (0, "key k2: 1 to be resealed, 0 under it already\n", "")
    assert credentials.sealed(credential_id) == seal


def test_what_no_key_opens_is_told_and_left_and_the_rest_is_done(run, credentials):
    lost = credentials.add("password", Vault({"k0": LOST}, current="k0"))
    # Its id is the current key's, the key is not.
    other = credentials.add("password", Vault({"k2": LOST}, current="k2"))
    good = credentials.add("password")
    seals = [credentials.sealed(i) for i in (lost, other)]
    code, out, err = run()
    assert (code, out) == (1, "key k2: 1 resealed, 0 under it already\n")
    assert set(err.splitlines()) == {
        f"email_service: no key opens credential {i} of tenant {credentials.scope.tenant_id}" for i in (lost, other)
    }
    assert credentials.opened(good, AFTER) == "password"
    assert [credentials.sealed(i) for i in (lost, other)] == seals


class Meddling(Vault):
    """Somebody changes a password between the rotation's read and its write."""

    def __init__(self, meddle):
        super().__init__({"k1": OLD, "k2": NEW}, current="k2")
        self.meddle = meddle

    def reseal(self, sealed, tenant_id, credential_id):
        new = super().reseal(sealed, tenant_id, credential_id)
        meddle, self.meddle = self.meddle, lambda _: None
        meddle(uuid.UUID(credential_id))
        return new


@pytest.mark.parametrize("vault", [BEFORE, BETWEEN], ids=["under the old key", "under the new key"])
def test_a_password_that_is_changed_meanwhile_is_kept_and_brought_under_the_new_key(
    vault, credentials, app_rows, system_rows
):
    credential_id = credentials.add("before")
    meddling = Meddling(lambda i: credentials.change(i, "changed", vault))
    found = rotate_keys(system_rows, app_rows, meddling, dry_run=False)
    assert (found.resealed + found.current, found.changed, found.unopened) == (1, 0, ())
    assert credentials.opened(credential_id, AFTER) == "changed"


def test_a_rotation_that_is_cut_off_goes_on_where_it_was(credentials, app_rows, system_rows):
    ids = [credentials.add("password") for _ in range(7)]

    class CutOffError(Exception):
        pass

    count = iter(range(5))

    def cut(_):
        if next(count) == 4:
            raise CutOffError

    class Dying(Vault):
        def reseal(self, *arguments):
            cut(arguments)
            return super().reseal(*arguments)

    with pytest.raises(CutOffError):
        rotate_keys(system_rows, app_rows, Dying({"k1": OLD, "k2": NEW}, current="k2"), dry_run=False, batch=3)
    assert sorted(credentials.sealed(i).key_id for i in ids) == ["k1"] * 4 + ["k2"] * 3
    found = rotate_keys(system_rows, app_rows, BETWEEN, dry_run=False, batch=3)
    assert (found.resealed, found.current) == (4, 3)
    assert {credentials.opened(i, AFTER) for i in ids} == {"password"}


def test_a_seal_of_another_tenant_is_not_opened_by_the_way(credentials, app_rows, system_rows):
    credential_id = credentials.add("password")
    with app_rows.session(credentials.scope) as session:
        session.execute(update(Credential).values(id=uuid.UUID(int=5)))
        session.commit()
    found = rotate_keys(system_rows, app_rows, BETWEEN, dry_run=False)
    assert found.unopened == ((credentials.scope.tenant_id, str(uuid.UUID(int=5))),)
    with pytest.raises(CredentialError):
        BETWEEN.reseal(credentials.sealed(uuid.UUID(int=5)), credentials.scope.tenant_id, str(credential_id) + "x")
