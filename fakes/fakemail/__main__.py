"""python -m fakemail: the fake servers as a process of their own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import trustme
from aiohttp import web

from fakemail import FakemailError
from fakemail.control import application
from fakemail.faults import FaultError, Plan, parse_faults
from fakemail.imap_server import ImapConnection
from fakemail.ledger import Ledger
from fakemail.mailbox import MailboxError, MailStore
from fakemail.smtp_server import Handler, SmtpConnection

#: GreenMail's ports, so that one can stand in for the other.
PORTS: Final = {"smtp": 3025, "smtps": 3465, "imap": 3143, "imaps": 3993, "control": 3080}
Factory = Callable[[], asyncio.Protocol]
_EXAMPLES: Final = """
examples:
  python -m fakemail                              all five ports on 127.0.0.1
  python -m fakemail --imap-port 0 --ready-file up.json   a free port; up.json says which
  python -m fakemail --config fakes.toml          users, seeded mail and faults at the start:

    [[user]]
    address = "ann@example.com"
    password = "secret"
    seed = 20                     # messages in INBOX

    [[fault]]
    id = "greylist"
    point = "smtp.rcpt"
    when = { first = 3 }
    action = { reply = "451 4.7.1 Try again later" }

exit codes: 0 stopped by a signal, 2 wrong use (a port that is taken, a broken file)
"""


class ConfigError(FakemailError):
    """An option or a configuration file can't be used."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; answers the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_serve(arguments))
    except FakemailError as err:
        print(f"fakemail: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fakemail",
        description="Fake IMAP and SMTP servers for tests: deterministic mail, faults as data, a ledger of everything.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    for name, port in PORTS.items():
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="N", help=f"default: {port}; 0: a free one"
        )
    parser.add_argument("--seed", type=int, default=1, help="seeds mail and probabilities (default: 1)")
    parser.add_argument(
        "--config", type=Path, default=None, metavar="F.toml", help="users, mail and faults at the start"
    )
    parser.add_argument(
        "--ready-file", type=Path, default=None, metavar="P", help="JSON with all ports, once they serve"
    )
    return parser


async def _serve(arguments: argparse.Namespace) -> int:
    _check(arguments)
    store, ledger, plan = MailStore(seed=arguments.seed), Ledger(), Plan(arguments.seed)
    connections: set[asyncio.Transport] = set()
    if arguments.config is not None:
        _configure(arguments.config, store, plan)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    factories: dict[str, Factory] = {
        "smtp": functools.partial(SmtpConnection, Handler(store, ledger, plan, connections), loop),
        "imap": functools.partial(ImapConnection, store, ledger, plan, connections),
    }
    async with contextlib.AsyncExitStack() as opened:
        facts = await _open(arguments, factories, application(store, ledger, plan), opened)
        _announce(facts, arguments.ready_file)
        await stop.wait()
        for transport in tuple(connections):
            transport.abort()
    return 0


async def _open(
    arguments: argparse.Namespace,
    factories: dict[str, Factory],
    control: web.Application,
    opened: contextlib.AsyncExitStack,
) -> dict[str, Any]:
    """Listen on all five ports; ``opened`` closes what was opened, also if a later port is taken."""
    host, tls = arguments.host, _tls(arguments.host)
    facts: dict[str, Any] = {"pid": os.getpid()}
    for name, factory in factories.items():
        for port_name, context in ((name, None), (f"{name}s", tls)):
            start = functools.partial(_listen, factory, host, context)
            server = await _bind(port_name, host, getattr(arguments, f"{port_name}_port"), start)
            opened.callback(server.close)
            facts[port_name] = {"host": host, "port": server.sockets[0].getsockname()[1]}
    runner = web.AppRunner(control, access_log=None)
    await runner.setup()
    opened.push_async_callback(runner.cleanup)
    port = await _bind("control", host, arguments.control_port, functools.partial(_site, runner, host))
    return facts | {"control": f"http://{host}:{port}"}


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what would fail later, half-way up."""
    for name in PORTS:
        port = getattr(arguments, f"{name}_port")
        if not 0 <= port <= 65_535:  # noqa: PLR2004  # a port has 16 bits
            raise ConfigError(f"--{name}-port {port}: allowed: 0 to 65535, 0 means a free one")
    path = arguments.ready_file
    if path is not None and not os.access(path.absolute().parent, os.W_OK):
        raise ConfigError(f"--ready-file {path}: no file can be made there")


async def _bind(name: str, host: str, port: int, start: Any) -> Any:
    try:
        return await start(port)
    except OSError as err:
        # A name that is not found has an errno of its own numbering.
        named = isinstance(err, socket.gaierror)
        text = err.strerror if named or not err.errno else os.strerror(err.errno)
        wish = "choose another --host" if named else f"choose another --{name}-port, or 0"
        raise ConfigError(f"{host}:{port} can't be bound ({text}); {wish}") from err


async def _listen(factory: Factory, host: str, context: ssl.SSLContext | None, port: int) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(factory, host, port, ssl=context, backlog=512)


async def _site(runner: web.AppRunner, host: str, port: int) -> int:
    await web.TCPSite(runner, host, port).start()
    return int(runner.addresses[0][1])


def _tls(host: str) -> ssl.SSLContext:
    """A certificate of our own for this process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(host, "localhost").configure_cert(context)
    return context


