"""The form of a configuration file.

Owns: which tables and keys there are, and what each may say. Never does: bringing any of it in (start does).
Called by: ``__main__``, and whoever starts the servers in Python.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from fakemail.config.lines import Lines
from fakemail.config.model import (
    Config,
    ConfigError,
    FolderConfig,
    LimitsConfig,
    Seeding,
    ServerConfig,
    Timeline,
    UserConfig,
)
from fakemail.faults import IMAP_CAPABILITIES, SMTP_KEYWORDS, Fault, FaultError, checks, parse_faults
from fakemail.faults.errors import suggestion
from fakemail.mailbox import SEED_COUNT_MAX, canonical
from fakemail.synthesis import PROFILES
from fakemail.timeline import Weights

_ADDRESS: Final = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_WEIGHTS: Final = tuple(each.name for each in fields(Weights))
#: More of these is a slip of the keyboard.
_WEIGHT_MAX, _STEPS_MAX, _PER_S_MAX, _GAPS_MAX = 1_000, 1_000_000, 1_000, 1_000
#: Lines and literals: smaller ones hold no command, larger ones are for no memory.
_BYTES_MIN, _BYTES_MAX = 512, 1 << 30
_SEED_MAX: Final = 2**63 - 1
#: What there is at the top, as it is written.
_TOP: Final = {
    "user": "[[user]]", "fault": "[[fault]]", "presets": "presets = [...]", "limits": "[limits]", "imap": "[imap]",
    "smtp": "[smtp]", "seed": "seed = N",
}  # fmt: skip
#: What a folder may hold.
_CONTENT: Final = ("seed", "load", "timeline")
_USER: Final = "address and password (text), and also token, seed, load, timeline, [[user.folder]]"


def read_config(path: Path) -> Config:
    """The configuration of a file; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: {err}; allowed: TOML in UTF-8") from err
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> Config:
    """The configuration that a text says; ``where`` is the path of its file: errors name it, ``load`` is beside it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        line = re.search(r"line (\d+)", str(err))
        raise ConfigError(f"{where}:{line[1] if line else len(text.splitlines()) or 1}: {err}") from err
    reader = _Reader(text, where)
    try:
        return reader.config(data)
    except FaultError as err:
        raise ConfigError(f"{reader.place(err.where, err.key)}: {err}") from err


class _Reader:
    """Reads the tables of one file, and knows the line of each."""

    def __init__(self, text: str, where: str) -> None:
        self._file, self._lines = where, Lines(text)

    def place(self, where: str, key: str = "") -> str:
        return f"{self._file}:{self._lines.find(where, key)}"

    def config(self, data: Mapping[str, Any]) -> Config:
        for name in data:
            if name not in _TOP:
                problem = f"not known{suggestion(name, _TOP)}"
                raise FaultError(where=name, problem=problem, allowed=", ".join(_TOP.values()))
        return Config(
            seed=_seed(data, "seed"),
            users=self._users(_tables(data, "user")),
            faults=_faults(data),
            limits=_limits(data.get("limits", {}), "limits"),
            imap=_server(data.get("imap", {}), "imap", IMAP_CAPABILITIES),
            smtp=_server(data.get("smtp", {}), "smtp", SMTP_KEYWORDS),
        )

    def _users(self, tables: list[Any]) -> tuple[UserConfig, ...]:
        users: dict[str, UserConfig] = {}
        for index, table in enumerate(tables):
            user = self._user(table, f"user[{index}]")
            if user.address.lower() in users:
                where = f"user[{index}].address"
                raise FaultError(where=where, problem=f"{user.address!r} is taken", allowed="each user once")
            users[user.address.lower()] = user
        return tuple(users.values())

    def _user(self, table: Any, where: str) -> UserConfig:
        required, optional = ("address", "password"), ("token", *_CONTENT, "folder")
        given = checks.table(table, where=where, required=required, optional=optional, allowed=_USER)
        address = checks.text(given["address"], where=f"{where}.address")
        if not _ADDRESS.fullmatch(address):
            problem = f"{address!r} is not an address"
            raise FaultError(where=f"{where}.address", problem=problem, allowed="local-part@domain in ASCII")
        return UserConfig(
            address=address,
            password=_secret(given["password"], f"{where}.password"),
            token=_secret(given["token"], f"{where}.token") if "token" in given else None,
            folders=self._folders(given, where),
            where=self.place(where),
        )

    def _folders(self, user: Mapping[str, Any], where: str) -> tuple[FolderConfig, ...]:
        """What the user's table says of INBOX, then the folders of its own."""
        inbox = {key: value for key, value in user.items() if key in _CONTENT}
        folders = {"INBOX": self._folder({"name": "INBOX"} | inbox, where)} if inbox else {}
        for index, table in enumerate(_tables(user, "folder", where=f"{where}.folder", form="[[user.folder]]")):
            folder = self._folder(table, f"{where}.folder[{index}]")
            if folder.name in folders:
                place = f"{where}.folder[{index}].name"
                raise FaultError(where=place, problem=f"{folder.name!r} is taken", allowed="each folder once")
            folders[folder.name] = folder
        return tuple(folders.values())

    def _folder(self, table: Any, where: str) -> FolderConfig:
        given = checks.table(table, where=where, required=("name",), optional=_CONTENT)
        beside = Path(self._file).parent
        return FolderConfig(
            name=canonical(checks.text(given["name"], where=f"{where}.name")),
            seeding=_seeding(given["seed"], f"{where}.seed") if "seed" in given else None,
            load=beside / checks.text(given["load"], where=f"{where}.load") if "load" in given else None,
            timeline=_timeline(given["timeline"], f"{where}.timeline") if "timeline" in given else None,
            where=self.place(where),
        )


