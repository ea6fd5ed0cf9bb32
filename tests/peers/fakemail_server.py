"""fakemail as its users start it: ``python -m fakemail`` on free ports, ended by its process id.

Owns: the command line.
Called by: the fixture ``fakes`` of the client tests and the fixture ``peer`` of the contract suite.
"""

from __future__ import annotations

import contextlib
import json
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
    #: The certificate of the authority that signs for its TLS ports.
    ca_file: Path

    def port(self, name: str) -> int:
        """The port of ``smtp``, ``smtps``, ``imap`` or ``imaps``."""
        return int(self.facts[name]["port"])


@contextlib.contextmanager
def fakemail(folder: Path, *, options: Sequence[str] = ()) -> Iterator[Fakes]:
    """fakemail from the moment it serves until it is gone."""
    ready = folder / "ready.json"
    ca_file = folder / "ca.pem"
    files = ("--ready-file", str(ready), "--ca-file", str(ca_file))
    argv = [sys.executable, "-m", "fakemail", *files, *options]
    for name in _PORTS:
        argv += [f"--{name}-port", "0"]
    with running(argv, log=folder / "fakemail.log", ready=ready.exists) as child:
        facts = json.loads(ready.read_text())
        yield Fakes(facts=facts, control=FakeMail(facts["control"]), ca_file=ca_file)
    assert child.returncode == 0, (folder / "fakemail.log").read_text()


def as_peer(fakes: Fakes) -> ImapPeer:
    """What the contract suite asks of it."""

    def add_user(address: str, password: str) -> None:
        fakes.control.add_user(address, password, token=_token(address))

    return ImapPeer(
        name="fakemail",
        version=fakes.facts["version"],
        host=HOST,
        port=fakes.port("imap"),
        tls_port=fakes.port("imaps"),
        add_user=add_user,
        token=lambda address, _password: _token(address),
    )


def _token(address: str) -> str:
    return f"token-of-{address}"
