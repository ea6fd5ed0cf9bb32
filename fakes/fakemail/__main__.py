"""fakemail's command line: the servers as a process of their own, and small commands around them.

Owns: what is printed, signals, exit codes. Never does: serving (serving does), talking HTTP (client does).
Every mistake of a user is one line on standard error that says what was wrong and what would be right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fakemail import FakemailError
from fakemail.client import PORTS, ControlError, FakeMail, describe
from fakemail.command_line.parser import Parser, UsageError, parser

if TYPE_CHECKING:
    from fakemail.serving import Fakes


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or serve until SIGTERM or SIGINT; answers the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and words[0] in _COMMANDS:
            return _COMMANDS[words[0]](words[1:])
        return _serve(words)
    except FakemailError as err:
        print(f"fakemail: {err}", file=sys.stderr)
        # What a running fakemail answers is no mistake of this command line.
        return 1 if isinstance(err, ControlError) else 2
    except KeyboardInterrupt:
        return 0


# -- serving


def _serve(words: Sequence[str]) -> int:
    given = parser().parse_args(words)
    if given.version:
        from fakemail.serving import version

        print(f"fakemail {version()}")
        return 0
    return asyncio.run(_serve_until_told(given))


async def _serve_until_told(given: argparse.Namespace) -> int:
    from fakemail.command_line.options import options
    from fakemail.serving import Fakes

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if given.stop_with_stdin:
        _watch_stdin(loop, stop)
    async with Fakes(options(given)) as fakes:
        _announce(fakes, given)
        await stop.wait()
    return 0


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when nobody holds the other end any more: a parent that was killed can't say goodbye."""

    def read() -> None:
        if not os.read(0, 65_536):
            loop.remove_reader(0)
            stop.set()

    try:
        loop.add_reader(0, read)
    except OSError as err:
        # A file or /dev/null is always readable, and so never waited for.
        problem = "standard input can't be waited for"
        raise UsageError(f"--stop-with-stdin: {problem} ({err.strerror}); allowed: a pipe or a terminal") from err


def _announce(fakes: Fakes, given: argparse.Namespace) -> None:
    from fakemail.serving import base_url

    facts = fakes.facts()
    if given.ca_file is not None:
        _write(given.ca_file, fakes.certificates.ca_pem)
        facts["ca_file"] = str(given.ca_file.absolute())
    if not given.quiet and given.ready_file != "-":
        for name, (host, port) in fakes.servers.items():
            scheme = "http" if name == "control" else name
            print(f"{name:8} {base_url(host, port, scheme=scheme)}", flush=True)
    if given.ready_file == "-":
        print(json.dumps(facts), flush=True)
    elif given.ready_file is not None:
        _write(Path(given.ready_file), json.dumps(facts).encode())


def _write(path: Path, content: bytes) -> None:
    """The whole file at once: who waits for it never reads half of it."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        # mkstemp lets nobody else read; what is written here is no secret.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as err:
        raise UsageError(f"{path}: can't be written ({err.strerror})") from err


# -- small commands


def _command(name: str, about: str) -> Parser:
    made = Parser(prog=f"fakemail {name}", description=about, allow_abbrev=False)
    # A reader such as head that has seen enough ends the writer quietly, as it ends cat.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return made


def _url_option(made: Parser) -> None:
    made.add_argument(
        "--url", default=f"http://127.0.0.1:{PORTS['control']}", help="of the control (default: %(default)s)"
    )


def _faults(words: Sequence[str]) -> int:
    made = _command("faults", "Print the catalogue of faults as Markdown; with --preset the faults of one as JSON.")
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
    made = _command("check", "Say what a configuration file brings, or what is wrong with it and where.")
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
    made = _command("message", "Print a synthesised message: the same bytes on every machine.")
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
    made = _command("ledger", "Print what happened in a running fakemail, oldest first.")
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
    while True:
        for entry in fakes.ledger(after, **filters):
            print(json.dumps(entry) if given.json else describe(entry), flush=given.follow)
            after = entry["seq"]
        if not given.follow:
            return 0
        fakes.news(after=after, **filters)


def _seed(words: Sequence[str]) -> int:
    made = _command("seed", "Put synthesised mail into a running fakemail.")
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


_COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "faults": _faults,
    "check": _check,
    "ledger": _ledger,
    "seed": _seed,
    "message": _message,
}


if __name__ == "__main__":
    sys.exit(main())
