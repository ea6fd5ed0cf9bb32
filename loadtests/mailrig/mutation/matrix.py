"""What the runs of mutants and of the healthy service say about gates. Pure. Called by campaign and views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from mailrig.scenario import Mutant, Scenario

#: A gate that has turned: what it says when its check does not hold.
RED: Final = frozenset({"fail", "invalid", "warn"})
#: What can become of a mutant: killed by all gates that it names; seen by others only; seen by none; or not known.
KILLED: Final = "killed"
ELSEWHERE: Final = "elsewhere"
SURVIVED: Final = "survived"
UNJUDGED: Final = "unjudged"
STATUSES: Final = (KILLED, ELSEWHERE, SURVIVED, UNJUDGED)
_EXIT_SURVIVED: Final = 1
_EXIT_UNJUDGED: Final = 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run, of a mutant or of the healthy service."""

    scenario: str
    #: None for the healthy service.
    mutant: str | None
    #: Names what was run, to the byte: mutant, scenario, contract and service.
    digest: str
    #: ``pass``, ``fail``, ``invalid`` or ``unknown``; empty when no run was made.
    verdict: str = ""
    #: Verdict by gate, validity included.
    gates: Mapping[str, str] = field(default_factory=dict)
    duration_s: float = 0.0
    #: The run's folder.
    folder: str = ""
    #: Why no run was made.
    error: str = ""

    @property
    def red(self) -> frozenset[str]:
        """The gates that turned."""
        return frozenset(gate for gate, verdict in self.gates.items() if verdict in RED)

    def to_dict(self) -> dict[str, Any]:
        """As a line of results."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave.

        Raises:
            TypeError: it is something else.
        """
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A mutant, judged."""

    mutant: Mutant
    #: One of ``STATUSES``.
    status: str
    #: Gates that it turned red and that are not so in the healthy run.
    red: frozenset[str] = frozenset()
    #: Those of its own that it did not turn.
    missed: tuple[str, ...] = ()
    #: For what is not killed.
    why: str = ""
    duration_s: float = 0.0
    folder: str = ""

    @property
    def besides(self) -> frozenset[str]:
        """What turned red and was not asked for."""
        return self.red - set(self.mutant.expected_gates)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All mutants of a campaign by all gates."""

    rows: tuple[Row, ...]
    #: Columns: gates in their scenarios' order, then validity where a mutant has to do with it.
    gates: tuple[str, ...]
    #: Gates of the scenarios that ship which no mutant that ships must turn.
    unguarded: tuple[str, ...]

    def with_status(self, status: str) -> tuple[Row, ...]:
        """The rows of a status."""
        return tuple(row for row in self.rows if row.status == status)

    def killers(self, gate: str) -> tuple[str, ...]:
        """Mutants that the gate had to see, and saw."""
        return tuple(r.mutant.name for r in self.rows if gate in r.mutant.expected_gates and gate in r.red)

    @property
    def exit_code(self) -> int:
        """0 when all are killed; 1 when one survives its gates; 4 when one could not be judged."""
        if self.with_status(SURVIVED) or self.with_status(ELSEWHERE):
            return _EXIT_SURVIVED
        return _EXIT_UNJUDGED if self.with_status(UNJUDGED) else 0


def judge(mutant: Mutant, trial: Trial | None, healthy: Trial | None, validity: Iterable[str]) -> Row:
    """What became of a mutant; ``validity`` names the gates by which its scenario's runs are believed."""
    if why := _unjudged(mutant, trial, healthy):
        return Row(mutant=mutant, status=UNJUDGED, why=why)
    assert trial is not None and healthy is not None  # noqa: S101, PT018  # said by _unjudged
    red = trial.red - healthy.red
    missed = tuple(gate for gate in mutant.expected_gates if gate not in red)
    doubts = sorted(red & set(validity) - set(mutant.expected_gates)) if missed else []
    return Row(
        mutant=mutant,
        status=_status(missed, red, doubts),
        red=red,
        missed=missed,
        why=_why(missed, trial, doubts),
        duration_s=trial.duration_s,
        folder=trial.folder,
    )


def _unjudged(mutant: Mutant, trial: Trial | None, healthy: Trial | None) -> str:
    """Why nothing can be said, if so."""
    for run, name in ((healthy, "the healthy service"), (trial, "the mutant")):
        if run is None:
            return f"{name} was not run in {mutant.scenario}"
        if run.error:
            return f"{name} could not be run in {mutant.scenario}: {run.error}"
    assert healthy is not None  # noqa: S101  # as above
    unfit = [gate for gate in mutant.expected_gates if healthy.gates.get(gate) != "pass"]
    if unfit:
        return f"the healthy service does not pass {', '.join(unfit)} in {mutant.scenario} either"
    return ""


def _status(missed: Sequence[str], red: frozenset[str], doubts: Sequence[str]) -> str:
    if not missed:
        return KILLED
    if doubts:
        return UNJUDGED
    return ELSEWHERE if red else SURVIVED


def _why(missed: Sequence[str], trial: Trial, doubts: Sequence[str]) -> str:
    if not missed:
        return ""
    stayed = ", ".join(f"{gate} is {trial.gates.get(gate, 'not there')}" for gate in missed)
    return f"{stayed}; the run can't be believed ({', '.join(doubts)})" if doubts else stayed


def matrix_of(rows: Sequence[Row], scenarios: Sequence[Scenario], *, bare: Sequence[str] = ()) -> Matrix:
    """The matrix of judged mutants and of their scenarios; ``bare`` are the gates without a mutant."""
    named = {gate for row in rows for gate in (*row.mutant.expected_gates, *row.red)}
    own = {row.mutant.scenario for row in rows}
    listed = [gate for scenario in scenarios if scenario.name in own for gate in scenario.gates]
    ordered = [gate.id for gate in listed if gate.kind == "gate"]
    ordered += [gate.id for gate in listed if gate.kind != "gate" and gate.id in named]
    return Matrix(rows=tuple(rows), gates=tuple(dict.fromkeys(ordered)), unguarded=tuple(bare))


def unguarded(scenarios: Iterable[Scenario], mutants: Iterable[Mutant]) -> tuple[str, ...]:
    """Gates that no mutant must turn. Validity is about the rig, which mutants of the service say nothing of."""
    named = {gate for mutant in mutants for gate in mutant.expected_gates}
    gates = [gate.id for scenario in scenarios for gate in scenario.gates if gate.kind == "gate"]
    return tuple(gate for gate in dict.fromkeys(gates) if gate not in named)
