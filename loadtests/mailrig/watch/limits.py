"""What a foreign application declares, as numbers and gates. Pure.

A limit that nobody declares makes no gate: the answer says so instead. A file of the user's own may replace all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mailrig.evidence import Row
from mailrig.scenario import Contract, Gate
from mailrig.scenario.files import _gates
from mailrig.scenario.table import Table, parse_toml, read_text
from mailrig.watch.seen import Seen

#: What a retry's due time may be off: the worker tells of the retry a moment after it was decided.
TOLERANCE_MS: Final = 500
#: What the watcher wrote the gates for, where they are its own.
DEFAULT_GATES: Final = Path("gates.toml")
#: Without them nothing was watched: the others of the default gates may be unknown.
NEEDED: Final = frozenset({"sample_gap", "workers_seen", "held"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the workers together may do; None where nobody says."""

    #: By worker: processes, threads or whatever its pool has.
    concurrency: Mapping[str, int]
    #: By worker: messages for each of them.
    multiplier: Mapping[str, int]
    #: Messages that may be held at once by all workers of one moment.
    held_max: int | None
    #: By task: the delays before its retries, and whether they are upper bounds only (jitter).
    backoff: Mapping[str, Backoff]
    #: Why something is not limited.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """What a task declares of its retries."""

    base_s: float
    max_s: float
    #: Delays are drawn between 0 and the bound.
    jitter: bool
    #: Given one by one; the last one holds for all that follow.
    listed: tuple[float, ...] = ()
    doubles: bool = True

    def delay_s(self, retry: int) -> float:
        """Before the retry of that number, from 0 (celery/utils/time.py, get_exponential_backoff_interval)."""
        if self.listed:
            return self.listed[min(retry, len(self.listed) - 1)]
        return min(self.max_s, self.base_s * 2.0**retry) if self.doubles else self.base_s


def limits_of(seen: Seen) -> Limits:
    """What the application and its workers say of themselves."""
    settings = seen.application["settings"]
    concurrency = {node: n for node, facts in seen.nodes.items() if (n := facts.get("concurrency"))}
    multiplier = {node: _multiplier(seen, node, settings) for node in concurrency}
    return Limits(
        concurrency=concurrency,
        multiplier=multiplier,
        held_max=_held_max(seen, concurrency, multiplier),
        backoff={task["name"]: found for task in seen.application["tasks"] if (found := _backoff(task))},
        notes=tuple(_notes(settings, multiplier)),
    )


