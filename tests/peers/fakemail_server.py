"""fakemail as its users start it: ``python -m fakemail`` on free ports, ended by its process id.

Owns: the command line and the way to its certificate.
Called by: the fixture ``fakes`` of the client tests and the fixture ``peer`` of the contract suite.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imap_peer import ImapPeer
from processes import HOST, running

from fakemail.client import FakeMail

_PORTS = ("smtp", "smtps", "imap", "imaps", "control")


@dataclass(frozen=True, kw_only=True)
class Fakes:
    """A running fakemail."""

    #: What its ready file says.
    facts: dict[str, Any]
    #: Its control API.
    control: FakeMail
    #: PEM of what its TLS ports show: a client that trusts this file trusts the server.
    certificate: Path

    def port(self, name: str) -> int:
        """The port of ``smtp``, ``smtps``, ``imap`` or ``imaps``."""
        return int(self.facts[name]["port"])


@contextlib.contextmanager
def fakemail(folder: Path, *, options: Sequence[str] = ()) -> Iterator[Fakes]:
    """fakemail from the moment it serves until it is gone."""
    ready = folder / "ready.json"
    argv = [sys.executable, "-m", "fakemail", "--ready-file", str(ready), *options]
    for name in _PORTS:
        argv += [f"--{name}-port", "0"]
    with running(argv, log=folder / "fakemail.log", ready=ready.exists) as child:
        facts = json.loads(ready.read_text())
        certificate = folder / "certificate.pem"
        certificate.write_text(ssl.get_server_certificate((HOST, facts["imaps"]["port"])))
        yield Fakes(facts=facts, control=FakeMail(facts["control"]), certificate=certificate)
    assert child.returncode == 0, (folder / "fakemail.log").read_text()


def as_peer(fakes: Fakes) -> ImapPeer:
    """What the contract suite asks of it."""
    return ImapPeer(
        name="fakemail",
        version="this one",
        host=HOST,
        port=fakes.port("imap"),
        tls_port=fakes.port("imaps"),
        add_user=fakes.control.add_user,
        token=lambda _address, password: password,
    )
