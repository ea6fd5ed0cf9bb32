"""fakemail's command line: the servers as a process of their own, and small commands around them.

Owns: options, what is printed, signals, exit codes. Never does: serving (serving does), talking HTTP (client does).
Every mistake of a user is one line on standard error that says what was wrong and what would be right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fakemail import FakemailError

if TYPE_CHECKING:
    from fakemail.faults import Plan
    from fakemail.folder import Folder
    from fakemail.mailbox import MailStore
    from fakemail.serving import Fakes, Options

_DESCRIPTION: Final = """
Fake IMAP and SMTP servers for tests: deterministic mail, faults as data, a ledger of everything that happened.
"""
_EPILOG: Final = """
commands:
  fakemail faults                 the catalogue: points, actions, schedules, presets
  fakemail check F.toml           is this configuration right?
  fakemail ledger [URL]           what happened in a running fakemail; --follow goes on
  fakemail seed ADDRESS COUNT     put mail into a running fakemail
  fakemail message                print a synthesised message
  each has --help of its own

examples:
  fakemail                                                all five ports on 127.0.0.1
  fakemail --user ann@example.com:secret --mail ann@example.com=1000
  fakemail --free-ports --ready-file up.json              up.json says which ports
  fakemail --preset greylisting --preset slow-imap        well-known troubles from the first connection on
  fakemail --config fakes.toml                            users, mail and faults in a file:

    [[user]]
    address = "ann@example.com"
    password = "secret"
    seed = 20                     # messages in INBOX

    [[fault]]
    id = "greylist"
    point = "smtp.rcpt"
    when = { first = 3 }
    action = { reply = "451 4.7.1 Try again later" }

exit codes: 0 stopped by a signal, or done; 1 a running fakemail refused or did not answer; 2 wrong use (an option, a
file, a port that is taken)
"""
#: GreenMail's ports, so that one can stand in for the other.
PORTS: Final = {"smtp": 3025, "smtps": 3465, "imap": 3143, "imaps": 3993, "control": 3080}
_PORT_MAX: Final = 65_535
_UNNAMED: Final = object()
#: A user, and perhaps a folder.
_PLACE: Final = r"([^:=@]+@[^:=@]+)(?::([^=]+))?"


class UsageError(FakemailError):
    """An option can't be used."""


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        raise UsageError(f"{message}; see {self.prog} --help")


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
        return 1 if type(err).__name__ == "ControlError" else 2
    except KeyboardInterrupt:
        return 0


# -- serving


