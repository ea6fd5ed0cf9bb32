"""docker-compose.yml as a value: variables resolved, anchors merged, numbers as numbers.

Owns reading; judges nothing. Called by compose_rules and test_compose.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docker-compose.yml"
#: A variable's form in the file: ${NAME}, ${NAME-default}, ${NAME:-default}; $$ is a dollar.
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?-)([^}]*))?\})")
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def dotenv():
    """What .env gives."""
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def read(environ=None, path=PATH):
    """The file as Compose reads it with .env and that environment."""
    given = {**dotenv(), **(environ or {})}
    return yaml.safe_load(resolved(path.read_text(), given))


def resolved(text, given):
    """The text with every variable in its place."""

    def value(match):
        dollar, name, operator, default = match.groups()
        if dollar:
            return "$$"
        found = given.get(name)
        return default or "" if found is None or (operator == ":-" and not found) else found

    return _VARIABLE.sub(value, text)


def profiles(service):
    return set(service.get("profiles", ()))


def enabled(compose, chosen):
    """The services that come up with these profiles."""
    return {n: s for n, s in compose["services"].items() if not profiles(s) or profiles(s) & set(chosen)}


def mib(text):
    """A size as Compose writes it, in MiB."""
    number, unit = re.fullmatch(r"(\d+)([bkmg]?)b?", str(text).lower()).groups()
    return int(number) * _UNITS[unit] / 2**20


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()
    return int(number) * _SECONDS[unit]


def needs(service):
    """What it waits for, with the condition."""
    return {name: how["condition"] for name, how in service.get("depends_on", {}).items()}


def published(service):
    """Address (none is every one), port of the host, port of the container, of what it publishes."""
    parts = (f"::{port}".rsplit(":", 2) for port in service.get("ports", ()))
    return [(address.lstrip(":"), outside, inside) for address, outside, inside in parts]


def mounts(service):
    """Source, target and mode of its volumes."""
    return [(*volume.split(":"), "rw")[:3] for volume in service.get("volumes", ())]


def environment(service):
    return {name: "" if value is None else str(value) for name, value in service.get("environment", {}).items()}
