"""How options are written, and the help text.

Owns: the parser of the servers, the form of every other. Never does: import a server, so that help comes at once.
Called by: options, ``__main__``. Every mistake is one line that says what was wrong and what would be right.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Final, NoReturn

from fakemail import FakemailError
from fakemail.client import PORTS

_DESCRIPTION: Final = """
Fake IMAP and SMTP servers for tests: deterministic mail, faults as data, and a
ledger of everything that happened.
"""
_EPILOG: Final = """
commands (each has --help of its own):
  fakemail faults              the catalogue: points, actions, presets
  fakemail check F.toml        is this configuration right?
  fakemail ledger              what happened in a running fakemail; --follow
  fakemail seed ADDRESS COUNT  put mail into a running fakemail
  fakemail message             print a synthesised message

examples:
  fakemail
      all five ports on 127.0.0.1: GreenMail's where it has them
  fakemail --user ann@example.com:secret --mail ann@example.com=1000
      a user with a thousand messages, the same on every machine
  fakemail --free-ports --ready-file up.json
      free ports; up.json says which, once they serve
  fakemail --preset greylisting --preset slow-imap
      well-known troubles, from the first connection on
  fakemail --config fakes.toml
      users, mail and faults in a file:

      [[user]]
      address = "ann@example.com"
      password = "secret"
      seed = 20                 # messages in INBOX

      [[fault]]
      id = "greylist"
      point = "smtp.rcpt"
      when = { first = 3 }
      action = { reply = "451 4.7.1 Try again later" }

exit codes: 0 stopped by a signal, or done; 1 a running fakemail refused or did
not answer; 2 wrong use (an option, a file, a port that is taken)
"""
_OFTEN: Final = "(what takes a value here, a number or --config apart, may be given often)"
_PORT_MAX: Final = 65_535
_UNNAMED: Final = object()


class UsageError(FakemailError):
    """An option can't be used."""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The options of the servers."""
    made = Parser(
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
    _mail_options(made.add_argument_group("mail and faults at the start", _OFTEN))
    _tls_options(made.add_argument_group("TLS and what the servers can", _OFTEN))
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
    group.add_argument("--refuse-domain", action="append", default=[], metavar="D", help="refuse its recipients")
    group.add_argument(
        "--trace-headers", action="store_true", help="begin delivered mail with Return-Path and Received"
    )
    group.add_argument(
        "--idle-timeout",
        dest="idle_timeout_s",
        type=_limit,
        metavar="S",
        help="seconds until a silent IMAP client must go",
    )
    group.add_argument("--connections", type=_limit, metavar="N", help="so many at once, in all")
    group.add_argument("--connections-per-user", type=_limit, metavar="N", help="so many at once, of one user")


def _port(text: str) -> int | None:
    if text == "off":
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: 0 to {_PORT_MAX}, 0 means a free one, or off")
    return int(text)


def _limit(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number from 1 up")
    return int(text)