def _announce(facts: dict[str, Any], path: Path | None) -> None:
    for name in PORTS:
        where = facts[name] if name == "control" else f"{facts[name]['host']}:{facts[name]['port']}"
        print(f"{name:8} {where}", flush=True)
    if path is None:
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        json.dump(facts, file)
    Path(temporary).replace(path)


def _configure(path: Path, store: MailStore, plan: Plan) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        config = tomllib.loads(text)
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: {err}") from err
    except tomllib.TOMLDecodeError as err:
        line = re.search(r"line (\d+)", str(err))
        raise ConfigError(f"{path}:{line[1] if line else len(text.splitlines())}: {err}") from err
    try:
        _apply(config, store, plan)
    except FaultError as err:
        raise ConfigError(f"{path}:{_line(text, err.where)}: {err}") from err


def _apply(config: dict[str, Any], store: MailStore, plan: Plan) -> None:
    for name, value in config.items():
        if name not in {"user", "fault"} or not isinstance(value, list):
            raise FaultError(where=name, problem="not known", allowed="[[user]], [[fault]]")
    for number, user in enumerate(config.get("user", [])):
        _add_user(f"user[{number}]", user, store)
    plan.replace(parse_faults(config.get("fault", []), where="fault"))


def _add_user(where: str, user: Any, store: MailStore) -> None:
    if not isinstance(user, dict) or not {"address", "password"} <= user.keys() <= {"address", "password", "seed"}:
        raise FaultError(
            where=where, problem="not these keys", allowed="address and password (text), seed (messages in INBOX)"
        )
    count = user.get("seed", 0)
    if not isinstance(count, int) or isinstance(count, bool):
        raise FaultError(where=f"{where}.seed", problem=f"{count!r} given", allowed="a whole number")
    try:
        account = store.add_user(str(user["address"]), str(user["password"]))
    except MailboxError as err:
        raise FaultError(where=f"{where}.address", problem=str(err), allowed="ann@example.com") from err
    try:
        store.seed_folder(account.folder("INBOX"), count=count, seed=None, profile="small")
    except MailboxError as err:
        raise FaultError(where=f"{where}.seed", problem=str(err), allowed="a whole number") from err


def _line(text: str, where: str) -> int:
    """The line of ``fault[1].when.first`` in the file: of the key if it is found, else of its table, else 1."""
    named = re.match(r"(\w+)(?:\[(\d+)\])?(?:\.(\w+))?", where)
    table, index, key = named.groups("") if named else ("", "", "")
    heads = [at for at, name in _heads(text) if name == table]
    if not heads:
        plain = (n for n, line in enumerate(text.splitlines(), 1) if re.match(rf"\s*\[*{table}\b", line))
        return next(plain, 1)
    first = heads[min(int(index or 0), len(heads) - 1)]
    last = next((at for at, _ in _heads(text) if at > first), len(text.splitlines()) + 1)
    for number, line in enumerate(text.splitlines()[first : last - 1], first + 1):
        if key and re.match(rf"\s*{key}\s*=", line):
            return number
    return first


def _heads(text: str) -> Iterator[tuple[int, str]]:
    """(line, name) of each ``[[name]]``."""
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[\[(\w+)\]\]", line):
            yield number, head[1]


if __name__ == "__main__":
    sys.exit(main())