def parser() -> argparse.ArgumentParser:
    """The options of the servers."""
    made = _Parser(
        prog="fakemail",
        usage="fakemail [OPTIONS]\n       fakemail COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    where = made.add_argument_group("where they listen")
    where.add_argument("--host", default="127.0.0.1", metavar="H", help="name or address to bind (default: 127.0.0.1)")
    for name, port in PORTS.items():
        text = f"default: {port}; 0: a free one; off: none"
        where.add_argument(f"--{name}-port", type=_port, default=argparse.SUPPRESS, metavar="N", help=text)
    where.add_argument("--free-ports", action="store_true", help="a free one for each port that is not named")
    _mail_options(made.add_argument_group("mail and faults at the start"))
    _tls_options(made.add_argument_group("TLS and what the servers can"))
    process = made.add_argument_group("the process")
    process.add_argument("--ready-file", metavar="P", help="JSON with all ports, once they serve; -: standard output")
    process.add_argument(
        "--stop-with-stdin", action="store_true", help="end when standard input ends, as with a parent"
    )
    process.add_argument("--quiet", action="store_true", help="print no addresses")
    process.add_argument("--version", action="store_true", help="print the version")
    process.add_argument("-h", "--help", action="help", help="print this")
    return made


def _mail_options(group: Any) -> None:
    group.add_argument("--config", type=Path, metavar="F.toml", help="users, mail and faults")
    group.add_argument("--seed", type=int, default=None, metavar="N", help="of mail and chance (default: 1)")
    group.add_argument(
        "--user", action="append", default=[], metavar="A:PASSWORD", help="a user, ann@example.com:secret"
    )
    group.add_argument(
        "--mail", action="append", default=[], metavar="A[:FOLDER]=N", help="N synthesised messages (folder: INBOX)"
    )
    group.add_argument(
        "--load", action="append", default=[], metavar="A[:FOLDER]=P", help="the mail of a Maildir or an mbox file"
    )
    group.add_argument("--preset", action="append", default=[], metavar="NAME", help="a well-known trouble: see faults")


def _tls_options(group: Any) -> None:
    group.add_argument("--ca-file", type=Path, metavar="P", help="write the authority's certificate there")
    group.add_argument("--tls-name", action="append", default=[], metavar="H", help="one more name for the certificate")
    group.add_argument("--require-tls", action="store_true", help="refuse passwords before TLS")
    group.add_argument("--require-login", action="store_true", help="take mail by SMTP only after a login")
    group.add_argument("--without", action="append", default=[], metavar="NAME", help="a capability that is not there")
    group.add_argument("--idle-timeout", type=_limit, metavar="S", help="seconds until a silent client must leave")
    group.add_argument("--connections", type=_limit, metavar="N", help="so many at once, in all")
    group.add_argument("--connections-per-user", type=_limit, metavar="N", help="so many at once, of one user")


def _port(text: str) -> int | None:
    if text == "off":
        return None
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: 0 to {_PORT_MAX}, 0 means a free one, or off")
    return int(text)


def _limit(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number from 1 up")
    return int(text)


def _serve(words: Sequence[str]) -> int:
    given = parser().parse_args(words)
    if given.version:
        from fakemail.serving import version

        print(f"fakemail {version()}")
        return 0
    return asyncio.run(_serve_until_told(given))


def _options(given: argparse.Namespace) -> Options:
    from fakemail.imap_protocol import CAPABILITIES, ImapOptions, without
    from fakemail.serving import FREE_PORTS, Options
    from fakemail.smtp_server import KEYWORDS, SmtpOptions

    _check_paths(given)
    ports: dict[str, int | None] = dict(FREE_PORTS if given.free_ports else PORTS)
    for name in PORTS:
        if hasattr(given, f"{name}_port"):
            ports[name] = getattr(given, f"{name}_port")
    off = _without(given.without, known={*CAPABILITIES, *KEYWORDS} - {"IMAP4rev1"})
    idle = {} if given.idle_timeout is None else {"idle_s": float(given.idle_timeout)}
    return Options(
        host=given.host,
        ports=ports,
        seed=1 if given.seed is None else given.seed,
        start=_start(given),
        smtp=SmtpOptions(
            without=off & set(KEYWORDS), login_required=given.require_login, tls_required=given.require_tls, **idle
        ),
        imap=ImapOptions(without=without(off & set(CAPABILITIES)), require_tls=given.require_tls),
        imap_idle_s=given.idle_timeout,
        tls_names=tuple(given.tls_name),
    )


def _without(names: Sequence[str], *, known: Collection[str]) -> frozenset[str]:
    """The capabilities and keywords as they are written; what both servers have is taken from both."""
    by_upper = {name.upper(): name for name in known}
    for name in names:
        if name.upper() not in by_upper:
            raise UsageError(f"--without {name}: not known; allowed: {', '.join(sorted(known))}")
    return frozenset(by_upper[name.upper()] for name in names)


def _start(given: argparse.Namespace) -> Callable[[MailStore, Plan], None]:
    """What brings in users, mail, faults and limits; all that can be checked beforehand is."""
    from fakemail.faults import preset

    users = [_split(text, r"([^:@]+@[^:@]+):(.+)", "--user", "ann@example.com:secret") for text in given.user]
    mails = [_split(text, rf"{_PLACE}=(\d{{1,8}})", "--mail", "ann@example.com:INBOX=1000") for text in given.mail]
    loads = [_split(text, rf"{_PLACE}=(.+)", "--load", "ann@example.com:INBOX=mail.mbox") for text in given.load]
    faults = [fault for name in given.preset for fault in preset(name, where="--preset")]

    def start(store: MailStore, plan: Plan) -> None:
        for address, password in users:
            store.add_user(address, password)
        for address, name, count in mails:
            store.seed_folder(_folder(store, address, name or "INBOX"), count=int(count))
        for address, name, path in loads:
            _load(store, _folder(store, address, name or "INBOX"), Path(path))
        for fault in faults:
            plan.put(fault)
        store.limits.connections = given.connections
        store.limits.connections_per_user = given.connections_per_user

    return start


def _split(text: str, pattern: str, option: str, example: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text, re.DOTALL)
    if not found:
        raise UsageError(f"{option} {text}: not of this form; allowed: such as {option} {example}")
    return tuple(group or "" for group in found.groups())


def _folder(store: MailStore, address: str, name: str) -> Folder:
    """The folder of this name, made if it is not there; its user must be."""
    account = store.user(address)
    if name not in account.folders and name.upper() != "INBOX":
        store.create(account, name)
        account.subscribed.add(name)
    return account.folder(name)


def _check_paths(given: argparse.Namespace) -> None:
    """Refuse what would fail later, half-way up."""
    for name in ("ready_file", "ca_file"):
        path = getattr(given, name)
        if path in {None, "-"}:
            continue
        folder = Path(path).absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK) or Path(path).is_dir():
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} {path}: no file can be made there; allowed: a path in a folder that can be written"
            )


async def _serve_until_told(given: argparse.Namespace) -> int:
    from fakemail.serving import Fakes

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if given.stop_with_stdin:
        _watch_stdin(loop, stop)
    async with Fakes(_options(given)) as fakes:
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


def _command(name: str, about: str) -> _Parser:
    made = _Parser(prog=f"fakemail {name}", description=about, allow_abbrev=False)
    # A reader such as head that has seen enough ends the writer quietly, as it ends cat.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return made


def _url_option(made: _Parser) -> None:
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
    from fakemail.config import load

    print(f"{given.file}: {load(given.file)}")
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
    from fakemail.client import FakeMail, describe

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
    from fakemail.client import FakeMail

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
