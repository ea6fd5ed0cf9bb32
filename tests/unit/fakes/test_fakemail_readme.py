"""The fakes' README says what is so."""

from __future__ import annotations

import ast
import re
import shlex
import statistics
from pathlib import Path

import pytest

import fakemail
from fakemail import pytest_plugin
from fakemail.client import PORTS, FakeMail
from fakemail.command_line.commands import COMMANDS
from fakemail.command_line.parser import parser
from fakemail.config import parse_config
from fakemail.control.application import endpoint_table
from fakemail.imap_protocol import CAPABILITIES
from fakemail.ledger import RINGS
from fakemail.smtp_server import KEYWORDS
from fakemail.synthesis import PROFILES, Source

README = (Path(fakemail.__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def between(name):
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    assert README.count(begin) == README.count(end) == 1
    return README.partition(begin)[2].partition(end)[0].strip()


def section(title):
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text):
    """The names in the first column of a table."""
    return [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")]


def test_the_protocols_are_those_of_the_code():
    text = section("Protocols")
    assert re.findall(r"(?m)^\| `([^`]+)` \| (.+) \|$", text) == list(CAPABILITIES.items())
    assert f"with {', '.join(f'`{name}`' for name in KEYWORDS)};" in text


def test_the_table_of_endpoints_is_the_code():
    assert between("endpoints") == endpoint_table().strip()


@pytest.mark.parametrize("name", ["faults", "matrix", "speed"])
def test_the_places_that_others_fill_are_there(name):
    between(name)


def test_the_configuration_is_one():
    text = re.search(r"```toml\n(.*?)```", section("Configuration file"), re.DOTALL)[1]
    config = parse_config(text, "fakes.toml")
    (user,) = config.users
    assert {folder.name for folder in user.folders} == {"INBOX", "Archive/2024", "Inbound"}
    assert [fault.id for fault in config.faults] == ["maintenance", "greylisting"]


@pytest.mark.parametrize("line", re.findall(r"^\$ fakemail ?([^#\n]*)", README, re.MULTILINE))
def test_each_command_line_is_one(line):
    words = shlex.split(line)
    if words and words[0] in COMMANDS:
        return
    if words != ["--help"]:
        parser().parse_args(words)


def test_the_ports_are_the_code():
    text = section("Command line")
    assert ", ".join(f"{name.upper() if name != 'control' else name} {port}" for name, port in PORTS.items()) in text


def test_every_fixture_is_in_the_table_and_no_other():
    tree = ast.parse(Path(pytest_plugin.__file__).read_text(encoding="utf-8"))
    fixtures = {
        each.name
        for each in tree.body
        if isinstance(each, ast.FunctionDef) and any("fixture" in ast.unparse(mark) for mark in each.decorator_list)
    }
    told = {name for names in rows(section("Test your own retries with four lines of pytest")) for name in names}
    assert told == fixtures


def test_the_test_has_four_lines():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    (function,) = [each for each in ast.parse(code).body if isinstance(each, ast.FunctionDef)]
    assert function.end_lineno - function.lineno + 1 == 4


def test_the_client_has_every_method_that_is_shown():
    for block in re.findall(r"```python\n(.*?)```", section("Control API"), re.DOTALL):
        for name in re.findall(r"fakes\.(\w+)", block):
            assert hasattr(FakeMail, name), name


def test_every_kind_of_entry_is_in_the_table():
    told = {name for names in rows(section("Ledger")) for name in names}
    assert told == {kind for kinds, _ in RINGS.values() for kind in kinds}


def test_the_profiles_are_as_large_as_is_told():
    told = dict(re.findall(r"^\| `([\w-]+)` \| (\d+) kB", section("Mail"), re.MULTILINE))
    assert list(told) == list(PROFILES)
    for profile, kilobytes in told.items():
        source = Source(seed=1, address="ann@example.com", folder="INBOX", profile=profile)
        mean = statistics.mean(source.size(uid) for uid in range(1, 20_001))
        assert mean == pytest.approx(int(kilobytes) * 1000, rel=0.05)
