"""Samples of metrics, as a scrape has them and as evidence/metrics.jsonl keeps them. Pure.

Rule 1: a line says what has changed since the one before, and the last line of a run says everything.
Rule 2: a sample is named as in the exposition: ``mail_recipients_total{state="sent"}``.

A line is ``{"time_ns", "set": {sample: value}, "gone": [sample]}``, or has ``"error"`` instead of both; the one after
the drain has ``"last": true``. Callers: scraping (writes), checkers and export (read).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

#: What counts: these samples only grow.
COUNTED: Final = ("_total", "_count", "_sum", "_bucket")

Samples = Mapping[str, float]


def parse(text: str) -> dict[str, float]:
    """The samples of an exposition in OpenMetrics, without their exemplars. A whole parser would cost 20 ms a second.

    Raises:
        ValueError: a line is none, or the end is missing: the answer was cut off.
    """
    *lines, end = text.rstrip("\n").split("\n")
    if end != "# EOF":
        raise ValueError("the exposition does not end with # EOF")
    samples = (line.partition(" # ")[0].rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def difference(before: Samples, after: Samples) -> dict[str, Any]:
    """What changed between two scrapes."""
    return {
        "set": {name: value for name, value in after.items() if before.get(name) != value},
        "gone": sorted(before.keys() - after.keys()),
    }


def replay(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Samples]]:
    """The samples at each scrape that succeeded, in order; do not keep them: each is the one before, changed."""
    samples: dict[str, float] = {}
    for line in lines:
        if "error" not in line:
            if line.get("last"):
                samples.clear()
            samples.update(line["set"])
            for name in line["gone"]:
                samples.pop(name, None)
            yield line["time_ns"], samples


def is_counted(sample: str) -> bool:
    """Whether a sample is of a counter or a histogram."""
    return sample.partition("{")[0].endswith(COUNTED)
