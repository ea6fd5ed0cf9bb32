"""What options mean: a configuration file, and over it what the command line says.

Owns: the way from words to ``serving.Options``. Never does: serving, printing. Called by: ``__main__``.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from fakemail.client import PORTS
from fakemail.command_line.parser import UsageError
from fakemail.config import Config, FolderConfig, Seeding, ServerConfig, UserConfig, read_config
from fakemail.faults import IMAP_CAPABILITIES, SMTP_KEYWORDS, preset
from fakemail.serving import FREE_PORTS, Options
from fakemail.smtp_server import SmtpOptions

#: A user, and perhaps a folder.
_PLACE: Final = r"([^:=@]+@[^:=@]+)(?::([^=]+))?"


def options(given: argparse.Namespace) -> Options:
    """What the servers shall be; raises UsageError, or ConfigError for a broken file."""
    _check_paths(given)
    ports: dict[str, int | None] = dict(FREE_PORTS if given.free_ports else PORTS)
    for name in PORTS:
        if hasattr(given, f"{name}_port"):
            ports[name] = getattr(given, f"{name}_port")
    smtp = SmtpOptions(
        login_required=given.require_login,
        refused_domains=frozenset(name.lower() for name in given.refuse_domain),
        trace_headers=given.trace_headers,
    )
    return Options(host=given.host, ports=ports, config=_config(given), smtp=smtp, tls_names=tuple(given.tls_name))


def _config(given: argparse.Namespace) -> Config:
    """What the file says, and over it what the options say."""
    config = Config() if given.config is None else read_config(given.config)
    faults = {fault.id: fault for fault in config.faults}
    faults |= {fault.id: fault for name in given.preset for fault in preset(name, where="--preset")}
    names = ("connections", "connections_per_user", "idle_timeout_s")
    limits = {name: value for name in names if (value := getattr(given, name)) is not None}
    return replace(
        config,
        seed=config.seed if given.seed is None else given.seed,
        users=_users(given, config.users),
        faults=tuple(faults.values()),
        limits=replace(config.limits, **limits),
        imap=_server(config.imap, given, "imap"),
        smtp=_server(config.smtp, given, "smtp"),
    )


def _server(said: ServerConfig, given: argparse.Namespace, name: str) -> ServerConfig:
    """What both servers have is taken from both."""
    by_upper = {each.upper(): each for each in (*IMAP_CAPABILITIES, *SMTP_KEYWORDS)}
    if unknown := [each for each in given.without if each.upper() not in by_upper]:
        allowed = ", ".join(sorted(by_upper.values()))
        raise UsageError(f"--without {unknown[0]}: not known; allowed: {allowed}")
    own = IMAP_CAPABILITIES if name == "imap" else SMTP_KEYWORDS
    off = {by_upper[each.upper()] for each in given.without} & set(own)
    return replace(said, without=said.without | off, require_tls=said.require_tls or given.require_tls)


def _users(given: argparse.Namespace, users: Sequence[UserConfig]) -> tuple[UserConfig, ...]:
    """The users of the file and of the options, each with all its folders."""
    made = {user.address.lower(): user for user in users}
    for text in given.user:
        address, password = _split(text, r"([^:@]+@[^:@]+):(.+)", "--user", "ann@example.com:secret")
        known = made.get(address.lower()) or UserConfig(address=address, password=password, where=f"--user {address}")
        made[address.lower()] = replace(known, password=password)
    for option, pattern, example in (("--mail", r"[0-9]{1,8}", "1000"), ("--load", r".+", "mail.mbox")):
        for text in getattr(given, option[2:]):
            parts = _split(text, rf"{_PLACE}=({pattern})", option, f"ann@example.com:INBOX={example}")
            address, name, value = parts
            if address.lower() not in made:
                raise UsageError(f"{option} {text}: no user {address}; allowed: those of --user and --config")
            folder = FolderConfig(name=name or "INBOX", where=f"{option} {text}")
            content = {"load": Path(value)} if option == "--load" else {"seeding": Seeding(count=int(value))}
            user = made[address.lower()]
            made[address.lower()] = replace(user, folders=(*user.folders, replace(folder, **content)))
    return tuple(made.values())


def _split(text: str, pattern: str, option: str, example: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text, re.DOTALL)
    if not found:
        # What is wrong may hold a password.
        shown = "" if option == "--user" else f" {text}"
        raise UsageError(f"{option}{shown}: not of this form; allowed: such as {option} {example}")
    return tuple(group or "" for group in found.groups())


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
