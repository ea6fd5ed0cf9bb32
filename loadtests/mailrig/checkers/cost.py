"""What work costs: CPU time of the worker's processes, by execution. It is steadier than time on the clock.

Pure. Called through ``METRICS``.
"""

from __future__ import annotations

import math
from collections import defaultdict

from mailrig.checkers.measurement import Measurement, Sample, nothing
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

#: Between them the load goes on; the warm-up before is left out.
_FROM, _UNTIL = "load", "heal"


def cpu_per_execution(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """CPU seconds of all worker processes between the first and the last reading under load, by execution begun then.

    Celery's own share is in it: receiving, acknowledging, storing the result. A process that came later counts from
    nothing, so what it costs to recycle one is in it too.
    """
    readings = _readings(evidence)
    if len(readings) < 2:  # noqa: PLR2004  # a difference needs two
        return nothing("no readings of CPU time under load")
    first_ns, last_ns = readings[0]["time_ns"], readings[-1]["time_ns"]
    begun = sum(first_ns <= row["started_ns"] < last_ns for row in evidence.executions)
    if not begun:
        return nothing("no execution began under load")
    spent_s = _spent_s(readings)
    note = f"{spent_s:.2f} s of CPU time, {begun} executions in {(last_ns - first_ns) / 1e9:.1f} s"
    return Measurement(samples=(Sample(value=spent_s / begun, note=note),), kind="s", examples=(note,))


def _readings(evidence: Evidence) -> list[Row]:
    """The samples under load that tell CPU times: those of a stack of others may not."""
    phases = {op.value.get("name"): op.time_ns for op in evidence.history if op.f == "phase"}
    if _FROM not in phases or _UNTIL not in phases:
        return []
    return [
        row
        for row in sorted(evidence.memory, key=lambda row: row["time_ns"])
        if phases[_FROM] <= row["time_ns"] <= phases[_UNTIL]
        and row.get("processes")
        and all("cpu_s" in process for process in row["processes"])
    ]


def _spent_s(readings: list[Row]) -> float:
    before = {process["pid"]: process["cpu_s"] for process in readings[0]["processes"]}
    latest: dict[int, float] = defaultdict(float)
    for row in readings:
        for process in row["processes"]:
            latest[process["pid"]] = max(latest[process["pid"]], process["cpu_s"])
    return math.fsum(cpu_s - before.get(pid, 0.0) for pid, cpu_s in latest.items())
