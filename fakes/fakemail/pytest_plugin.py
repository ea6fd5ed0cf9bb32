"""Fixtures for anybody's tests: servers that start once, a user per test, faults that are healed after the test.

Owns: the child process of a pytest session, the reset before each test, the ledger's tail in the report of a failure.
Never does: import a server, or start one, unless a test asks for a fixture; touch anything under ``-p no:fakemail``.
Called by: pytest, through the entry point ``fakemail``. Under pytest-xdist every worker has servers of its own.

Fixtures: ``fakemail`` (client and addresses), ``mailbox`` (a user of this test), ``faults``, ``fakemail_server`` (the
process), ``fakemail_ca`` (a path), ``fakemail_tls`` (a context). ``fakemail_mailbox`` and ``fakemail_faults`` are what
``mailbox`` and ``faults`` stand for, where a project has other fixtures of these names.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import ssl
    from email.message import EmailMessage

    from fakemail.client import Address, FakeMail, Fault

#: For the server to begin, and to end.
_START_S: Final = 30.0
_STOP_S: Final = 10.0
#: Ledger entries in the report of a failed test.
_TAIL: Final = 30
_PASSWORD: Final = "correct-horse"  # noqa: S105  # of users who live for one test on this machine
_used: Final = pytest.StashKey[tuple["Server", "FakeMail"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line and of the configuration file."""
    group = parser.getgroup("fakemail", "fake IMAP and SMTP servers")
    group.addoption("--fakemail-config", metavar="F.toml", default=None, help="users, mail, faults at the start")
    parser.addini("fakemail_config", "as --fakemail-config; relative to the configuration file", default="")
    parser.addini("fakemail_args", "more options for python -m fakemail", type="args", default=[])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers saw beside what the test says."""
    report = yield
    used = item.stash.get(_used, None)
    if report.failed and used is not None:
        server, fakes = used
        report.sections.append(("fakemail ledger", _tail(fakes)))
        if errors := server.errors.read_text(errors="replace").strip():
            report.sections.append(("fakemail standard error", errors))
    return report


def _tail(fakes: FakeMail) -> str:
    from fakemail.client import ControlError, describe  # noqa: PLC0415  # only a test that failed pays for it

    try:
        return "\n".join(describe(entry) for entry in fakes.last(_TAIL)) or "nothing happened"
    except ControlError as err:
        return f"the fakes don't answer: {err}"


@dataclass(frozen=True, kw_only=True)
class Server:
    """The fakemail process of this session."""

    #: Of its control API.
    url: str
    pid: int
    #: What it wrote to its standard error, which should be nothing.
    errors: Path
    process: subprocess.Popen[bytes] = field(repr=False)


@pytest.fixture(scope="session")
def fakemail_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fakemail on free ports, which ends with this process however that ends."""
    errors = tmp_path_factory.mktemp("fakemail") / "errors.txt"
    with errors.open("wb") as log:
        process = subprocess.Popen(_command(pytestconfig), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    pipe = process.stdin
    assert pipe is not None  # noqa: S101  # asked for above
    # A child that is forked without exec would hold the pipe open, and with it the server.
    os.register_at_fork(after_in_child=pipe.close)
    try:
        facts = _ready(process, errors)
        yield Server(url=facts["control"], pid=process.pid, errors=errors, process=process)
    finally:
        alone = process.poll()
        _stop(process)
    if alone is not None:
        pytest.fail(f"fakemail ended by itself with code {alone}: {errors.read_text()}", pytrace=False)


def _command(config: pytest.Config) -> list[str]:
    # -P: a file of the tests must not pass for a module of the server.
    command = [sys.executable, "-P", "-m", "fakemail", "--free-ports", "--quiet", "--stop-with-stdin"]
    command += ["--ready-file", "-"]
    given = config.getoption("--fakemail-config")
    if given is None and (written := config.getini("fakemail_config")):
        given = str((config.inipath or config.rootpath / "pytest.ini").parent / written)
    return [*command, *(["--config", given] if given else []), *config.getini("fakemail_args")]


def _ready(process: subprocess.Popen[bytes], errors: Path) -> dict[str, Any]:
    """The line that the server writes once it serves."""
    assert process.stdout is not None  # noqa: S101  # asked for by our caller
    deadline, line = time.monotonic() + _START_S, b""
    while not line.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            pytest.fail(f"fakemail was not ready within {_START_S:g} s: {errors.read_text()}", pytrace=False)
        # As much as is there, so that the deadline holds.
        piece = os.read(process.stdout.fileno(), 65_536)
        if not piece:
            pytest.fail(errors.read_text().strip() or "fakemail ended at its start without a word", pytrace=False)
        line += piece
    return dict(json.loads(line))


def _stop(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def fakemail_ca(fakemail_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the certificate of the authority that signed for the TLS ports."""
    from fakemail.client import FakeMail  # noqa: PLC0415  # see the head of this module

    path = tmp_path_factory.mktemp("fakemail-ca") / "ca.pem"
    path.write_text(FakeMail(fakemail_server.url).ca_pem(), encoding="ascii")
    return path


@pytest.fixture(scope="session")
def fakemail_tls(fakemail_ca: Path) -> ssl.SSLContext:
    """A client's context that trusts the TLS ports and nothing else."""
    import ssl  # noqa: PLC0415  # a session without TLS does without it

    return ssl.create_default_context(cafile=fakemail_ca)


@pytest.fixture
def fakemail(fakemail_server: Server, request: pytest.FixtureRequest) -> FakeMail:
    """The fakes as they were at the start: no connection, mail, fault or ledger entry of an earlier test."""
    from fakemail.client import FakeMail  # noqa: PLC0415  # see the head of this module

    fakes = FakeMail(fakemail_server.url)
    fakes.reset(to_start=True, connections=True)
    request.node.stash[_used] = (fakemail_server, fakes)
    return fakes


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A message in a mailbox."""

    uid: int
    flags: frozenset[str]
    raw: bytes = field(repr=False)

    @property
    def email(self) -> EmailMessage:
        """The message as Python's email package reads it: ``mail.email["Subject"]``."""
        import email.policy  # noqa: PLC0415  # see the head of this module

        return email.message_from_bytes(self.raw, policy=email.policy.default)


class Mailbox:
    """A user of one test."""

    def __init__(self, fakes: FakeMail, address: str, password: str) -> None:
        self._fakes = fakes
        self.address = address
        self.password = password

    def __repr__(self) -> str:
        return f"<Mailbox {self.address}>"

    @property
    def smtp(self) -> Address:
        """Host and port."""
        return self._fakes.smtp

    @property
    def smtps(self) -> Address:
        """Host and port."""
        return self._fakes.smtps

    @property
    def imap(self) -> Address:
        """Host and port."""
        return self._fakes.imap

    @property
    def imaps(self) -> Address:
        """Host and port."""
        return self._fakes.imaps

    def seed(self, count: int, *, seed: int = 1, profile: str = "small", folder: str = "INBOX") -> dict[str, Any]:
        """Put synthesised mail into a folder, the same bytes in every run."""
        return self._fakes.seed(self.address, count=count, seed=seed, profile=profile, folder=folder)

    def append(self, message: bytes | EmailMessage, *, folder: str = "INBOX", flags: Iterable[str] = ()) -> int:
        """Put one message into a folder; answers its UID."""
        raw = message if isinstance(message, bytes) else _wire(message)
        return int(self._fakes.append(self.address, raw, folder, flags=flags)["uid"])

    def messages(self, folder: str = "INBOX") -> list[Mail]:
        """What a folder holds, oldest first."""
        rows = list(self._fakes.messages(self.address, folder))
        return [self._mail(row, folder) for row in rows]

    def wait(self, count: int = 1, *, folder: str = "INBOX", timeout_s: float = 10.0) -> list[Mail]:
        """The messages of a folder, as soon as there are at least so many; an AssertionError if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            seq = self._fakes.health()["ledger_seq"]
            found = self.messages(folder)
            left_s = deadline - time.monotonic()
            if len(found) >= count:
                return found
            if left_s <= 0:
                raise AssertionError(
                    f"{self.address} {folder}: {len(found)} of {count} messages within {timeout_s:g} s"
                )
            self._fakes.news(after=seq, timeout_s=left_s)

    def _mail(self, row: Mapping[str, Any], folder: str) -> Mail:
        raw = self._fakes.message(self.address, row["uid"], folder)
        return Mail(uid=row["uid"], flags=frozenset(row["flags"]), raw=raw)


def _wire(message: EmailMessage) -> bytes:
    import email.policy  # noqa: PLC0415  # see the head of this module

    return message.as_bytes(policy=email.policy.SMTP)


@pytest.fixture
def fakemail_mailbox(fakemail: FakeMail, request: pytest.FixtureRequest) -> Mailbox:
    """A user of this test alone, whose address follows from the test's name."""
    digest = hashlib.blake2b(request.node.nodeid.encode(), digest_size=4).hexdigest()
    box = Mailbox(fakemail, f"user-{digest}@example.test", _PASSWORD)
    fakemail.add_user(box.address, box.password)
    return box


class Faults:
    """The faults of one test."""

    def __init__(self, fakes: FakeMail) -> None:
        self._fakes = fakes

    def put(self, point: str, **parts: Any) -> Fault:
        """``put("smtp.rcpt", reply="451 4.7.1 Later", first=2)``; as a context manager the result heals at its end."""
        return self._fakes.put_fault(point, **parts)

    def preset(self, name: str) -> list[Fault]:
        """A well-known trouble by its name."""
        return self._fakes.preset(name)

    def heal(self) -> None:
        """Take all of them away."""
        self._fakes.clear_faults()

    def fired(self) -> list[dict[str, Any]]:
        """The ledger's entry of each time that one fired."""
        return list(self._fakes.ledger(kind="fault"))


@pytest.fixture
def fakemail_faults(fakemail: FakeMail) -> Iterator[Faults]:
    """Faults that end with the test."""
    yield Faults(fakemail)
    fakemail.clear_faults()


@pytest.fixture
def mailbox(fakemail_mailbox: Mailbox) -> Mailbox:
    """``fakemail_mailbox`` under its short name, which a project may give to something else."""
    return fakemail_mailbox


@pytest.fixture
def faults(fakemail_faults: Faults) -> Faults:
    """``fakemail_faults`` under its short name, which a project may give to something else."""
    return fakemail_faults
