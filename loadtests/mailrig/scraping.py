"""The service's metrics during a run, as Prometheus would have read them: evidence/metrics.jsonl.

An exporter that is away is a line, not the end: it may be killed and come back. ``samples`` owns what a line says.
Called by runner.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mailrig.samples import Samples, difference, is_counted, parse
from mailrig.stack.samplers import Sampler

_EVERY_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
#: The last scrape waits for an exporter that is on its way back, and until two scrapes tell the same counts.
_LAST_WITHIN_S: Final = 10.0
_LAST_EVERY_S: Final = 0.5
_ACCEPT: Final = "application/openmetrics-text;version=1.0.0"


class MetricsSampler(Sampler):
    """Scrapes the exporter once a second."""

    def __init__(self, exporter_url: str, path: Path) -> None:
        super().__init__(path, every_s=_EVERY_S, idle_s=0.0)
        self._url = metrics_url(exporter_url)
        self._known: Samples = {}

    def _sample(self) -> dict[str, Any]:
        now_ns = time.time_ns()
        try:
            samples = scrape(self._url)
        except (OSError, http.client.HTTPException, ValueError) as err:
            return {"time_ns": now_ns, "error": type(err).__name__}
        line = {"time_ns": now_ns, **difference(self._known, samples)}
        self._known = samples
        return line

    def _final(self) -> Iterable[dict[str, Any]]:
        """After the drain nothing moves any more: what two scrapes tell alike is all that there will be."""
        deadline_s, before = time.monotonic() + _LAST_WITHIN_S, None
        while True:
            line = self._sample()
            counts = None if "error" in line else {k: v for k, v in self._known.items() if is_counted(k)}
            if counts is not None and counts == before:
                yield {"time_ns": line["time_ns"], "set": dict(self._known), "gone": [], "last": True}
                return
            yield line
            if time.monotonic() > deadline_s:
                return
            before = counts
            time.sleep(_LAST_EVERY_S)


def metrics_url(exporter_url: str) -> str:
    """Where the metrics are: an address without a path is the exporter's root."""
    parts = urllib.parse.urlsplit(exporter_url)
    return exporter_url if parts.path.strip("/") else urllib.parse.urlunsplit(parts._replace(path="/metrics"))


def scrape(url: str) -> dict[str, float]:
    """All samples now.

    Raises:
        OSError: the exporter is away.
        ValueError: what it says is no exposition.
    """
    request = urllib.request.Request(url, headers={"Accept": _ACCEPT})  # noqa: S310  # the rig's own or the user's
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # as above
        return parse(answer.read().decode())
