"""Servers of other people beside fakemail, each as a process of its own that ends with its ``with`` block.

Owns: their configuration (a temporary directory, a free port of 127.0.0.1), starting, waiting until they serve, ending.
Never does: measuring. A server that is not installed raises ``AbsentError`` with the name of its package; nobody
invents a figure for it. Every process is ended by its own id, never by name.
Called by: the benches, as context managers.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import importlib.metadata
import importlib.util
import json
import os
import pickle
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fakemail.client import FakeMail

HOST: Final = "127.0.0.1"
USER: Final = "ann@example.test"
PASSWORD: Final = "bench-password"  # noqa: S105  # of a server that lives for a minute on this machine
START_S: Final = 20.0
_PORTS: Final = ("smtp", "smtps", "imap", "imaps", "control")


class AbsentError(Exception):
    """A peer is not installed; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that answers."""

    #: As a table of results names it.
    name: str
    #: Of the process that serves, or of the master of a family of processes.
    pid: int
    port: int

    @property
    def address(self) -> tuple[str, int]:
        """Where a client connects."""
        return HOST, self.port


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A server that can't be had here."""

    name: str
    #: The way to get it.
    how: str


@dataclass(frozen=True, kw_only=True)
class Fakes:
    """A running fakemail."""

    pid: int
    imap: Server
    smtp: Server
    control: FakeMail


def opened_or_absent(
    opened: contextlib.ExitStack, runner: contextlib.AbstractContextManager[Server], name: str
) -> Server | Absent:
    """Start a peer until ``opened`` ends; where it is not installed, say so."""
    try:
        return opened.enter_context(runner)
    except AbsentError as err:
        return Absent(name=name, how=str(err))


@contextlib.contextmanager
def fakemail(*, config: str = "") -> Iterator[Fakes]:
    """A fakemail on free ports; ``config`` is the text of a configuration file."""
    with _folder() as folder:
        ready, options = folder / "ready.json", []
        for name in _PORTS:
            options += [f"--{name}-port", "0"]
        if config:
            (folder / "fakes.toml").write_text(config)
            options += ["--config", str(folder / "fakes.toml")]
        argv = [sys.executable, "-m", "fakemail", "--ready-file", str(ready), *options]
        with _child(argv, folder=folder, environment={"PYTHONPATH": os.pathsep.join(sys.path)}) as process:
            _await(process, folder, ready.exists)
            facts = json.loads(ready.read_text())
            pid = int(facts["pid"])
            yield Fakes(
                pid=pid,
                imap=Server(name="fakemail", pid=pid, port=facts["imap"]["port"]),
                smtp=Server(name="fakemail", pid=pid, port=facts["smtp"]["port"]),
                control=FakeMail(facts["control"], timeout_s=120),
            )


@contextlib.contextmanager
def dovecot(*, store: str = "mdbox", crlf: bool = True) -> Iterator[Server]:
    """Dovecot's IMAP server for USER, as root or as anybody; its mail lies in ``store`` (maildir, sdbox, mdbox)."""
    program = _program("dovecot", package="dovecot-imapd")
    with _folder() as folder:
        port = free_port()
        (folder / "dovecot.conf").write_text(_dovecot_config(folder, port, store, crlf=crlf))
        (folder / "passwd").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        with _child([program, "-F", "-c", str(folder / "dovecot.conf")], folder=folder) as process:
            _await(process, folder, lambda: _greets(port, b"* OK"))
            yield Server(name=f"Dovecot {_said(program, '--version')}", pid=process.pid, port=port)


def _dovecot_config(folder: Path, port: int, store: str, *, crlf: bool) -> str:
    """What differs from Dovecot's defaults so that it runs here, and what makes it faster.

    With ``crlf`` messages are kept with CRLF, so that they can go to the socket as they lie; nothing waits for the
    disk, and a Maildir is not read again for changes of others.
    """
    root = os.geteuid() == 0
    # Dovecot refuses to open mail as root; without root it can be nobody but the caller.
    owner = pwd.getpwnam("nobody") if root else pwd.getpwnam(getpass.getuser())
    mail = folder / "mail"
    mail.mkdir()
    if root:
        os.chown(mail, owner.pw_uid, owner.pw_gid)
    group = grp.getgrgid(owner.pw_gid).gr_name
    users = "" if root else f"default_internal_user = {owner.pw_name}\ndefault_login_user = {owner.pw_name}\n"
    users += "" if root else f"default_internal_group = {group}\n"
    cells = "" if root else "service anvil {\n  chroot =\n}\n"
    login = "" if root else "  chroot =\n"
    return f"""
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = imap
listen = {HOST}
ssl = no
disable_plaintext_auth = no
{users}{cells}
first_valid_uid = 1
mail_uid = {owner.pw_uid}
mail_gid = {owner.pw_gid}
mail_location = {store}:{mail}/%n
mail_fsync = never
mail_save_crlf = {"yes" if crlf else "no"}
maildir_very_dirty_syncs = yes
mail_max_userip_connections = 1000
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/passwd
}}
userdb {{
  driver = static
  args = uid={owner.pw_uid} gid={owner.pw_gid} home={mail}/home
}}
service imap-login {{
{login}  inet_listener imap {{
    address = {HOST}
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
namespace inbox {{
  inbox = yes
}}
"""


