"""What a judgement says: one result per gate, and what follows from all of them. Pure data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from mailrig.scenario import RigError

SCHEMA_VERSION: Final = 1
#: Exit code of each verdict; a pass with warnings is 3 where warnings count.
EXIT_CODES: Final[Mapping[str, int]] = {"pass": 0, "fail": 1, "invalid": 4, "unknown": 4}
_EXIT_WARNINGS: Final = 3


class VerdictError(RigError):
    """A stored verdict can't be read."""


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate, judged."""

    id: str
    #: ``validity`` or ``gate``.
    kind: str
    metric: str
    #: The check, with the contract's numbers in it.
    check: str
    #: What was observed, in ``unit``; None when nothing was.
    observed: float | None
    #: The unit of ``observed`` and of the check; empty for plain numbers.
    unit: str
    #: ``pass``, ``fail``, ``invalid``, ``unknown`` or ``warn``.
    verdict: str
    #: Concrete examples, at most ten.
    detail: tuple[str, ...] = ()

    @property
    def observed_text(self) -> str:
        """The observation as a person reads it."""
        return "nothing" if self.observed is None else f"{self.observed:.6g}{self.unit and ' ' + self.unit}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A run, judged."""

    #: ``pass``, ``fail``, ``invalid`` or ``unknown``.
    verdict: str
    scenario: str
    seed: int
    mutant: str | None
    started_ns: int | None
    duration_s: float
    gates: tuple[GateResult, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of the gates that failed or made the run invalid."""
        return tuple(gate.id for gate in self.gates if gate.verdict in {"fail", "invalid"})

    def exit_code(self, *, strict: bool) -> int:
        """The process's exit code; with ``strict`` a warning is worth one of its own."""
        if self.verdict == "pass" and strict and any(gate.verdict == "warn" for gate in self.gates):
            return _EXIT_WARNINGS
        return EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """The content of verdict.json."""
        gates = [asdict(gate) | {"detail": list(gate.detail)} for gate in self.gates]
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "gates": gates}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The verdict of a verdict.json.

        Raises:
            VerdictError: it is of another schema version, or something is missing.
        """
        if data.get("schema_version") != SCHEMA_VERSION:
            version = data.get("schema_version")
            raise VerdictError(f"a verdict of schema version {version!r}; this version reads {SCHEMA_VERSION}")
        try:
            gates = [{name: gate[name] for name in _names(GateResult)} for gate in data["gates"]]
            results = tuple(GateResult(**(gate | {"detail": tuple(gate["detail"])})) for gate in gates)
            return cls(**{name: data[name] for name in _names(cls) if name != "gates"}, gates=results)
        except (KeyError, TypeError) as err:
            raise VerdictError(f"a broken verdict: {type(err).__name__}: {err}") from err


def _names(kind: type[GateResult | Verdict]) -> list[str]:
    return [field.name for field in fields(kind)]


def conclude(gates: Sequence[GateResult], *, aborted_by: str | None = None) -> str:
    """What follows from all gates.

    A run in which nothing at all could be judged is ``unknown``. One that a gate ended early has failed, if that gate
    fails by all that was collected: what else is missing then is missing because of it. Else a validity gate that does
    not pass makes it ``invalid``, then any failed gate makes it ``fail``, then any unknown one ``unknown``. Warnings
    change nothing.
    """
    verdicts = Counter(gate.verdict for gate in gates)
    if verdicts["unknown"] == len(gates):
        return "unknown"
    if any(gate.id == aborted_by and gate.verdict == "fail" for gate in gates):
        return "fail"
    if any(gate.kind == "validity" and gate.verdict != "pass" for gate in gates):
        return "invalid"
    return "fail" if verdicts["fail"] else "unknown" if verdicts["unknown"] else "pass"
