"""Writes the dashboards, rules and alerts where they are committed: ``python -m mailboards``, or with another folder.

The only module here that writes. Called by ``make dashboards``; the test compares ``files`` with what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from mailboards import cases, grafana, mail, overview, queue, runs, worker
from mailboards.alerts import ALERTS, Alert
from mailboards.board import Board
from mailboards.promises import ROOT
from mailboards.rules import RULES

BOARDS: Final[tuple[Board, ...]] = (overview.BOARD, worker.BOARD, queue.BOARD, mail.BOARD, runs.BOARD)
_HEAD: Final = "# Written by `make dashboards` from dashboards/mailboards/{module}.py: change it there.\n"
#: As often as Prometheus scrapes.
_EVERY: Final = "5s"


def files() -> Iterator[tuple[Path, str]]:
    """Every file, below the dashboards' folder, with its text."""
    for board in BOARDS:
        yield Path("grafana") / f"{board.uid.removeprefix('mailrig-')}.json", grafana.draw(board)
    rules = [{"record": rule.series.name, "expr": rule.expr} for rule in RULES]
    yield Path("prometheus/rules.yml"), _group("rules", rules)
    yield Path("prometheus/alerts.yml"), _group("alerts", [_alert(alert) for alert in ALERTS])
    yield Path("prometheus/rules_test.yml"), _yaml("cases", cases.document())


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": alert.runbook,
        },
    }


def _group(name: str, rules: Sequence[Mapping[str, Any]]) -> str:
    groups = {"groups": [{"name": f"mail-{name}", "interval": _EVERY, "rules": list(rules)}]}
    return _yaml(name, groups)


def _yaml(module: str, value: Mapping[str, Any]) -> str:
    return _HEAD.format(module=module) + yaml.safe_dump(value, sort_keys=False, width=110, allow_unicode=True)


def main(argv: Sequence[str]) -> int:
    """Write all; answers the exit code."""
    folder = Path(argv[0]) if argv else ROOT / "dashboards"
    for path, text in files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
