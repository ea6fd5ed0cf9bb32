"""Print the speed table of a run, or write it into the fakes' README: ``python benchmarks/speed_table.py --write``.

Owns: the text between the two markers. Never does: measure, or fill in a row that the run does not have: ``--write``
refuses the results of a part of the benches.
Called by: people, after ``make bench``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import speed

README: Final = Path(__file__).resolve().parent.parent / "fakes" / "README.md"
_COMMANDS: Final = "NOOP, APPEND, STORE, FETCH, SEARCH by {}, 99 of 100 of the slowest of them"
#: Rows of which a README shows one: the prefix of their keys, and what it says then.
CLIENTS: Final = {"ack-imaplib-": _COMMANDS.format("imaplib"), "ack-imapclient-": _COMMANDS.format("IMAPClient")}
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"


class TableError(Exception):
    """The table can't be written."""


def table(path: Path) -> str:
    """The table of a results file, with what it was taken on, what is absent and what is missed."""
    machine, rows = speed.load(path)
    if lacking := [key for key in speed.ORDER if key not in {row.key for row in rows}]:
        raise TableError(f"{path} has no {', '.join(lacking)}: run all of them with `make bench`")
    absent = "".join(f"\nAbsent: {row.absent}." for row in rows if row.absent)
    missed, targets = sum(row.reached is False for row in rows), sum(row.target is not None for row in rows)
    head = f"Medians of one run on {machine}.\n{missed} of {targets} targets missed.{absent}"
    return f"{head}\n\n{speed.markdown(condensed(rows))}"


def condensed(rows: list[speed.Row]) -> list[speed.Row]:
    """One row for all small commands of a client: the slowest, under a name for all."""
    slowest: dict[str, speed.Row] = {}
    for row in rows:
        for prefix in CLIENTS:
            if row.key.startswith(prefix) and (prefix not in slowest or row.ours > slowest[prefix].ours):
                slowest[prefix] = row
    named = {row.key: replace(row, what=CLIENTS[prefix]) for prefix, row in slowest.items()}
    return [named.get(row.key, row) for row in rows if row.key in named or not row.key.startswith(tuple(CLIENTS))]


def replaced(text: str, inner: str) -> str:
    """The README with other text between the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise TableError(f"{BEGIN} and {END} are not in the README")
    return f"{before}{begin}\n{inner}{end}{after}"


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 can't be done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=speed.RESULTS, help="default: %(default)s")
    parser.add_argument("--readme", type=Path, default=README, help="default: fakes/README.md")
    parser.add_argument("--write", action="store_true", help="put it between the markers of the README")
    arguments = parser.parse_args(argv)
    try:
        inner = table(arguments.results)
        if arguments.write:
            text = arguments.readme.read_text(encoding="utf-8")
            arguments.readme.write_text(replaced(text, inner), encoding="utf-8")
        else:
            sys.stdout.write(inner)
    except (TableError, OSError) as err:
        sys.stderr.write(f"speed_table: {err}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
