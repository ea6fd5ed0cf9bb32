"""The catalogue: documented as it is, consistent in itself, and asked by the servers point by point."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fakemail
from fakemail.faults import (
    ACTIONS,
    GARBLES,
    IMAP_CAPABILITIES,
    POINTS,
    PRESETS,
    SCHEDULES,
    SCOPES,
    Action,
    parse_faults,
)
from fakemail.faults.points import MATCH_KEYS
from fakemail.faults.table import BEGIN, END, markdown
from fakemail.imap_protocol import CAPABILITIES

PACKAGE = Path(fakemail.__file__).parent
README = PACKAGE.parent / "README.md"


def test_the_readme_holds_the_tables_that_the_code_makes():
    text = README.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1, f"{README} must hold the tables between {BEGIN} and {END}"
    held = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert held == markdown().strip(), "python -m fakemail.faults prints what belongs between the two marks"


def test_the_example_of_the_readme_can_be_read():
    section = README.read_text(encoding="utf-8").partition("## Faults")[2]
    example = tomllib.loads(re.search(r"```toml\n(.*?)```", section, re.DOTALL)[1])
    (fault,) = parse_faults(example["fault"], where="fault")
    assert fault.as_dict() == example["fault"][0]


def test_the_module_prints_them():
    command = [sys.executable, "-m", "fakemail.faults"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=PACKAGE.parent)
    assert done.stdout == markdown()


def test_every_name_of_the_catalogue_is_in_the_tables():
    for names in (POINTS, ACTIONS, SCHEDULES, SCOPES, GARBLES, PRESETS, MATCH_KEYS):
        for name in names:
            assert f"| `{name}` |" in markdown()


def test_a_cell_breaks_no_table():
    for line in markdown().splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
    widths = [line.count("|") for line in markdown().splitlines() if line.startswith("| `smtp.")]
    assert set(widths) == {6}


def test_the_rows_fit_together():
    for name, point in POINTS.items():
        assert set(point.match) <= set(MATCH_KEYS), name
        assert set(point.actions) <= set(ACTIONS), name
        assert ("reply" in point.actions) == (point.reply is not None), name
        assert set(point.names) == {"strip", "omit", "mailbox"} & set(point.actions), name
    for name, scope in SCOPES.items():
        assert any(set(scope.needs) <= set(point.match) for point in POINTS.values()), name
    for name, action in ACTIONS.items():
        assert any(name in point.actions for point in POINTS.values()), name
        assert set(action.beside) <= set(ACTIONS), name
        assert hasattr(Action(fault_id="x"), name)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_in_a_sentence_what_it_plays(name):
    preset = PRESETS[name]
    assert re.fullmatch(r"[A-Z].*\.", preset.sentence)
    assert re.fullmatch(r"|[\w.-]+/[\w.-]+#\d+|RFC \d+ section [\d.]+", preset.report)
    assert list(preset) == list(preset.faults) != []
    assert all(fault.id.startswith(name) for fault in preset)


def test_there_is_a_preset_for_each_kind_of_trouble():
    """Every point but the two without a report of their own, and every action, has somebody who met it."""
    faults = [fault for preset in PRESETS.values() for fault in preset]
    assert set(POINTS) - {fault.point for fault in faults} == {"smtp.quit", "imap.reply"}
    said = {name for fault in faults for name in fault.action.as_dict()}
    assert set(ACTIONS) - said == {"close"}


def test_what_can_be_stripped_is_what_the_servers_announce():
    assert set(IMAP_CAPABILITIES) == set(CAPABILITIES) - {"IMAP4rev1"}


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        if "faults" not in path.relative_to(PACKAGE).parts:
            yield path.read_text(encoding="utf-8")


@pytest.mark.parametrize("point", POINTS)
def test_a_server_asks_at_every_point(point):
    """A row without a ``decide`` would promise what nobody does."""
    protocol, _, event = point.partition(".")
    said = "\n".join(sources())
    # The TLS gate serves both protocols with one line.
    assert f'"{point}"' in said or re.search(rf'f"\{{[\w.]*(protocol|name)[\w.]*\}}\.{event}"', said), protocol
