"""A watch, judged: its gates, what could not be known, and what followed. Pure but for reading the folder.

Called by watching, and by cli for a folder that is judged again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mailrig.checkers import GateResult, Measurement, Verdict, conclude, judge_gates, validate_gates
from mailrig.evidence import EvidenceError, Row
from mailrig.watch.limits import (
    DEFAULT_GATES,
    NEEDED,
    GateFile,
    Limits,
    contract_of,
    default_gates,
    limits_of,
    load_gates,
    parse_gates,
)
from mailrig.watch.measure import METRICS
from mailrig.watch.seen import Seen, load_seen

#: In run.json, when the gates are the user's own.
GIVEN: Final = "given"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a watch came to."""

    verdict: Verdict
    limits: Limits
    #: What is not known, and why, or what else the reader should know.
    notes: tuple[str, ...]
    #: The file that its gates could be read from.
    gates_text: str


def judge_folder(folder: Path, gates: Path | None) -> Judged:
    """Judge what lies in a folder, by a file of gates, those it was watched for, or what the application declares.

    Raises:
        EvidenceError: it is no folder of a watch, or a line is torn.
        ScenarioError: the gates are wrong.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise EvidenceError(f"{folder / 'run.json'} can't be read: {folder} is no folder of a watch") from err
    file = gates or (folder / DEFAULT_GATES if run.get("gates") == GIVEN else None)
    return judge(load_seen(folder), run, load_gates(file) if file else None)


def judge(seen: Seen, run: Row, given: GateFile | None) -> Judged:
    """Judge what was seen. Pure."""
    limits = _with(limits_of(seen), given)
    file = given or parse_gates(default_gates(limits, every_s=run["every_s"]), DEFAULT_GATES)
    contract = contract_of(limits, file.file)
    validate_gates(file.gates, contract, file=file.file, known=METRICS)
    cache: dict[str, Measurement] = {}

    def measure(name: str) -> Measurement:
        if name not in cache:
            cache[name] = METRICS[name](seen, limits)
        return cache[name]

    results = judge_gates(file.gates, contract, measure)
    verdict = Verdict(
        verdict=_conclude(results, given),
        scenario=f"watch {seen.application['name']}",
        seed=0,
        mutant=None,
        started_ns=run["started_ns"],
        duration_s=(run.get("ended_ns", seen.last_ns) - run["started_ns"]) / 1e9,
        gates=results,
    )
    return Judged(verdict=verdict, limits=limits, notes=tuple(_notes(seen, limits)), gates_text=file.text)


def check_gates(given: GateFile) -> None:
    """Refuse gates that could never be judged, before anything is asked.

    Raises:
        ScenarioError: says which, at its line.
    """
    numbers = Limits(concurrency={"": 1}, multiplier={"": 1}, held_max=1, backoff={})
    validate_gates(given.gates, contract_of(numbers, given.file), file=given.file, known=METRICS)


def _with(limits: Limits, given: GateFile | None) -> Limits:
    if given is None:
        return limits
    held_max = limits.held_max if given.held_max is None else given.held_max
    return replace(limits, held_max=held_max, backoff={**limits.backoff, **given.backoff})


def _conclude(results: tuple[GateResult, ...], given: GateFile | None) -> str:
    """Of the user's own gates each must be known; of ours, those without which nothing was watched."""
    if given is not None:
        return conclude(results)
    ids = {gate.id for gate in results}
    if not ids >= NEEDED:
        return "unknown"
    return conclude([gate for gate in results if gate.verdict != "unknown" or gate.id in NEEDED])


def _notes(seen: Seen, limits: Limits) -> Iterator[str]:
    yield from limits.notes
    silent = sorted(seen.nodes.keys() - seen.eventful)
    if silent and seen.executions:
        names = ", ".join(silent)
        yield f"{names}: no events of tasks, so short tasks may have run unseen (--enable-events asks for them)"
    away = {node: why for row in seen.memory for node, why in row.get("away", {}).items()}
    yield from (f"memory of {node} is not known: {why}" for node, why in sorted(away.items()))
    yield from _tried(seen, limits)
    yield from _others(seen)


def _tried(seen: Seen, limits: Limits) -> Iterator[str]:
    """A limit that nothing came near to was not tested."""
    slots = sum(limits.concurrency.values())
    held = max((s.value for s in METRICS["worker.held"](seen, limits).samples), default=0)
    if held and held < slots:
        yield f"at most {held:g} of {slots} slots were taken at once: the limits were not tried"


def _others(seen: Seen) -> Iterator[str]:
    foreign = {str(e["name"]) for row in seen.samples for e in row["unacked"] if not seen.is_ours(e)}
    if foreign:
        yield f"messages of tasks that this application does not have were left out: {', '.join(sorted(foreign)[:5])}"


def facts_of(judged: Judged) -> dict[str, Any]:
    """What was declared, for machines."""
    limits = judged.limits
    return {
        "held_max": limits.held_max,
        "concurrency": dict(limits.concurrency),
        "prefetch_multiplier": dict(limits.multiplier),
        "retry_delays_of": sorted(limits.backoff),
    }
