"""The committed dashboards, rules and alerts as they are read back, and a board's layout as text."""

import json
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "dashboards"
BOARD_FILES = sorted((FOLDER / "grafana").glob("*.json"))


@cache
def board(path):
    return json.loads(path.read_text())


def panels(path):
    """Panels without headings."""
    return [p for p in board(path)["panels"] if p["type"] != "row"]


def rules():
    return _rules("rules.yml")


def alerts():
    return _rules("alerts.yml")


def _rules(name):
    groups = yaml.safe_load((FOLDER / "prometheus" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def layout(path):
    """The grid, a line a panel: what a failure shows instead of a picture."""
    lines = [f"{board(path)['title']} ({path.name})"]
    for panel in sorted(board(path)["panels"], key=lambda p: (p["gridPos"]["y"], p["gridPos"]["x"])):
        at = panel["gridPos"]
        bar = " " * at["x"] + "#" * at["w"]
        lines.append(f"{at['y']:4} |{bar:24}| {at['h']:2} high  {panel['type']:10} {panel['title']}")
    return "\n".join(lines)
