"""A speed as a row: fakemail's figure, a neighbour's from the same run, their ratio, the target, whether it is reached.

Owns: taking turns (A B A B ...), medians, rows, the table in text and in Markdown, the results file.
Never does: start servers, or fill in a figure that was not measured: a neighbour that is absent is named so.
Called by: the benches (``duel``, ``Speeds``), conftest (the table at the end), speed_table (the README).
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

#: Where a run leaves its results, unless --speed-results or SPEED_RESULTS says otherwise.
RESULTS: Final = Path(".benchmarks/speed.json")
#: Every row of a whole run, in the order of the table.
ORDER: Final = (
    "fetch-raw", "fetch-raw-as-packaged", "fetch-imaplib", "fetch-imaplib-dovecot", "fetch-imaplib-ceiling",
    "smtp-source", "smtp-source-aiosmtpd", "smtp-source-delivered",
    "million-resident", "million-resident-search", "million-resident-fetch", "million-first-row", "million-rows",
    "idle-resident", "idle-told",
    "ack-imaplib-noop", "ack-imaplib-append", "ack-imaplib-store", "ack-imaplib-fetch", "ack-imaplib-search",
    "ack-imapclient-noop", "ack-imapclient-append", "ack-imapclient-store", "ack-imapclient-fetch",
    "ack-imapclient-search",
    "ack-pymap", "slow-reader-noop", "slow-reader-fetch", "greedy-reader-noop",
    "synthesis-messages", "synthesis-bytes", "synthesis-sizes",
)  # fmt: skip
Measure = Callable[[], float]
#: How a target is compared, by the sign that it is written with.
_SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": lambda reached, target: reached >= target,
    "<=": lambda reached, target: reached <= target,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was promised."""

    #: ratio (to the neighbour) or value (fakemail's own figure).
    of: str
    #: >= or <=.
    sign: str
    number: float

    def __str__(self) -> str:
        return f"{self.sign} {_figure(self.number)}{' x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured thing."""

    #: One of ``ORDER``.
    key: str
    what: str
    unit: str
    #: Fakemail's median.
    ours: float
    #: The neighbour's name, with what must be known of it; empty where none is compared.
    neighbour: str = ""
    #: Its median; None where it is absent or none is compared.
    theirs: float | None = None
    #: How to get the neighbour that is not installed.
    absent: str = ""
    target: Target | None = None
    rounds: int = 1
    #: Lowest and highest of fakemail's rounds.
    spread: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        """Fakemail's figure by the neighbour's."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none, or nothing to compare with."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of == "ratio" else self.ours
        return None if value is None else _SIGNS[self.target.sign](value, self.target.number)

    @property
    def verdict(self) -> str:
        """The last word of the row."""
        if self.target is None:
            return "-"
        return {True: "reached", False: "MISSED", None: "not measured"}[self.reached]

    def cells(self) -> tuple[str, ...]:
        """What a table shows."""
        theirs = "absent" if self.absent else "" if self.theirs is None else _figure(self.theirs)
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        target = "" if self.target is None else str(self.target)
        neighbour = f"{self.neighbour} {theirs}".strip()
        return self.what, f"{_figure(self.ours)} {self.unit}", neighbour, ratio, target, self.verdict


HEAD: Final = ("what", "fakemail", "beside it", "ratio", "target", "")


@dataclass(kw_only=True)
class Speeds:
    """The rows of one run."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row; one of the same key is an error of the bench."""
        assert row.key not in {each.key for each in self.rows}, row.key
        self.rows.append(row)
        self.rows.sort(key=lambda each: ORDER.index(each.key))

    @property
    def missed(self) -> list[Row]:
        """Rows below their target."""
        return [row for row in self.rows if row.reached is False]

    def save(self, path: Path) -> None:
        """Write the results file: the machine, the rows, and the rows as Markdown."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) | {"ratio": row.ratio, "reached": row.reached} for row in self.rows]
        document = {"machine": machine(), "rows": rows, "markdown": markdown(self.rows)}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[str, list[Row]]:
    """The machine's line and the rows of a results file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return document["machine"], [_row(each) for each in document["rows"]]


def _row(facts: dict[str, Any]) -> Row:
    named = {name: value for name, value in facts.items() if name not in {"ratio", "reached"}}
    named["target"] = Target(**named["target"]) if named["target"] else None
    named["spread"] = tuple(named["spread"]) if named["spread"] else None
    return Row(**named)


def duel(benchmark: Any, ours: Measure, theirs: Measure | None, *, rounds: int) -> tuple[list[float], list[float]]:
    """Measure both in turns; the neighbour's turn is pytest-benchmark's setup, so its own figure is fakemail's alone.

    Each is called once before, so that caches are warm and connections open.
    """
    mine: list[float] = []
    other: list[float] = []
    ours()
    if theirs is not None:
        theirs()

    def turn_of_the_neighbour() -> None:
        if theirs is not None:
            other.append(theirs())

    benchmark.pedantic(lambda: mine.append(ours()), setup=turn_of_the_neighbour, rounds=rounds, iterations=1)
    return mine, other


def compared(
    *,
    key: str,
    what: str,
    unit: str,
    figures: tuple[Sequence[float], Sequence[float]],
    neighbour: str = "",
    absent: str = "",
    target: Target | None = None,
) -> Row:
    """The row of a duel."""
    ours, theirs = figures
    return Row(
        key=key,
        what=what,
        unit=unit,
        ours=statistics.median(ours),
        neighbour=neighbour,
        theirs=statistics.median(theirs) if theirs else None,
        absent=absent,
        target=target,
        rounds=len(ours),
        spread=(min(ours), max(ours)),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def machine() -> str:
    """What the figures were taken on; figures of two machines don't compare, ratios roughly do."""
    cores = f"{os.cpu_count()} cores" + (f", {name}" if (name := _processor()) else "")
    return f"{platform.system()} {platform.machine()}, {cores}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(names, "")


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table for a README."""
    head = ("what", "fakemail", "beside it", "ratio", "target", "reached")
    body = [("| " + " | ".join(row.cells()[:-1]) + f" | {_said(row)} |") for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]) + "\n"


def _said(row: Row) -> str:
    return {True: "yes", False: "**no**", None: "" if row.target is None else "not measured"}[row.reached]


def text(rows: Sequence[Row]) -> list[str]:
    """The rows as lines for a terminal."""
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(cells[at]) for cells in table) for at in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table]


def _figure(number: float) -> str:
    """Three digits that mean something."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    digits = f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
    return digits.rstrip("0").rstrip(".")
