"""Other programs: each is used where it is installed, missed by name on a laptop, and demanded where CI is set."""

from __future__ import annotations

import contextlib

import pytest

# Before they are imported: their assertions are the contract's, and should tell what they saw.
pytest.register_assert_rewrite("contract", "imap_values", "mail_clients", "raw_imap")

import dovecot_server  # noqa: E402  # behind the line above
import fakemail_server  # noqa: E402
import greenmail_server  # noqa: E402
from contract.lacks import PEERS  # noqa: E402
from mail_clients import new_mailbox  # noqa: E402
from programs import find_program, missing  # noqa: E402


@pytest.fixture
def program():
    """Finds a program, by the Debian package that has it and its names."""
    return find_program


@pytest.fixture(scope="session")
def fakes(tmp_path_factory):
    """One fakemail for all tests of clients; each test makes a user of its own."""
    with fakemail_server.fakemail(tmp_path_factory.mktemp("fakemail")) as running:
        yield running


def _dovecot(_request, _factory):
    program = find_program(dovecot_server.PACKAGE, "dovecot")
    version = dovecot_server.version(program)
    if not version.startswith(f"{dovecot_server.SERIES}."):
        missing(f"Dovecot {version} is installed; the contract's configuration is for {dovecot_server.SERIES}")
    return dovecot_server.dovecot(program)


def _greenmail(request, factory):
    java = find_program(greenmail_server.PACKAGES[0], "java")
    try:
        jar = greenmail_server.jar(request.config.cache.mkdir("greenmail"))
    except greenmail_server.NoJarError as err:
        missing(f"no GreenMail: {err}; apt-get install {greenmail_server.PACKAGES[1]}")
    return greenmail_server.greenmail(java=java, jar_path=jar, folder=factory.mktemp("greenmail"))


@contextlib.contextmanager
def _fakemail(_request, factory):
    with fakemail_server.fakemail(factory.mktemp("fakemail")) as running:
        yield fakemail_server.as_peer(running)


_PEERS = {"fakemail": _fakemail, "dovecot": _dovecot, "greenmail": _greenmail}


@pytest.fixture(scope="session", params=PEERS)
def peer(request, tmp_path_factory):
    """The server that a contract case asks; pytest asks one after the other, so one runs at a time."""
    with _PEERS[request.param](request, tmp_path_factory) as running:
        yield running


@pytest.fixture
def ann(fakes):
    """A user of the shared fakemail, of this test's own."""
    return new_mailbox(fakes)
