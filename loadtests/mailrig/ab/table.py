"""A comparison as a person reads it, as Markdown and as JSON. Pure. Called by cli."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from mailrig.ab.course import Comparison
from mailrig.ab.decision import Decision
from mailrig.checkers.measurement import quantity

_HEAD: Final = ("figure", "A", "B", "B / A", "at least", "margin", "finds", "")


def as_text(found: Comparison) -> str:
    """A table for a terminal, and what it means."""
    rows = [_HEAD, *(_row(found, decision) for decision in found.decisions)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*_title(found), "", *lines, "", *_words(found)])


def as_markdown(found: Comparison) -> str:
    """The same for a step summary or a pull request."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *(_row(found, decision) for decision in found.decisions)]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"**{_verdict(found)}**", "", *_title(found), "", *table, "", *_words(found)[1:]])


def as_json(found: Comparison) -> str:
    """The same for machines; what is not known is null."""
    data = _plain(asdict(found)) | {"slower": found.slower, "schema_version": 1}
    return json.dumps(data, indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | str | None) else str(value)


def _title(found: Comparison) -> list[str]:
    made = (
        f"{found.scenario}, seed {found.seed}: {found.blocks} blocks of ABBA, {4 * found.blocks} runs that count, "
        f"{found.repeated} that did not; all in {found.folder}"
    )
    return [f"A: {found.base}", f"B: {found.head}", made]


def _row(found: Comparison, decision: Decision) -> tuple[str, ...]:
    return (
        str(decision.figure),
        quantity(decision.base, decision.kind),
        quantity(decision.head, decision.kind),
        _ratio(decision.ratio),
        _ratio(decision.ratio_low),
        f"{decision.figure.margin:.0%}",
        _finds(found, decision),
        "slower" if decision.slower else "",
    )


def _ratio(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _finds(found: Comparison, decision: Decision) -> str:
    name = str(decision.figure)
    if found.errors is None or name not in found.errors.finds:
        return "-"
    least = found.errors.finds[name]
    return "> 200%" if least is None else f"{least:.0%}"


def _verdict(found: Comparison) -> str:
    worse = [str(decision.figure) for decision in found.decisions if decision.slower]
    if worse:
        return f"B is slower: {', '.join(worse)}"
    return "B is not slower beyond the margins, as far as this can see"


def _words(found: Comparison) -> list[str]:
    return [_verdict(found), *_about_errors(found), *_about_gates(found)]


def _about_errors(found: Comparison) -> Iterator[str]:
    errors = found.errors
    if errors is None:
        yield "Too few blocks to say how often this errs: three are the least."
        return
    rate = errors.false_alarms
    yield (
        f"Resampled from these blocks: {errors.blocks} of them raise a false alarm in {rate.estimate:.1%} "
        f"[{rate.low:.1%}, {rate.high:.1%}]; 'finds' is the least slow-down that is found in nine of ten."
    )


def _about_gates(found: Comparison) -> Iterator[str]:
    for side, gates in found.broken.items():
        if gates:
            yield f"Gates broken in runs of {side}: " + ", ".join(f"{gate} ({n})" for gate, n in gates.items())
