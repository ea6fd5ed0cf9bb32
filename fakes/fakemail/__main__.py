"""python -m fakemail: the fake servers as a process of their own."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import signal
import ssl
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trustme
from aiohttp import web

from fakemail import FakemailError
from fakemail.control import application
from fakemail.faults import Plan, parse_faults
from fakemail.imap_server import ImapConnection
from fakemail.mailbox import Ledger, MailStore
from fakemail.smtp_server import Handler, SmtpConnection

#: GreenMail's ports, so that one can stand in for the other.
PORTS: Final = {"smtp": 3025, "smtps": 3465, "imap": 3143, "imaps": 3993, "control": 3080}
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
    store, ledger, plan = MailStore(seed=arguments.seed), Ledger(), Plan(arguments.seed)
    if arguments.config is not None:
        _configure(arguments.config, store, plan)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    smtp = functools.partial(SmtpConnection, Handler(store, ledger, plan), loop)
    imap = functools.partial(ImapConnection, store, ledger, plan)
    tls = _tls(arguments.host)
    facts: dict[str, Any] = {"pid": os.getpid()}
    servers = []
    for name, factory, context in (
        ("smtp", smtp, None),
        ("smtps", smtp, tls),
        ("imap", imap, None),
        ("imaps", imap, tls),
    ):
        port = getattr(arguments, f"{name}_port")
        server = await _bind(
            name, arguments.host, port, lambda p, f=factory, c=context: _listen(f, arguments.host, p, c)
        )
        servers.append(server)
        facts[name] = {"host": arguments.host, "port": server.sockets[0].getsockname()[1]}
    runner = web.AppRunner(application(store, ledger, plan), access_log=None)
    await runner.setup()
    site = await _bind("control", arguments.host, arguments.control_port, lambda p: _site(runner, arguments.host, p))
    facts["control"] = f"http://{arguments.host}:{site}"
    _announce(facts, arguments.ready_file)
    await stop.wait()
    for server in servers:
        server.close()
    await runner.cleanup()
    return 0


async def _bind(name: str, host: str, port: int, start: Any) -> Any:
    try:
        return await start(port)
    except OSError as err:
        text = os.strerror(err.errno) if err.errno else str(err)
        raise ConfigError(f"{host}:{port} can't be bound ({text}); choose another --{name}-port, or 0") from err


async def _listen(factory: Any, host: str, port: int, context: ssl.SSLContext | None) -> asyncio.Server:
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
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: {err}") from err
    unknown = sorted(config.keys() - {"user", "fault"})
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)} is not known; allowed: [[user]], [[fault]]")
    for number, user in enumerate(config.get("user", [])):
        _add_user(path, number, user, store)
    plan.replace(parse_faults(config.get("fault", []), where=f"{path}: fault"))


def _add_user(path: Path, number: int, user: Any, store: MailStore) -> None:
    where = f"{path}: user[{number}]"
    if not isinstance(user, dict) or not {"address", "password"} <= user.keys() <= {"address", "password", "seed"}:
        raise ConfigError(f"{where}: allowed: address and password (text), seed (number of messages in INBOX)")
    account = store.add_user(str(user["address"]), str(user["password"]))
    if not isinstance(user.get("seed", 0), int):
        raise ConfigError(f"{where}.seed: allowed: a whole number")
    store.seed_folder(account.folder("INBOX"), count=user.get("seed", 0), seed=None, profile="small")


if __name__ == "__main__":
    sys.exit(main())
