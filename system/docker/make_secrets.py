"""Make the secrets of the compose stack: once, for each reader what it needs and no more.

Owns the list of who gets what. Everything follows from one random seed, so that what belongs together fits together
whichever part was lost, and a second run changes nothing. The seed stays in a volume that only this program sees.
Run by the service ``secrets`` of docker-compose.yml, in the image of the service; needs nothing but Python.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Folder of the seed, and its file; the other folders are those of ``secrets_from``.
SEED_FOLDER: Final = "seed"
SEED_FILE: Final = "seed"
SEED_BYTES: Final = 32
#: A volume holds the secrets of those that mount it, so within it nobody has to be kept out; nobody may write either.
_MODE: Final = 0o444
_DATABASE: Final = "postgres:5432/mail"
_BROKER: Final = "redis:6379"


class SecretsError(Exception):
    """The secrets can't be made; the text is for the operator."""


def secrets_from(seed: bytes) -> dict[str, dict[str, str]]:
    """Folder -> file -> content. Pure: the same seed makes the same secrets."""

    def derived(name: str) -> bytes:
        return hmac.digest(seed, name.encode(), hashlib.sha256)

    def database(role: str) -> str:
        return f"postgresql://{role}:{derived(role).hex()}@{_DATABASE}"

    broker, key = derived("redis").hex(), base64.b64encode(derived("credential-key")).decode()
    return {
        "service": {
            "DATABASE_URL": database("mail_app"),
            "DATABASE_SYSTEM_URL": database("mail_system"),
            "REDIS_URL": f"redis://:{broker}@{_BROKER}",
            "CREDENTIAL_ENCRYPTION_KEY": key,
            "MAIL_TOKEN_SECRET": derived("token").hex(),
        },
        "flower": {"MAIL_FLOWER_PASSWORD": derived("flower").hex()[:24]},
        "owner": {"DATABASE_OWNER_URL": database("mail_owner")},
        "audit": {"DATABASE_AUDIT_URL": database("mail_audit")},
        "postgres": {"password": derived("mail_owner").hex()},
        # The configuration file: an argument would show in the list of processes.
        "redis": {"password": broker, "redis.conf": f"requirepass {broker}\n"},
    }


def make(root: Path, fresh_seed: bytes) -> int:
    """Write all secrets below ``root``; answers how many files were not there or differed.

    Raises:
        SecretsError: the seed was lost while the database's password was not: new ones would lock everybody out.
    """
    seed = _seed(root, fresh_seed)
    written = 0
    for folder, files in secrets_from(seed).items():
        written += sum(_written(root / folder / name, content) for name, content in files.items())
    return written


def _seed(root: Path, fresh: bytes) -> bytes:
    path = root / SEED_FOLDER / SEED_FILE
    if path.exists():
        seed = bytes.fromhex(path.read_text())
        if len(seed) != SEED_BYTES:
            raise SecretsError(f"{path} holds {len(seed)} bytes, not {SEED_BYTES}")
        return seed
    if (root / "postgres" / "password").exists():
        raise SecretsError(
            f"{path} is gone, and the database has a password that was made from it; bring its volume back, or begin "
            "anew without data: docker compose down --volumes"
        )
    _written(path, fresh.hex())
    return fresh


def _written(path: Path, content: str) -> bool:
    """Whole or not at all; what is there already stays untouched."""
    if path.exists() and path.read_text() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w") as file:
        file.write(content)
        os.fsync(file.fileno())
    new.replace(path)
    return True


def main(argv: Sequence[str]) -> int:
    """``make_secrets.py FOLDER``; answers the exit code."""
    if len(argv) != 1:
        print("usage: make_secrets.py FOLDER", file=sys.stderr)
        return 2
    try:
        written = make(Path(argv[0]), secrets.token_bytes(SEED_BYTES))
    except (SecretsError, OSError, ValueError) as err:
        print(f"make_secrets: {err}", file=sys.stderr)
        return 1
    print(f"secrets: {written} files written" if written else "secrets: all there")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
