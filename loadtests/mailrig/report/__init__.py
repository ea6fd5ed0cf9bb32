"""The report of a run: terminal, Markdown, JUnit, and one page that opens anywhere.

Rule 1: it shows what is there and never judges; ``verdict.json`` is the judge's word.
Rule 2: it works from the run's folder alone, and half a folder gives half a report, never a crash.
Rule 3: all that came from outside (addresses, names, error texts) is text wherever it is shown, never markup.

    folder      the run's files, read with patience      plot        the frame and the shapes of a chart
    timeline    phases, marks and requests in time       charts      rates, latencies, queues, memory
    workers     which process ran what                   lanes       rows over time
    traces      traces as trees                          breakdown   where an execution's time went
    executions  which executions are worth a place       census      how whole the traces are
    loglines    the log lines of a trace                 bundle      the traces that a page carries
    slowest     from a slow execution to its trace       figures     outcomes, healings, tenants
    tables      all other tables                         words       how values are written
    markup      HTML that escapes by itself              links       ids as links
    view        what all of them see                     headline    the top of the page
    page        report.html                              text        junit.xml and report.md
    terminal    the same for a terminal

Callers: runner and cli.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mailrig.report import page, terminal, text
from mailrig.report.folder import load_folder
from mailrig.report.view import view
from mailrig.store import Run

__all__ = ["terminal_verdict", "terminal_waterfall", "write_reports"]


def write_reports(run_dir: Path) -> list[Path]:
    """Write junit.xml, report.md and report.html beside the evidence; each appears whole or not at all."""
    seen, run = view(load_folder(run_dir)), Run(path=run_dir)
    return [
        run.write_text("junit.xml", text.junit(seen.folder.verdict)),
        run.write_text("report.md", text.markdown(seen)),
        run.write_text("report.html", page.render(seen)),
    ]


def terminal_verdict(verdict: Mapping[str, Any], *, width: int, color: bool, report: Path | None = None) -> str:
    """A table of all gates, the cases of those that did not pass, the verdict, and the report's path if given."""
    return terminal.verdict_text(verdict, width=width, color=color, report=report)


def terminal_waterfall(run_dir: Path, trace_id: str | None, *, width: int, color: bool) -> str:
    """A trace drawn as a tree with bars; without an id a list of the traces worth a look, and the slowest send.

    ``trace_id`` may be the beginning of an id, and that of a task or an execution.

    Raises:
        RigError: there is no such trace; names the nearest ones.
    """
    return terminal.waterfall_text(run_dir, trace_id, width=width, color=color)
