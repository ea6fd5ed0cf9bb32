"""Which runs are made for the mutants, in which order, and which of them were made before.

Makes no run itself: whoever calls brings what does (``RunOne``). Called by cli.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from mailrig.checkers import Verdict
from mailrig.mutation.matrix import UNJUDGED, Matrix, Row, Trial, judge, matrix_of, unguarded
from mailrig.mutation.results import Results
from mailrig.scenario import (
    Contract,
    Mutant,
    RigError,
    Scenario,
    UnknownNameError,
    check_patches,
    load_contract,
    load_mutant,
    load_scenario,
    mutant_names,
    scenario_names,
)

#: Runs a scenario with a mutant, or with none; answers the run's folder and its verdict.
RunOne = Callable[[str, str | None], tuple[Path, Verdict]]
#: Said of a run that nobody has seen yet, seconds.
_GUESS_S: Final = 50.0
_MINUTE_S: Final = 60
_ERROR_CHARS_MAX: Final = 300


def chosen(only: Sequence[str], scenarios: Sequence[str]) -> list[Mutant]:
    """The mutants of these names and scenarios, or all; by scenario.

    Raises:
        UnknownNameError: there is none of that name, or no mutant has that scenario.
        ScenarioError: a mutant's file is wrong.
    """
    found = [load_mutant(name) for name in only or mutant_names()]
    known = sorted({mutant.scenario for mutant in found})
    for name in scenarios:
        if name not in known:
            raise UnknownNameError("scenario of these mutants", name, known)
    return sorted((m for m in found if not scenarios or m.scenario in scenarios), key=lambda m: m.scenario)


def without_mutant() -> tuple[str, ...]:
    """Gates of the scenarios that ship which no mutant that ships must turn."""
    return unguarded(map(load_scenario, scenario_names()), [load_mutant(name) for name in mutant_names()])


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A run that may have to be made."""

    scenario: str
    #: None for the healthy service.
    mutant: Mutant | None
    digest: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.mutant.name if self.mutant else 'the healthy service'} in {self.scenario}"


class Campaign:
    """Mutants, and what is known of them."""

    def __init__(self, mutants: Sequence[Mutant], results: Results) -> None:
        """Read what the mutants need.

        Raises:
            RigError: a scenario is not there or wrong, or a patch does not apply: nothing was run.
        """
        source = _service()
        for mutant in mutants:
            check_patches(mutant, source)
        self._mutants, self._results = mutants, results
        self._scenarios = {name: load_scenario(name) for name in dict.fromkeys(m.scenario for m in mutants)}
        self._contract, self._source_digest = load_contract(), _source_digest(source)

    def conduct(self, run: RunOne, tell: Callable[[str], None]) -> Matrix:
        """Make the runs that are lacking: of each scenario the healthy one first."""
        left = [step for step in self._steps() if not self._is_known(step)]
        seen_s: list[float] = []
        for done, step in enumerate(left):
            if self._is_known(step):
                # By the healthy run that was made again before it.
                continue
            tell(f"{done + 1} of {len(left)}: {step.name}, {_time_left(seen_s, len(left) - done)}")
            trial = self._try(step, run)
            seen_s.append(trial.duration_s)
            tell(f"{step.name}: {self._said(step, trial)}")
        return self.matrix()

    def matrix(self) -> Matrix:
        """What is known by now."""
        rows = [self._row(mutant) for mutant in self._mutants]
        return matrix_of(rows, list(self._scenarios.values()), bare=without_mutant())

    def _steps(self) -> Iterator[_Step]:
        for name in self._scenarios:
            yield self._step(name, None)
            for mutant in self._mutants:
                if mutant.scenario == name:
                    yield self._step(name, mutant)

    def _step(self, scenario: str, mutant: Mutant | None) -> _Step:
        digest = digest_of(mutant, self._scenarios[scenario], self._contract, self._source_digest)
        return _Step(scenario=scenario, mutant=mutant, digest=digest)

    def _is_known(self, step: _Step) -> bool:
        """Whether it need not be run again: a run that says nothing is no knowledge."""
        trial = self._results.find(step.digest)
        if step.mutant is None:
            return trial is not None and trial.verdict == "pass"
        return trial is not None and self._row(step.mutant).status != UNJUDGED

    def _try(self, step: _Step, run: RunOne) -> Trial:
        began_s, name = time.monotonic(), step.mutant.name if step.mutant else None
        trial = Trial(scenario=step.scenario, mutant=name, digest=step.digest)
        try:
            folder, verdict = run(step.scenario, name)
            gates = {gate.id: gate.verdict for gate in verdict.gates}
            trial = replace(trial, verdict=verdict.verdict, gates=gates, folder=str(folder))
        except RigError as err:
            trial = replace(trial, error=_one_line(err))
        trial = replace(trial, duration_s=round(time.monotonic() - began_s, 1))
        self._results.add(trial)
        return trial

    def _row(self, mutant: Mutant) -> Row:
        healthy = self._results.find(self._step(mutant.scenario, None).digest)
        trial = self._results.find(self._step(mutant.scenario, mutant).digest)
        gates = self._scenarios[mutant.scenario].gates
        return judge(mutant, trial, healthy, [gate.id for gate in gates if gate.kind == "validity"])

    def _said(self, step: _Step, trial: Trial) -> str:
        if step.mutant is None:
            return trial.error or f"{trial.verdict}{'; not: ' if trial.red else ''}{', '.join(sorted(trial.red))}"
        row = self._row(step.mutant)
        return f"{row.status} ({row.why or ', '.join(step.mutant.expected_gates)})"


def digest_of(mutant: Mutant | None, scenario: Scenario, contract: Contract, source: str) -> str:
    """Names what is run: the same is not run twice, and anything else is another thing."""
    parts = (repr(mutant), scenario.text, contract.text, source)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _service() -> Path:
    """Where the service's source is.

    Raises:
        RigError: it is not installed.
    """
    spec = find_spec("email_service")
    if spec is None or not spec.submodule_search_locations:
        raise RigError("email_service is not installed: pip install 'mailrig[system]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _source_digest(folder: Path) -> str:
    """Of all source files below a folder, with their names."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        total.update(f"{file.relative_to(folder)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _one_line(err: RigError) -> str:
    """An error may bring the last lines of a log with it."""
    return " ".join(str(err).split())[:_ERROR_CHARS_MAX]


def _time_left(seen_s: Sequence[float], runs: int) -> str:
    each_s = sum(seen_s) / len(seen_s) if seen_s else _GUESS_S
    return f"about {max(1, round(each_s * runs / _MINUTE_S))} min left"
