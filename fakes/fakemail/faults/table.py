"""The catalogue of faults as Markdown, made from the rows that the code runs on.

Owns: how points, actions, schedules, scopes, ways to spoil mail and presets are shown. Never does: files.
Called by: ``python -m fakemail.faults`` and the test that compares it with fakes/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from fakemail.faults.actions import ACTIONS
from fakemail.faults.garble import GARBLES
from fakemail.faults.model import Fault
from fakemail.faults.points import MATCH_KEYS, POINTS, Point
from fakemail.faults.presets import PRESETS
from fakemail.faults.schedules import SCHEDULES
from fakemail.faults.scopes import SCOPES

#: Between them fakes/README.md holds what ``markdown`` gives.
BEGIN = "<!-- faults:begin -->"
END = "<!-- faults:end -->"


def markdown() -> str:
    """All tables."""
    return "\n\n".join("\n".join(section) for section in _sections()) + "\n"


def _sections() -> Iterator[Iterable[str]]:
    points = [
        (_code(name), point.event, _codes(point.match), _actions(point), _reply(point))
        for name, point in POINTS.items()
    ]
    yield [
        "### Points: where a fault happens",
        "",
        *_table(("point", "event", "match", "actions", "a reply is"), points),
    ]
    keys = [(_code(name), words) for name, words in MATCH_KEYS.items()]
    yield [
        "### Match: for whom",
        "",
        'A pattern in shell style (`*`, `?`, `[seq]`), in any case of letters: `*` wants something, `""` nothing,',
        "and the folder `[Gmail]/All Mail` is `[[]Gmail]/All Mail`.",
        "",
        *_table(("key", "what it is compared with"), keys),
    ]
    whens = [(_code(name), each.form, each.words) for name, each in SCHEDULES.items()]
    yield ["### When: which of the events that match", "", *_table(("when", "argument", "hits"), whens)]
    scopes = [(_code(name), each.words) for name, each in SCOPES.items()]
    yield ["### Scope: what is counted together", "", *_table(("scope", "counts"), scopes)]
    actions = [(_code(name), each.form, each.words, _codes(each.beside)) for name, each in ACTIONS.items()]
    yield ["### Actions: what happens", "", *_table(("action", "argument", "the server", "beside"), actions)]
    garbles = [(_code(name), each.words) for name, each in GARBLES.items()]
    yield ["### Garble: how a message is spoilt", "", *_table(("garble", "the client gets"), garbles)]
    presets = [
        (_code(name), each.sentence, "<br>".join(map(_said, each.faults)), _report(each.report))
        for name, each in PRESETS.items()
    ]
    yield ["### Presets: faults that somebody met", "", *_table(("preset", "what it plays", "faults", "from"), presets)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names))


def _actions(point: Point) -> str:
    """The actions of a point; in brackets the only name that an action takes here."""
    only = {name: f" ({_codes(names)})" for name, names in point.names.items() if len(names) == 1}
    return ", ".join(_code(name) + only.get(name, "") for name in point.actions)


def _reply(point: Point) -> str:
    return point.reply.form.partition(", such as")[0] if point.reply else ""


def _said(fault: Fault) -> str:
    """A fault without its id, as a TOML inline table."""
    return _code(_toml({key: value for key, value in fault.as_dict().items() if key != "id"}))


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(each)}' for key, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _report(report: str) -> str:
    """A link to an issue, or the RFC as it is."""
    repository, is_issue, number = report.partition("#")
    return f"[{report}](https://github.com/{repository}/issues/{number})" if is_issue else report
