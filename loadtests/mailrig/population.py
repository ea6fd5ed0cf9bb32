"""Tenants, mailboxes and seeded mail, made through the product's own ways. Called by runner."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from fakemail.client import ControlError, FakeMail
from mailrig.clients import Account
from mailrig.scenario import Population, RigError
from mailrig.stack import RunningStack

#: The user of every tenant.
USER: Final = "alice"
#: The upload that sends with an attachment carry, bytes.
ATTACHMENT_BYTES: Final = 24_000
HTTP_TIMEOUT_S: Final = 15.0


class PopulationError(RigError):
    """The product refused its own first users, or the fakes theirs."""


def populate(stack: RunningStack, population: Population, *, seed: int, evidence: Path | None) -> list[Account]:
    """Make everything, and write down which mail was put where (``seeded.jsonl``).

    Raises:
        PopulationError: the product or the fakes refused something.
    """
    tenants = list(zip(population.tenant_names(), population.addresses(), strict=True))
    try:
        with ThreadPoolExecutor(max_workers=2) as pool:
            made = list(pool.map(lambda t: _tenant(stack, population, t[0], t[1], seed), tenants))
    except ControlError as err:
        raise PopulationError(f"fakemail: {err}") from err
    if evidence is not None:
        with (evidence / "seeded.jsonl").open("w") as file:
            for _, rows in made:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    return [account for account, _ in made]


def _tenant(
    stack: RunningStack, population: Population, tenant: str, addresses: tuple[str, ...], seed: int
) -> tuple[Account, list[dict[str, Any]]]:
    stack.create_tenant(tenant)
    token = stack.token(tenant, USER)
    fakes, rows, clients, passwords = FakeMail(stack.control_url), [], [], {}
    for address in addresses:
        # A canary: found anywhere after the run, it says who leaked it.
        password = passwords[f"password of {address}"] = f"canary-{secrets.token_hex(12)}"
        fakes.add_user(address, password)
        seeded = fakes.seed(address, count=population.messages_per_mailbox, seed=seed, profile=population.profile)
        client_id = _post_client(stack, tenant, token, address, password)
        clients.append((client_id, address))
        rows += list(_seeded_rows(seeded, tenant, client_id, address))
    attachment = _post_attachment(stack, tenant, token, seed)
    account = Account(
        tenant=tenant,
        user=USER,
        token=token,
        clients=tuple(clients),
        attachment_ids=(attachment,),
        passwords=passwords,
    )
    return account, rows


def _seeded_rows(seeded: Mapping[str, Any], tenant: str, client_id: str, address: str) -> Iterator[dict[str, Any]]:
    for message in seeded["messages"]:
        yield {
            "tenant_id": tenant,
            "client_id": client_id,
            "mailbox": address,
            "folder": "INBOX",
            "uidvalidity": seeded["uidvalidity"],
            **{k: message[k] for k in ("uid", "message_id", "size_bytes", "sha256")},
        }


def _post_client(stack: RunningStack, tenant: str, token: str, address: str, password: str) -> str:
    body = {
        "address": address,
        "username": address,
        "password": password,
        "imap": {"host": stack.imap[0], "port": stack.imap[1], "encryption": "none"},
        "smtp": {"host": stack.smtp[0], "port": stack.smtp[1], "encryption": "none"},
    }
    headers = {"Content-Type": "application/json"}
    answer = post(stack.api_url, f"/api/v1/{tenant}/email/clients", token, json.dumps(body).encode(), headers)
    return str(answer["id"])


def _post_attachment(stack: RunningStack, tenant: str, token: str, seed: int) -> str:
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="report-{seed}.pdf"\r\n'
        "Content-Type: application/pdf\r\n\r\n"
    ).encode()
    body = head + _bytes(seed) + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return str(post(stack.api_url, f"/api/v1/{tenant}/email/attachments", token, body, headers)["id"])


def _bytes(seed: int) -> bytes:
    blocks = (hashlib.sha512(f"{seed}/{k}".encode()).digest() for k in range(ATTACHMENT_BYTES // 64))
    return b"".join(blocks)


def post(api_url: str, path: str, token: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """One POST that must succeed.

    Raises:
        PopulationError: with what the product answered.
    """
    request = urllib.request.Request(api_url + path, data=body, method="POST")  # noqa: S310  # our own API
    for name, value in {**headers, "Authorization": f"Bearer {token}"}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:  # noqa: S310  # as above
            result: dict[str, Any] = json.loads(answer.read())
            return result
    except urllib.error.HTTPError as err:
        raise PopulationError(f"POST {path}: {err.code} {err.read()[:500].decode(errors='replace')}") from err
    except OSError as err:
        raise PopulationError(f"POST {path}: {err}") from err


def write_stack_file(path: Path, stack: RunningStack, accounts: list[Account]) -> None:
    """Tell the load where the stack is; the file holds tokens, so only its owner may read it."""
    facts = {
        "api_url": stack.api_url,
        "control_url": stack.control_url,
        "exporter_url": stack.exporter_url,
        "smtp": list(stack.smtp),
        "imap": list(stack.imap),
        "redis_url": stack.redis_url,
        "audit_url": stack.audit_url,
        "pids": stack.pids,
        "population": [
            {
                "tenant": account.tenant,
                "user": account.user,
                "token": account.token,
                "clients": [{"client_id": i, "address": a} for i, a in account.clients],
                "attachment_ids": list(account.attachment_ids),
            }
            for account in accounts
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(facts, file, indent=2)
    temporary.replace(path)
