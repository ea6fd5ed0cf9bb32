"""When the nemesis had a server away, and who was under way then: what the other checkers excuse by it. Pure.

An outage begins before the server is hurt and ends once it serves again; one that was never healed has no end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mailrig.checkers.view import intervals
from mailrig.evidence import Evidence, Row

BROKER: Final = frozenset({"pause-redis", "restart-redis", "lose-redis"})
DATABASE: Final = frozenset({"restart-postgres"})
_NEVER: Final = 2**63


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A time without a server."""

    action: str
    start_ns: int
    end_ns: int


def outages(evidence: Evidence, actions: frozenset[str]) -> list[Outage]:
    """The outages by these actions, in the order of time."""
    return list(_outages(evidence, actions))


def _outages(evidence: Evidence, actions: frozenset[str]) -> Iterator[Outage]:
    begun: dict[str, int] = {}
    for op in evidence.history:
        if op.process != "nemesis":
            continue
        if op.f in actions and op.type == "invoke":
            begun[op.f] = op.time_ns
        elif op.f in actions and op.type == "info":
            # Nothing was broken.
            begun.pop(op.f, None)
        elif op.f == "heal" and op.type == "ok" and op.value.get("action") in begun:
            action = op.value["action"]
            yield Outage(action=action, start_ns=begun.pop(action), end_ns=op.time_ns)
    for action, start_ns in begun.items():
        yield Outage(action=action, start_ns=start_ns, end_ns=_NEVER)


def broker_returns(evidence: Evidence) -> list[int]:
    """When the broker served again: whatever was delivered before may have been acknowledged to nobody."""
    return [outage.end_ns for outage in outages(evidence, BROKER)]


def afloat(evidence: Evidence) -> int:
    """How many messages may be gone or there twice for want of a server: all of those of the jobs that were open then.

    A broker loses them, keeps them although they were answered, or never gets them. Without a database whoever takes a
    message can write down neither an execution nor a refusal, and answers the broker all the same.
    """
    away = outages(evidence, BROKER | DATABASE)
    return sum(row["publishes"] for row in evidence.jobs if any(_is_open(row, outage) for outage in away))


def _is_open(job: Row, outage: Outage) -> bool:
    finished_ns = job.get("finished_ns")
    return job["created_ns"] <= outage.end_ns and (finished_ns is None or finished_ns >= outage.start_ns)


def cut_off(evidence: Evidence, task: str) -> int:
    """Executions of a task that were under way while the database was away: what they did may be written nowhere."""
    away = outages(evidence, DATABASE)
    return sum(
        ran.row["name"] == task and any(ran.start_ns <= o.end_ns and ran.end_ns >= o.start_ns for o in away)
        for ran in (intervals(evidence) if away else ())
    )
