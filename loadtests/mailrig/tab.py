"""Two tabs of Locust's page: how long mail takes, and which gates hold so far.

Rule 1: from raw samples; Locust's own statistics round to two digits. Rule 2: Locust's page draws the tables, so that
nothing is fetched from elsewhere. Rule 3: this sees what the load sees; the judge is ``mailrig check``.
Called by locustfile; with workers, each sends what it has timed along with Locust's own reports, and the master shows.
"""

from __future__ import annotations

import bisect
import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from flask import Response, jsonify, request

from mailrig.clients import Timing
from mailrig.live import LiveGates
from mailrig.scenario import Contract, Scenario
from mailrig.statistics import percentile

#: Where the same can be read as JSON.
PATH: Final = "/mail"
_KEY: Final = "mailrig"
_TIMES, _GATES = "mail-times", "mail-gates"
_RANKS: Final = (50, 95, 99)
#: Columns: the key of a row, and what the page calls it.
_TIMES_COLUMNS: Final = {
    "name": "What", "count": "Number", "failed": "Failed",
    "p50": "p50 (ms)", "p95": "p95 (ms)", "p99": "p99 (ms)", "max": "Max (ms)",
}  # fmt: skip
_GATES_COLUMNS: Final = {
    "gate": "Gate", "metric": "Metric", "allowed": "Allowed", "observed": "Observed", "state": "So far",
}  # fmt: skip
_TABS: Final = (
    (_TIMES, "Mail times", _TIMES_COLUMNS),
    (_GATES, "Gates", _GATES_COLUMNS),
)


class Board:
    """What the load has timed, here and at its workers. A worker's shows nothing, and keeps what it has not told."""

    def __init__(self, scenario: Scenario | None, contract: Contract) -> None:
        self._scenario, self._contract = scenario, contract
        #: None where there is no master to tell.
        self._unsent: list[Timing] | None = None
        self.reset()

    def reset(self, **_: Any) -> None:
        """A test begins, or somebody wants to see what comes from now on."""
        self._live = LiveGates(self._scenario, self._contract, alone=False) if self._scenario else None
        #: What -> nanoseconds; the warm-up is no sample.
        self._times_ns: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self._failed: defaultdict[str, int] = defaultdict(int)
        if self._unsent is not None:
            self._unsent.clear()

    def add(self, timings: Iterable[Timing]) -> None:
        """Take in what took how long."""
        for timing in timings:
            if self._unsent is None:
                self._take(timing)
            else:
                self._unsent.append(timing)

    def _take(self, timing: Timing) -> None:
        if self._live is None or timing.warmup:
            return
        name = f"{timing.kind} {timing.name}"
        # Kept in order: each look would sort the samples of hours otherwise.
        bisect.insort(self._times_ns[name], timing.duration_ns)
        self._failed[name] += timing.error is not None
        self._live.time([timing])

    # --- between workers and master ---

    def tell_master(self, events: Any) -> None:
        """From now on what is timed goes to the master."""
        self._unsent = []
        events.report_to_master.add_listener(self._report)

    def hear_workers(self, events: Any) -> None:
        """From now on what workers tell is shown."""
        events.worker_report.add_listener(self._hear)

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        """Locust's event: what is new goes along."""
        told, self._unsent = self._unsent or [], []
        data[_KEY] = [[t.kind, t.name, t.duration_ns, t.error, t.warmup] for t in told]

    def _hear(self, data: Mapping[str, Any], **_: Any) -> None:
        """Locust's event: take in what a worker has told."""
        for kind, name, duration_ns, error, warmup in data.get(_KEY, ()):
            self._take(Timing(kind=kind, name=name, duration_ns=duration_ns, error=error, warmup=warmup))

    # --- shown ---

    def times(self) -> list[dict[str, Any]]:
        """A row for each kind of duration, in the order of their names."""
        return [self._times_row(name) for name in sorted(self._times_ns)]

    def _times_row(self, name: str) -> dict[str, Any]:
        values = self._times_ns[name]
        ranks = {f"p{rank}": _ms(percentile(values, rank)) for rank in _RANKS}
        return {"name": name, "count": len(values), "failed": self._failed[name], **ranks, "max": _ms(max(values))}

    def gates(self) -> list[dict[str, Any]]:
        """A row for each gate that the load can see."""
        rows = self._live.rows() if self._live is not None else []
        return [
            {"gate": r.id, "metric": r.metric, "allowed": r.check, "observed": r.observed or "-", "state": r.state}
            for r in rows
        ]

    def show(self, web_ui: Any) -> None:
        """Put the tabs into Locust's page."""
        web_ui.template_args["extended_tabs"] = [{"title": title, "key": key} for key, title, _ in _TABS]
        web_ui.template_args["extended_tables"] = [
            {"key": key, "structure": [{"key": column, "title": text} for column, text in columns.items()]}
            for key, _, columns in _TABS
        ]
        web_ui.app.after_request(self._extend)
        web_ui.app.add_url_rule(PATH, "mail", web_ui.auth_required_if_enabled(self._answer))

    def _extend(self, response: Response) -> Response:
        """The page asks for its statistics every two seconds; its further tables are in the answer."""
        if request.path.endswith("/stats/requests") and response.is_json:
            data = [{"key": _TIMES, "data": self.times()}, {"key": _GATES, "data": self.gates()}]
            response.set_data(json.dumps({**response.get_json(), "extended_stats": data}))
        return response

    def _answer(self) -> Response:
        return jsonify({"times": self.times(), "gates": self.gates()})


def _ms(duration_ns: float) -> float:
    return round(duration_ns / 1e6, 3)
