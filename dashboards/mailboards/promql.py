"""Queries over the metrics of ``signals``, as text: a name or a label that doesn't exist stops the generation.

Pure. A value with a variable or a pattern in it is matched as a pattern, any other as itself. Callers: rules, alerts
and the boards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from email_service import signals

#: Grafana's own: at least four scrapes, more where the graph is wider.
RATE_WINDOW: Final = "$__rate_interval"
_PATTERN_SIGNS: Final = frozenset("$|*")
_KNOWN: Final[Mapping[str, signals.Metric]] = {m.name: m for m in signals.METRICS}
#: Labels that Prometheus adds to what it scrapes, and the one that ``mailrig export`` adds.
_ADDED: Final = frozenset({"job", "instance", "run"})


class UnknownNameError(Exception):
    """A query names what the service does not publish."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Something that can be selected: a metric of the service, or what a rule records."""

    #: As Prometheus keeps it; a histogram's without its suffix.
    name: str
    labels: tuple[str, ...]
    kind: str = "gauge"

    def select(self, part: str = "", **where: str) -> str:
        """The selector; ``part`` is a histogram's bucket, sum or count."""
        if (self.kind == "histogram") != bool(part):
            raise UnknownNameError(f"{self.name} is a {self.kind}: part {part!r} does not exist")
        self.check(where)
        matchers = ", ".join(_matcher(label, value) for label, value in where.items())
        return self.name + (f"_{part}" if part else "") + (f"{{{matchers}}}" if matchers else "")

    def check(self, labels: Iterable[str]) -> None:
        """Stop at a label that the series does not have."""
        for label in labels:
            if label not in self.labels and label not in _ADDED and not (label == "le" and self.kind == "histogram"):
                raise UnknownNameError(f"{self.name} has no label {label!r}: it has {', '.join(self.labels) or 'none'}")


def metric(name: str) -> Series:
    """A metric of ``signals`` by its name there; a counter's ``_total`` is added."""
    if name not in _KNOWN:
        raise UnknownNameError(f"there is no metric {name!r} in signals.METRICS")
    known = _KNOWN[name]
    wire = f"{name}_total" if known.kind == "counter" else name
    return Series(name=wire, labels=known.labels, kind=known.kind)


def _matcher(label: str, value: str) -> str:
    return f'{label}=~"{value}"' if _PATTERN_SIGNS & set(value) else f'{label}="{value}"'


def over(function: str, by: tuple[str, ...], inner: str) -> str:
    """An aggregation, over everything or by labels."""
    return f"{function} by ({', '.join(by)}) ({inner})" if by else f"{function}({inner})"


def total(series: Series, by: tuple[str, ...] = (), **where: str) -> str:
    """The sum of a gauge."""
    series.check(by)
    return over("sum", by, series.select(**where))


def rate(series: Series, by: tuple[str, ...] = (), *, window: str = RATE_WINDOW, part: str = "", **where: str) -> str:
    """What is added to a counter in a second."""
    series.check(by)
    return over("sum", by, f"rate({series.select(part, **where)}[{window}])")


def increase(series: Series, by: tuple[str, ...] = (), *, window: str, part: str = "", **where: str) -> str:
    """What was added to a counter in a window."""
    series.check(by)
    return over("sum", by, f"increase({series.select(part, **where)}[{window}])")


def quantile(q: float, series: Series, by: tuple[str, ...] = (), *, window: str = RATE_WINDOW, **where: str) -> str:
    """A quantile of a histogram, as far as its buckets tell."""
    series.check(by)
    inner = over("sum", ("le", *by), f"rate({series.select('bucket', **where)}[{window}])")
    return f"histogram_quantile({q:g}, {inner})"


def mean(series: Series, by: tuple[str, ...] = (), *, window: str = RATE_WINDOW, **where: str) -> str:
    """The mean of a histogram; no value where nothing was observed."""
    count = rate(series, by, window=window, part="count", **where)
    return f"{rate(series, by, window=window, part='sum', **where)} / ({count} > 0)"


def ranked(expr: str, queues: Iterable[tuple[str, int]]) -> str:
    """The expression with the label ``served``: in which order a queue's messages are taken, and its priority."""
    for place, (queue, number) in enumerate(queues, start=1):
        expr = f'label_replace({expr}, "served", "{place}. {queue} ({number})", "queue", "{queue}")'
    return expr
