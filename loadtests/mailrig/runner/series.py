"""Every scenario in turn, each on a stack of its own, with a file that says how far it is: a kill costs one run.

Owns ``all.json`` in the folder of runs. Judges nothing, and starts nothing itself. Called by cli.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from mailrig.checkers import INTERRUPTED, Verdict
from mailrig.runner.plan import RunOptions
from mailrig.scenario import RigError, load_contract, load_scenario
from mailrig.store import Run

STATE: Final = "all.json"
SCHEMA_VERSION: Final = 1
#: Verdicts that say something of the system: an invalid or unknown run is made again when a series goes on.
_SETTLED: Final = frozenset({"pass", "fail"})
#: Exit codes from the best to the worst: a pass, warnings, a run that says nothing, a gate that failed, a broken rig.
_RANK: Final = (0, 3, 4, 1, 2)
_OF_OUTPUT: Final = frozenset({"scenario", "runs_dir", "ports", "quiet", "winds_down"})
_INTERRUPTED: Final = 130


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What came of one scenario."""

    scenario: str
    #: Stands for all that decides what is run: another one, and the run is made again.
    digest: str
    #: Of the run; ``error`` when there is none, because the rig could not make it.
    verdict: str
    exit_code: int
    duration_s: float
    #: The run's folder.
    run: str = ""
    gates: int = 0
    passed: int = 0
    #: Ids of the gates that did not pass.
    bad: tuple[str, ...] = ()
    #: Why there is no run.
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the file."""
        return {**asdict(self), "bad": list(self.bad)}


def run_series(
    options: RunOptions,
    names: Iterable[str],
    *,
    run: Callable[[RunOptions], tuple[Run, Verdict]],
    resume: bool = False,
    strict: bool = False,
    tell: Callable[[str], None],
) -> list[Entry]:
    """Run the scenarios one after the other; ends early only when somebody interrupts it.

    Raises:
        RigError: the file of a series that is to go on can't be read.
    """
    state = options.runs_dir / STATE
    known = {entry.scenario: entry for entry in (read_state(state) if resume else [])}
    wanted, entries = [*names], []
    for number, name in enumerate(wanted, start=1):
        digest, old = digest_of(options, name), known.get(name)
        if old is not None and old.digest == digest and old.verdict in _SETTLED:
            tell(f"{number} of {len(wanted)}: {name} was run already: {old.verdict}")
            entries.append(old)
            continue
        tell(f"{number} of {len(wanted)}: {name}")
        entries.append(_entry(replace(options, scenario=name), digest, run, strict=strict))
        # What is not reached this time is kept, for the next.
        later = [known[other] for other in wanted[number:] if other in known]
        _write(state, [*entries, *later])
        if entries[-1].exit_code == _INTERRUPTED:
            break
    return entries


def _entry(
    options: RunOptions, digest: str, run: Callable[[RunOptions], tuple[Run, Verdict]], *, strict: bool
) -> Entry:
    started_s = time.monotonic()
    try:
        folder, verdict = run(options)
    except RigError as err:
        took_s = round(time.monotonic() - started_s, 1)
        facts: dict[str, Any] = {"verdict": "error", "exit_code": err.exit_code, "error": str(err)}
        return Entry(scenario=options.scenario, digest=digest, duration_s=took_s, **facts)
    return Entry(
        scenario=options.scenario,
        digest=digest,
        verdict=verdict.verdict,
        exit_code=_INTERRUPTED if INTERRUPTED in verdict.failed else verdict.exit_code(strict=strict),
        duration_s=round(time.monotonic() - started_s, 1),
        run=str(folder.path),
        gates=len(verdict.gates),
        passed=sum(gate.verdict == "pass" for gate in verdict.gates),
        bad=tuple(gate.id for gate in verdict.gates if gate.verdict != "pass"),
    )


def worst(entries: Sequence[Entry]) -> int:
    """The exit code of a series: that of its worst run, and of an interruption before all others."""
    codes = [entry.exit_code for entry in entries]
    return _INTERRUPTED if _INTERRUPTED in codes else max(codes, key=_RANK.index, default=2)


def digest_of(options: RunOptions, name: str) -> str:
    """What is run: the scenario's text, the contract's, and what the command line changes of them."""
    asked = {key: value for key, value in asdict(options).items() if key not in _OF_OUTPUT}
    try:
        texts = [load_scenario(name).text, load_contract().text]
    except RigError as err:
        # It will be told when it is run.
        texts = [str(err)]
    return hashlib.sha256(json.dumps([*texts, asked], sort_keys=True, default=str).encode()).hexdigest()


def read_state(path: Path) -> list[Entry]:
    """The entries of a series; none if none was begun.

    Raises:
        RigError: the file is broken, or of another version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise RigError(f"{path} is of schema version {data['schema_version']!r}: run --all without --resume")
        return [Entry(**{**row, "bad": tuple(row["bad"])}) for row in data["runs"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RigError(f"{path} can't be read ({type(err).__name__}): run --all without --resume") from err


def _write(path: Path, entries: Sequence[Entry]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    rows = [entry.to_dict() for entry in entries]
    temporary.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "runs": rows}, indent=2), encoding="utf-8")
    temporary.replace(path)