@contextlib.contextmanager
def pymap() -> Iterator[Server]:
    """pymap with its mailboxes in memory (``dict``), without its demo mail."""
    if importlib.util.find_spec("pymap") is None:
        raise AbsentError("pymap is not installed: pip install pymap")
    port = free_port()
    argv = [sys.executable, "-c", "import sys; from pymap.main import main; sys.exit(main())"]
    argv += ["--host", HOST, "--port", str(port), "--no-tls", "dict", "--demo-user", USER, "--demo-password", PASSWORD]
    with _folder() as folder, _child(argv, folder=folder) as process:
        _await(process, folder, lambda: _greets(port, b"* OK"))
        yield Server(name=f"pymap {importlib.metadata.version('pymap')}", pid=process.pid, port=port)


@contextlib.contextmanager
def replay(messages: Sequence[bytes]) -> Iterator[Server]:
    """No server at all: answers prepared beforehand, so that a client shows the speed that it can't exceed."""
    port = free_port()
    with _folder() as folder:
        (folder / "messages").write_bytes(pickle.dumps(list(messages)))
        argv = [sys.executable, str(Path(__file__).with_name("replay.py")), HOST, str(port), str(folder / "messages")]
        with _child(argv, folder=folder) as process:
            _await(process, folder, lambda: _greets(port, b"* OK"))
            yield Server(name="prepared answers", pid=process.pid, port=port)


@contextlib.contextmanager
def smtp_sink() -> Iterator[Server]:
    """Postfix's smtp-sink, which takes every message and drops it."""
    program = _program("smtp-sink", package="postfix")
    port = free_port()
    argv = [program, "-h", "localhost"]
    # As root it asks for somebody to be.
    argv += ["-u", "nobody"] if os.geteuid() == 0 else []
    with _folder() as folder, _child([*argv, f"{HOST}:{port}", "512"], folder=folder) as process:
        _await(process, folder, lambda: _greets(port, b"220"))
        yield Server(name=f"smtp-sink {_said('postconf', '-h', 'mail_version')}".strip(), pid=process.pid, port=port)


@contextlib.contextmanager
def stock_aiosmtpd() -> Iterator[Server]:
    """aiosmtpd as it comes: its Controller, and a handler that takes the message and drops it."""
    if importlib.util.find_spec("aiosmtpd") is None:
        raise AbsentError("aiosmtpd is not installed: pip install aiosmtpd")
    port = free_port()
    argv = [sys.executable, str(Path(__file__).with_name("stock_aiosmtpd.py")), HOST, str(port)]
    with _folder() as folder, _child(argv, folder=folder) as process:
        _await(process, folder, lambda: _greets(port, b"220"))
        yield Server(name=f"aiosmtpd {importlib.metadata.version('aiosmtpd')}", pid=process.pid, port=port)


def smtp_source() -> str:
    """The path of Postfix's load generator."""
    return _program("smtp-source", package="postfix")


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _program(name: str, *, package: str) -> str:
    # Servers live where the path of an ordinary user may not lead.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        raise AbsentError(f"{name} is not installed: apt-get install {package}")
    return path


def _said(*argv: str) -> str:
    """The first word of what a program says of itself; nothing if it can't."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return ""
    return done.stdout.partition(" ")[0].strip()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        # A server that changes its user must find its way in.
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def _child(
    argv: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            # Its own group: a ctrl-C in the terminal is ours, and we end it in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _await(process: subprocess.Popen[bytes], folder: Path, serves: object) -> None:
    assert callable(serves)
    deadline = time.monotonic() + START_S
    while not serves():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "output").read_text(errors="replace")
            log = folder / "dovecot.log"
            said += log.read_text(errors="replace") if log.exists() else ""
            raise RuntimeError(f"{process.args!r} does not serve: {said[-2000:]}")
        time.sleep(0.02)


def _greets(port: int, greeting: bytes) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as sock:
            return sock.recv(200).startswith(greeting)
    except OSError:
        return False