def _tables(data: Mapping[str, Any], name: str, *, where: str = "", form: str = "") -> list[Any]:
    """An array of tables; empty where it is not there."""
    value = data.get(name, [])
    if not isinstance(value, list):
        problem = f"{checks.kind_of(value)} given"
        raise FaultError(where=where or name, problem=problem, allowed=f"{form or _TOP[name]}, one for each")
    return value


def _faults(data: Mapping[str, Any]) -> tuple[Fault, ...]:
    own = parse_faults(_tables(data, "fault"), where="fault")
    names = data.get("presets", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problem = f"{checks.kind_of(names)} given"
        raise FaultError(where="presets", problem=problem, allowed='a list of names, such as ["greylisting"]')
    borrowed = parse_faults(names, where="presets")
    if taken := {fault.id for fault in own} & {fault.id for fault in borrowed}:
        problem = f"{min(taken)!r} is the id of a [[fault]] too"
        raise FaultError(where="presets", problem=problem, allowed="an id of its own")
    return own + borrowed


def _secret(value: object, where: str) -> str:
    """Text that is not empty; what was given instead is told to nobody."""
    if not isinstance(value, str) or not value:
        raise FaultError(where=where, problem="no text given", allowed="text that is not empty")
    return value


def _seed(given: Mapping[str, Any], where: str) -> int | None:
    return checks.count(given["seed"], where=where, least=0, most=_SEED_MAX) if "seed" in given else None


def _seeding(value: object, where: str) -> Seeding:
    """``20``, or a table that says more."""
    if not isinstance(value, dict):
        if not isinstance(value, int) or isinstance(value, bool):
            allowed = "a whole number, or { count = N, seed = N, profile = NAME, gaps = N }"
            raise FaultError(where=where, problem=f"{value!r} given", allowed=allowed)
        return Seeding(count=checks.count(value, where=where, least=0, most=SEED_COUNT_MAX))
    given = checks.table(value, where=where, required=("count",), optional=("seed", "profile", "gaps"))
    return Seeding(
        count=checks.count(given["count"], where=f"{where}.count", least=0, most=SEED_COUNT_MAX),
        seed=_seed(given, f"{where}.seed"),
        profile=checks.one_of(given.get("profile", "small"), where=f"{where}.profile", known=tuple(PROFILES)),
        gaps=checks.count(given.get("gaps", 0), where=f"{where}.gaps", least=0, most=_GAPS_MAX),
    )


def _timeline(value: object, where: str) -> Timeline:
    given = checks.table(value, where=where, optional=("steps", "per_s", "profile", *_WEIGHTS))
    weights = {
        name: checks.count(given[name], where=f"{where}.{name}", least=0, most=_WEIGHT_MAX)
        for name in _WEIGHTS
        if name in given
    }
    return Timeline(
        steps=checks.count(given.get("steps", 0), where=f"{where}.steps", least=0, most=_STEPS_MAX),
        per_s=checks.number(given.get("per_s", 0), where=f"{where}.per_s", least=0, most=_PER_S_MAX),
        weights=Weights(**weights),
        profile=checks.one_of(given.get("profile", "small"), where=f"{where}.profile", known=tuple(PROFILES)),
    )


def _limits(value: object, where: str) -> LimitsConfig:
    given = checks.table(value, where=where, optional=tuple(each.name for each in fields(LimitsConfig)))
    read: dict[str, Any] = {}
    for name, limit in given.items():
        place = f"{where}.{name}"
        if name == "idle_timeout_s":
            read[name] = checks.number(limit, where=place, least=0, above=True)
        elif name.endswith("_bytes"):
            read[name] = checks.count(limit, where=place, least=_BYTES_MIN, most=_BYTES_MAX)
        else:
            read[name] = checks.count(limit, where=place, least=1)
    return LimitsConfig(**read)


def _server(value: object, where: str, known: Collection[str]) -> ServerConfig:
    given = checks.table(value, where=where, optional=("without", "require_tls"))
    without = given.get("without", [])
    names = () if without == [] else checks.some_of(without, where=f"{where}.without", known=known)
    return ServerConfig(
        without=frozenset(names),
        require_tls=checks.switch(given.get("require_tls", False), where=f"{where}.require_tls"),
    )
