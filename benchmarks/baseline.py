"""Benchmarks held against a baseline: one that is slower fails, and so does one that is missing or new.

pytest-benchmark's own comparison passes in silence when a benchmark is no longer there: deleted, renamed or deselected.

    make bench-check                                      # runs them, then this
    python benchmarks/baseline.py results.json            # 0 as before, 1 slower, missing or new, 2 can't be read
    python benchmarks/baseline.py results.json --write    # these are the baseline from now on

Speeds are counted in calibrations: the best time of a benchmark over that of a loop of plain Python in the same run, so
that a baseline of one machine says something on another. Times are of the CPU (--benchmark-timer=time.process_time),
and the best is taken: on two cores under a load of fifteen two runs of the same differ by a quarter so, and by wall
clock by a factor of two. Called by ``make bench-check`` and ``make bench-keep``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SCHEMA_VERSION: Final = 1
BASELINE: Final = Path(__file__).with_name("baseline.json")
#: The benchmark that all others are counted in.
CALIBRATION: Final = "bench_rules.py::bench_calibration"
#: The same code differs by less than this on an idle machine, and by a fifth at the median between CI machines.
MARGIN: Final = 1.5
SAME, SLOWER, FASTER, MISSING, NEW = "", "slower", "faster", "missing", "new"
#: A baseline that is much too slow hides what gets slower; that is told and does not fail.
_FAILS: Final = frozenset({SLOWER, MISSING, NEW})


class BaselineError(Exception):
    """A file can't be read as what it should be."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One benchmark; in calibrations."""

    name: str
    before: float | None
    now: float | None
    verdict: str

    @property
    def fails(self) -> bool:
        """Whether it ends the check."""
        return self.verdict in _FAILS


def speeds(results: Mapping[str, Any]) -> dict[str, float]:
    """Each benchmark of a results file of pytest-benchmark, in calibrations.

    Raises:
        BaselineError: it is none, or the calibration is not in it.
    """
    try:
        best = {_short(each["fullname"]): float(each["stats"]["min"]) for each in results["benchmarks"]}
    except (KeyError, TypeError, ValueError) as err:
        raise BaselineError(f"no results of pytest-benchmark: {type(err).__name__} {err}") from err
    if not best.get(CALIBRATION):
        raise BaselineError(f"{CALIBRATION} is not in the results: run it with the others")
    unit = best.pop(CALIBRATION)
    return {name: seconds / unit for name, seconds in best.items()}


def _short(fullname: str) -> str:
    """Without the folder: a baseline is the same from wherever pytest was started."""
    return fullname.rpartition("/")[2]


def compare(before: Mapping[str, float], now: Mapping[str, float], *, margin: float = MARGIN) -> list[Row]:
    """A row for each benchmark of either."""
    return [
        Row(
            name=name,
            before=before.get(name),
            now=now.get(name),
            verdict=_verdict(before.get(name), now.get(name), margin),
        )
        for name in sorted({*before, *now})
    ]


def _verdict(before: float | None, now: float | None, margin: float) -> str:
    if now is None:
        return MISSING
    if before is None:
        return NEW
    return SLOWER if now > before * margin else FASTER if now < before / margin else SAME


def table(rows: Sequence[Row]) -> str:
    """For a person, the names first."""
    width = max(len(row.name) for row in rows)
    return "\n".join(
        f"{row.name:{width}}  {_number(row.before):>9}  {_number(row.now):>9}  {_ratio(row):>6}  {row.verdict}".rstrip()
        for row in rows
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _ratio(row: Row) -> str:
    return f"{row.now / row.before:.2f}" if row.now and row.before else "-"


def read(path: Path) -> Any:
    """A JSON file.

    Raises:
        BaselineError: it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise BaselineError(f"{path} can't be read: {err.strerror}") from err
    except ValueError as err:
        raise BaselineError(f"{path} is not JSON: {err}") from err


def read_baseline(path: Path) -> dict[str, float]:
    """What was kept.

    Raises:
        BaselineError: it is none, or of another version.
    """
    data = read(path)
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise BaselineError(f"{path} is no baseline of schema version {SCHEMA_VERSION}: write it anew with --write")
    return {str(name): float(value) for name, value in data["calibrations"].items()}


def write_baseline(path: Path, now: Mapping[str, float]) -> None:
    """Keep these."""
    kept = {"schema_version": SCHEMA_VERSION, "calibrations": {name: round(now[name], 4) for name in sorted(now)}}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Check, or keep."""
    parser = argparse.ArgumentParser(description="Hold benchmarks against a baseline.")
    parser.add_argument("results", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="(default: %(default)s)")
    parser.add_argument(
        "--margin", type=float, default=MARGIN, help="factor that is no slow-down (default: %(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="keep the results as the baseline")
    arguments = parser.parse_args(argv)
    try:
        now = speeds(read(arguments.results))
        if arguments.write:
            write_baseline(arguments.baseline, now)
            print(f"{len(now)} benchmarks are the baseline in {arguments.baseline}")
            return 0
        rows = compare(read_baseline(arguments.baseline), now, margin=arguments.margin)
    except BaselineError as err:
        print(f"baseline: {err}", file=sys.stderr)
        return 2
    print(table(rows))
    bad = [row for row in rows if row.fails]
    print("; ".join(f"{row.name} is {row.verdict}" for row in bad) or f"{len(rows)} benchmarks are as before")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
