"""The speeds of one run: collected by the benches, printed at the end, kept in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import speed

SPEEDS = pytest.StashKey[speed.Speeds]()


def pytest_addoption(parser):
    parser.addoption(
        "--speed-results",
        default=os.environ.get("SPEED_RESULTS", str(speed.RESULTS)),
        metavar="FILE",
        help="where the speeds are kept as JSON and Markdown (SPEED_RESULTS; default: %(default)s)",
    )


def pytest_configure(config):
    config.stash[SPEEDS] = speed.Speeds()


def pytest_terminal_summary(terminalreporter, config):
    speeds = config.stash[SPEEDS]
    if not speeds.rows:
        return
    path = Path(config.getoption("--speed-results"))
    speeds.save(path)
    terminalreporter.section("fakemail beside its neighbours (medians of one run)")
    for line, row in zip(speed.text(speeds.rows), [None, *speeds.rows], strict=True):
        terminalreporter.write_line(line, red=row is not None and row.reached is False)
    for row in speeds.rows:
        if row.absent:
            terminalreporter.write_line(f"absent: {row.absent}", yellow=True)
    missed = [row.key for row in speeds.missed]
    told = f"{len(missed)} missed: {', '.join(missed)}" if missed else "no target missed"
    terminalreporter.write_line(f"{speed.machine()}; {told}; kept in {path}", red=bool(missed), green=not missed)


@pytest.fixture
def speeds(request):
    """Where a bench leaves its rows."""
    return request.config.stash[SPEEDS]
