"""Small commands around the servers, each a function from its words to an exit code.

Owns: their options and what they print. Never does: serving, HTTP (client does). Called by: ``__main__``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from fakemail.client import PORTS, FakeMail, describe
from fakemail.command_line.parser import Parser, UsageError


def _named(name: str, about: str) -> Parser:
    return Parser(prog=f"fakemail {name}", description=about, allow_abbrev=False)


def _url_option(made: Parser) -> None:
    made.add_argument(
        "--url", default=f"http://127.0.0.1:{PORTS['control']}", help="of the control (default: %(default)s)"
    )


def _faults(words: Sequence[str]) -> int:
    made = _named("faults", "Print the catalogue of faults as Markdown; with --preset the faults of one as JSON.")
    made.add_argument("--preset", metavar="NAME")
    given = made.parse_args(words)
    from fakemail.faults import preset
    from fakemail.faults.table import markdown

    if given.preset is None:
        print(markdown(), end="")
    else:
        print(json.dumps([fault.as_dict() for fault in preset(given.preset, where="--preset")], indent=2))
    return 0


def _check(words: Sequence[str]) -> int:
    made = _named("check", "Say what a configuration file brings, or what is wrong with it and where.")
    made.add_argument("file", type=Path, metavar="F.toml")
    given = made.parse_args(words)
    from fakemail.config import apply, read_config
    from fakemail.control.loading import load
    from fakemail.faults import Plan
    from fakemail.mailbox import MailStore

    # Brought in as at a start: some mistakes show only then, such as a file that is not there.
    config, store = read_config(given.file), MailStore()
    apply(config, store, Plan(1), load=load)
    messages = sum(len(folder.uids) for user in store.users for folder in user.folders.values())
    print(f"{given.file}: users: {len(config.users)}, messages: {messages}, faults: {len(config.faults)}")
    return 0


def _message(words: Sequence[str]) -> int:
    made = _named("message", "Print a synthesised message: the same bytes on every machine.")
    made.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    made.add_argument("--address", default="ann@example.com", help="whose it is (default: %(default)s)")
    made.add_argument("--folder", default="INBOX", help="default: %(default)s")
    made.add_argument("--uid", type=int, default=1, help="default: %(default)s")
    made.add_argument("--profile", default="small", help="default: %(default)s")
    given = made.parse_args(words)
    from fakemail.synthesis import PROFILES, synthesise

    if given.profile not in PROFILES:
        raise UsageError(f"--profile: {given.profile!r} given; allowed: {', '.join(PROFILES)}")
    if given.uid < 1:
        raise UsageError(f"--uid: {given.uid} given; allowed: a whole number from 1 up")
    raw = synthesise(seed=given.seed, address=given.address, folder=given.folder, uid=given.uid, profile=given.profile)
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()
    return 0


def _ledger(words: Sequence[str]) -> int:
    made = _named("ledger", "Print what happened in a running fakemail, oldest first.")
    _url_option(made)
    for name in ("kind", "protocol", "user"):
        made.add_argument(f"--{name}", help="only such entries")
    made.add_argument("--connection", type=int, help="only this connection's entries")
    made.add_argument("--after", type=int, default=0, metavar="SEQ", help="only entries behind this one")
    made.add_argument("--json", action="store_true", help="JSON, an entry a line")
    made.add_argument("--follow", action="store_true", help="go on until ctrl-C")
    given = made.parse_args(words)
    filters = {name: getattr(given, name) for name in ("kind", "protocol", "user", "connection")}
    fakes, after = FakeMail(given.url), given.after
    if given.follow:
        # An exception would fall into the middle of a request and leave its socket; every line is out already.
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    while True:
        for entry in fakes.ledger(after, **filters):
            print(json.dumps(entry) if given.json else describe(entry), flush=given.follow)
            after = entry["seq"]
        if not given.follow:
            return 0
        fakes.news(after=after, **filters)


def _seed(words: Sequence[str]) -> int:
    made = _named("seed", "Put synthesised mail into a running fakemail.")
    _url_option(made)
    made.add_argument("address")
    made.add_argument("count", type=int)
    made.add_argument("--password", help="make the user with this password, or set it")
    made.add_argument("--folder", default="INBOX", help="default: %(default)s")
    made.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    made.add_argument("--profile", default="small", help="default: %(default)s")
    given = made.parse_args(words)
    fakes = FakeMail(given.url)
    if given.password is not None:
        fakes.add_user(given.address, given.password)
    facts = {"folder": given.folder, "seed": given.seed, "profile": given.profile}
    answer = fakes.seed(given.address, count=given.count, digests=False, **facts)
    print(f"{given.address} {given.folder}: {answer['count']} messages, UIDs {answer['first']} to {answer['last']}")
    return 0


#: By name.
COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "faults": _faults,
    "check": _check,
    "ledger": _ledger,
    "seed": _seed,
    "message": _message,
}
