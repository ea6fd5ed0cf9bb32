"""Scenarios, the contract and the mutants as frozen values. Pure: reading them is ``files``, validating ``table``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mailrig.scenario.errors import ScenarioError

ARRIVALS: Final = ("poisson", "constant", "replay")
OPS: Final = ("send", "sync", "delete")
SEVERITIES: Final = ("fail", "warn")
#: How long what is paused or down stays so, unless the scenario says otherwise, seconds.
FOR_S: Final = 3.0
#: What a scenario may name, and what it may tell it besides its time.
NEMESIS: Final[Mapping[str, tuple[str, ...]]] = {
    "lose-message": ("queue",),
    "kill-child": (),
    "kill-parent": (),
    "kill-beat": (),
    "kill-dispatcher": (),
    "kill-api": (),
    "kill-exporter": (),
    "stop-worker": (),
    "pause-parent": ("for_s",),
    "pause-beat": ("for_s",),
    "pause-dispatcher": ("for_s",),
    "pause-api": ("for_s",),
    "pause-redis": ("for_s",),
    "restart-redis": ("for_s",),
    "lose-redis": ("for_s",),
    "restart-postgres": ("for_s",),
    "put-fault": ("for_s", "fault"),
    "clear-fault": ("id",),
}
NEMESIS_ACTIONS: Final = tuple(NEMESIS)
#: Queues that a message may be lost from.
QUEUES: Final = ("sync", "send", "delete", "spam", "periodic")
#: Processes of the system that a mutant may leave out.
PARTS: Final = ("api", "worker", "beat", "dispatcher", "exporter")
_LOW_64_BITS: Final = 2**64 - 1
_TENANTS: Final = ("acme", "globex", "initech", "umbrella")


@dataclass(frozen=True, kw_only=True)
class LoadOp:
    """One stream of requests."""

    #: One of ``OPS``.
    f: str
    rate_per_s: float
    #: Recipients of one mail, To, Cc and Bcc together.
    recipients_max: int = 1
    #: Share of mails with a Cc, with a Bcc, with an attachment.
    cc_share: float = 0.0
    bcc_share: float = 0.0
    attachment_share: float = 0.0
    #: How uneven the tenants are: the k-th gets a share in proportion to 1 / k ** zipf; 0 is even.
    zipf: float = 0.0
    #: With ``replay``: seconds after the start of the warm-up of each request.
    at_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the load with its own rate."""

    duration_s: float
    #: Multiplies the rate of every stream.
    factor: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """Open-loop arrivals over a time."""

    arrivals: str
    warmup_s: float
    #: After the warm-up.
    duration_s: float
    ops: tuple[LoadOp, ...]
    #: From the start of the warm-up; what they leave uncovered has factor 1.
    stages: tuple[Stage, ...] = ()

    @property
    def total_s(self) -> float:
        """Warm-up and load."""
        return self.warmup_s + self.duration_s


@dataclass(frozen=True, kw_only=True)
class Population:
    """Who is there before the load starts."""

    tenants: int
    #: In all; dealt out to the tenants in turn.
    mailboxes: int
    messages_per_mailbox: int
    #: fakemail's size profile.
    profile: str
    #: Names of the tenants, where others have tenants too; empty for the usual ones.
    names: tuple[str, ...] = ()

    def tenant_names(self) -> tuple[str, ...]:
        """The tenants, in their order."""
        return self.names or tuple(_TENANTS[i] if i < len(_TENANTS) else f"tenant{i}" for i in range(self.tenants))

    def addresses(self) -> tuple[tuple[str, ...], ...]:
        """The mailboxes of each tenant."""
        return tuple(
            tuple(f"user{k}@{name}.example" for k in range(len(range(i, self.mailboxes, self.tenants))))
            for i, name in enumerate(self.tenant_names())
        )


@dataclass(frozen=True, kw_only=True)
class System:
    """How the system is started."""

    time_scale: float
    concurrency: int
    #: Share of the traces that are recorded.
    trace_sample: float = 1.0
    #: Variables of the service on top of the rig's own; a mutant's word counts more.
    environment: Mapping[str, str] = field(default_factory=dict)

    def keeps(self, trace_id: str) -> bool:
        """Whether a trace is one of those that are recorded: OpenTelemetry's TraceIdRatioBased, on the low 64 bits."""
        return self.trace_sample >= 1 or int(trace_id, 16) & _LOW_64_BITS < round(self.trace_sample * 2**64)


@dataclass(frozen=True, kw_only=True)
class Nemesis:
    """A fault of the world at a time; its healing belongs to the action."""

    #: Seconds after the start of the warm-up.
    at_s: float
    #: One of ``NEMESIS_ACTIONS``.
    action: str
    #: What else the action takes, such as ``queue``.
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One thing that must hold."""

    id: str
    #: ``validity`` or ``gate``.
    kind: str
    #: A name of ``checkers.METRICS``, with labels in braces if wanted.
    metric: str
    check: str
    #: ``fail`` or ``warn``.
    severity: str = "fail"
    #: ``for``: the check must hold in each window of this length; empty for the whole run.
    window: str = ""
    #: A ratio to a baseline breaks the gate only if the difference is beyond this too; empty for any.
    min_effect: str = ""
    #: Whether the load is ended as soon as the check can't hold any more, whatever else comes.
    abort: bool = False
    #: Where it was written; the file is the scenario's own unless it was inherited.
    line: int | None = None
    file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An experiment."""

    name: str
    description: str
    seed: int
    load: Load
    population: Population
    system: System
    #: As fakemail's control takes them.
    faults: tuple[Mapping[str, Any], ...]
    nemesis: tuple[Nemesis, ...]
    drain_timeout_s: float
    gates: tuple[Gate, ...]
    #: Where it was read from, and the text: overrides are written into it, so that a run keeps what was run.
    file: Path
    text: str
    #: Whether it is the full length of two.
    full: bool = False


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the system promises, by dotted key."""

    values: Mapping[str, float | str | tuple[float, ...]]
    file: Path
    text: str

    def number(self, key: str) -> float:
        """A promised number."""
        value = self._get(key)
        if isinstance(value, int | float):
            return value
        raise ScenarioError(f"{key} is not a number", file=self.file)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A promised list of numbers."""
        value = self._get(key)
        if isinstance(value, tuple):
            return value
        raise ScenarioError(f"{key} is not a list of numbers", file=self.file)

    def _get(self, key: str) -> float | str | tuple[float, ...]:
        if key not in self.values:
            raise ScenarioError(f"{key} is not in the contract", file=self.file, allowed=", ".join(sorted(self.values)))
        return self.values[key]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A replacement in one source file of the system."""

    #: Relative to the package ``email_service``.
    file: str
    #: Must occur exactly once.
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A defect that a gate must catch."""

    name: str
    description: str
    #: The scenario in which it shows, and the gates of that scenario that must turn red: each of them.
    scenario: str
    expected_gates: tuple[str, ...]
    #: Overrides of the system's environment.
    environment: Mapping[str, str]
    #: Parts of the system that are not started.
    without: tuple[str, ...]
    patches: tuple[Patch, ...]
