"""What scenarios there are: what each proves, how long it takes, by which gates. Reads their files; runs nothing.

Called by cli, for ``mailrig scenarios``.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailrig.scenario import Scenario, full_lengths, load_scenario, scenario_names

#: A stack takes about so long to come up, and to be collected and judged, beside the load, seconds.
AROUND_S: Final = 20.0
_MINUTE_S: Final = 120.0
_NAME_WIDTH: Final = 17


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A scenario, and its full length where it has one."""

    scenario: Scenario
    full: Scenario | None

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        scenario = self.scenario
        return {
            "name": scenario.name,
            "proves": scenario.description,
            "load_s": scenario.load.total_s,
            "seconds": _seconds(scenario),
            "full_load_s": self.full.load.total_s if self.full else None,
            "full_seconds": _seconds(self.full) if self.full else None,
            "time_scale": scenario.system.time_scale,
            "nemesis": sorted({action.action for action in scenario.nemesis}),
            "validity": [gate.id for gate in scenario.gates if gate.kind == "validity"],
            "gates": [gate.id for gate in scenario.gates if gate.kind == "gate"],
        }


def entries() -> list[Entry]:
    """All that ship with the rig.

    Raises:
        ScenarioError: one of their files is wrong.
    """
    return [Entry(scenario=load_scenario(name), full=full_lengths(name)) for name in scenario_names()]


def as_text(found: Sequence[Entry], *, width: int) -> str:
    """For people: name, times, number of gates, and below them what it proves."""
    head = f"{'scenario':{_NAME_WIDTH}} {'takes':>7} {'--full':>7} {'gates':>6}  what it proves"
    return "\n".join([head, *(_row(entry, width) for entry in found)])


def _row(entry: Entry, width: int) -> str:
    facts = entry.to_dict()
    full_s = facts["full_seconds"]
    start = (
        f"{facts['name']:{_NAME_WIDTH}} {_said(facts['seconds']):>7} {_said(full_s) if full_s else '-':>7} "
        f"{len(facts['gates']):>6}  "
    )
    return textwrap.fill(
        start + facts["proves"],
        width=max(width, len(start) + 30),
        subsequent_indent=" " * len(start),
        drop_whitespace=True,
    )


def as_json(found: Sequence[Entry]) -> str:
    """For machines."""
    return json.dumps([entry.to_dict() for entry in found], indent=2)


def _seconds(scenario: Scenario) -> float:
    """About how long a run takes on a machine that keeps up; one that doesn't may take the drain's time on top."""
    return scenario.load.total_s + AROUND_S


def _said(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < _MINUTE_S else f"{seconds / 60:.0f} min"
