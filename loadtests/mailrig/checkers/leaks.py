"""Did a secret get anywhere? Judged by what was searched, not by what was found alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailrig.checkers.measurement import Measurement, nothing, violations
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

#: Places of which a run that was not searched there says nothing.
SINKS: Final = ("logs", "spans", "metrics", "redis", "rows", "answers", "run")
#: Those of them, and others, that are files, where a line's number helps.
_FILES: Final = frozenset({"logs", "spans", "run", "reports"})


def secrets_leaked(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Secrets in places: a password, a key or a token, in any form. A place that was not searched makes it unknown."""
    cases = [case for row in evidence.leaks for case in _cases(row)]
    unsearched = list(_unsearched(evidence.leaks))
    if unsearched and not cases:
        return nothing(f"not searched for secrets: {', '.join(unsearched)}")
    return violations(cases, judged=len(evidence.leaks), of="sinks")


def _cases(row: Row) -> Iterator[str]:
    for hit in row["hits"]:
        line = f":{hit['line']}" if row["sink"] in _FILES else ""
        times = f", {hit['count']} times" if hit["count"] > 1 else ""
        yield f"{hit['secret']} (SHA-256 {hit['sha256']}...) is in {row['sink']}: {hit['where']}{line}{times}"
    if (more := row["hits_total"] - len(row["hits"])) > 0:
        yield from (f"one of {more} more in {row['sink']}" for _ in range(more))


def _unsearched(rows: tuple[Row, ...]) -> Iterator[str]:
    known = {row["sink"]: row for row in rows}
    for sink in dict.fromkeys((*SINKS, *known)):
        row = known.get(sink)
        if row is None:
            yield f"{sink} (never looked at)"
        elif row["error"]:
            yield f"{sink} ({row['error']})"
        elif not row["secrets_searched"] or not row["bytes"]:
            yield f"{sink} ({row['bytes']} bytes, {row['secrets_searched']} secrets)"