def _multiplier(seen: Seen, node: str, settings: Mapping[str, Any]) -> int:
    """The worker's own, if it was started with another than the application's: its prefetch count shows it."""
    declared = int(settings.get("worker_prefetch_multiplier") or 0)
    if settings.get("worker_disable_prefetch"):
        return 1
    first: Row = next((row["nodes"][node] for row in seen.workers if node in row["nodes"]), {})
    count, processes = first.get("prefetch_count"), first.get("concurrency")
    if not count or not processes or first.get("scheduled") or count % processes:
        return declared
    return int(count // processes)


def _held_max(seen: Seen, concurrency: Mapping[str, int], multiplier: Mapping[str, int]) -> int | None:
    if not concurrency or 0 in multiplier.values():
        return None
    together = (sum(concurrency[n] * multiplier[n] for n in row["nodes"] if n in concurrency) for row in seen.workers)
    return max(together, default=None)


def _backoff(task: Mapping[str, Any]) -> Backoff | None:
    """Of tasks that Celery retries by itself; what a body passes to ``retry`` nobody declares."""
    if not task.get("autoretry_for"):
        return None
    if task.get("retry_backoff_s"):
        # As celery/app/autoretry.py reads it: whole seconds, one at least.
        base_s = float(int(max(1.0, task["retry_backoff_s"])))
        return Backoff(base_s=base_s, max_s=task["retry_backoff_max_s"], jitter=bool(task["retry_jitter"]))
    delay_s = task.get("retry_countdown_s")
    delay_s = task.get("default_retry_delay_s") if delay_s is None else delay_s
    return Backoff(base_s=float(delay_s or 0), max_s=0, jitter=False, doubles=False)


def _notes(settings: Mapping[str, Any], multiplier: Mapping[str, int]) -> Iterator[str]:
    declared = settings.get("worker_prefetch_multiplier")
    for node, own in sorted(multiplier.items()):
        if own == 0:
            yield f"{node}: worker_prefetch_multiplier is 0, so that nothing limits what it holds"
        elif own != declared and not settings.get("worker_disable_prefetch"):
            yield f"{node} was started with a prefetch multiplier of {own}; the application says {declared}"


# --- gates ------------------------------------------------------------------------------------------------------------


def contract_of(limits: Limits, file: Path) -> Contract:
    """The limits as numbers that gates refer to."""
    values: dict[str, float | str | tuple[float, ...]] = {"watch.tolerance_ms": TOLERANCE_MS}
    if limits.held_max is not None:
        values["watch.held_max"] = limits.held_max
    if limits.concurrency:
        values["watch.slots"] = sum(limits.concurrency.values())
    return Contract(values=values, file=file, text="")


def default_gates(limits: Limits, *, every_s: float) -> str:
    """The gates that follow from what is declared, as the file that they could have been read from."""
    return "\n".join(_gate_lines(limits, every_s)) + "\n"


def _gate_lines(limits: Limits, every_s: float) -> Iterator[str]:
    yield "# Made of what the application declares; copy it, change it, and pass it by --gates."
    yield "[validity]"
    yield f'sample_gap = "p95 < {max(1.0, 5 * every_s):g}s"'
    yield 'workers_seen = "max >= 1"'
    if limits.held_max is not None:
        yield from _gate("held", "worker.held", "max <= {contract.watch.held_max}")
    for node, processes in sorted(limits.concurrency.items()):
        name = "running" if len(limits.concurrency) == 1 else f"running {node}"
        yield from _gate(name, f"worker.running{{node={node}}}", f"max <= {processes}")
    if limits.backoff:
        yield from _gate("retry-backoff", "retry.delay_error", "max <= {contract.watch.tolerance_ms}ms")
    yield from _gate("prefetch-count", "worker.prefetch_lost", "max == 0", severity="warn")
    yield from _gate("depth", "queue.growth{bound=low}", "max <= 0", severity="warn")
    yield from _gate("memory-growth", "memory.slope{bound=low}", "max <= 1MiB", severity="warn")


def _gate(name: str, metric: str, check: str, *, severity: str = "fail") -> Iterator[str]:
    yield f'\n[[gate]]\nid = "{name}"\nmetric = "{metric}"\ncheck = "{check}"'
    if severity != "fail":
        yield f'severity = "{severity}"'


@dataclass(frozen=True, kw_only=True)
class GateFile:
    """What a gate file says."""

    gates: tuple[Gate, ...]
    #: By task, in place of what it declares.
    backoff: Mapping[str, Backoff]
    held_max: int | None
    file: Path
    text: str


def load_gates(file: Path) -> GateFile:
    """The gates of a file.

    Raises:
        ScenarioError: it is wrong; says the line and what is allowed.
    """
    return parse_gates(read_text(file), file)


def parse_gates(text: str, file: Path) -> GateFile:
    """The gates of a text: [validity], [[gate]], and [limits] with what the application does not declare."""
    top = parse_toml(text, file)
    limits = top.table("limits", optional=True)
    held_max = limits.integer("held_max", minimum=1) if "held_max" in limits.keys() else None  # noqa: SIM118  # a table
    backoff = _given_backoff(limits.table("backoff", optional=True))
    limits.done()
    gates = _gates(top)
    top.done()
    if not gates:
        raise top.error("has no gate", allowed="[[gate]] with id, metric and check")
    return GateFile(gates=gates, backoff=backoff, held_max=held_max, file=file, text=text)


def _given_backoff(table: Table) -> dict[str, Backoff]:
    found = {}
    for task, delays in table.rest().items():
        if not isinstance(delays, list) or not delays or not all(type(d) in {int, float} and d >= 0 for d in delays):
            raise table.error(f"= {delays!r} is not allowed", key=task, allowed='"TASK" = [SECONDS, ...]')
        found[task] = Backoff(base_s=0, max_s=0, jitter=False, listed=tuple(map(float, delays)))
    return found
