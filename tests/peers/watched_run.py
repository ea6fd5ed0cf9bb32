"""A run with kills and faults that a real Prometheus watches, and what its dashboards are asked.

Owns: the rig's process and the folder of its run.
Never: judges; that is the tests'.
Called by: the test of panels.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import free_ports
from prometheus_server import EVERY_S, Prometheus, QueryError, Window, finite, over_blocks, over_exporter

from mailboards.__main__ import BOARDS
from mailboards.names import EXPORTER_JOB

GRAFANA = Path(__file__).parents[2] / "dashboards" / "grafana"
#: Grafana's own rule: four scrapes at least.
_RATE_WINDOW_S = 4 * EVERY_S
_RUN_S = 200
#: Of the rig's exit codes, the one that says that there was no run.
_WRONG_USE = 2
#: The series that a query may lack in all of a run, by board, panel and letter.
_NEEDS = {
    (board.uid, panel.title, letter): query.needs.name
    for board in BOARDS
    for row in board.rows
    for panel in row.panels
    for letter, query in zip("ABCDEFGHIJKLMNOP", panel.queries, strict=False)
    if query.needs is not None
}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A run, and the Prometheus that watched it or that has its export."""

    prometheus: Prometheus
    window: Window
    #: The run's folder.
    run: Path


@contextlib.contextmanager
def watched_run(program: str, folder: Path) -> Iterator[Watched]:
    """The rig's own command, as anybody runs it; it ends by itself."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "mailrig", "run", "observed", "--exporter-port", str(port)]
    clean = {key: value for key, value in os.environ.items() if key not in {"REDIS_URL", "DATABASE_URL"}}
    argv += ["--runs-dir", str(folder / "runs")]
    with over_exporter(program, folder, port) as prometheus:
        _run(argv, log=folder / "mailrig.log", env=clean)
        yield Watched(prometheus=prometheus, window=_window(prometheus), run=folder / "runs" / "observed" / "latest")


def _run(argv: list[str], *, log: Path, env: dict[str, str]) -> None:
    """Whether the run's gates pass is another test's: here it must have been run."""
    with log.open("wb") as out, subprocess.Popen(argv, env=env, stdout=out, stderr=out) as rig:
        try:
            code = rig.wait(timeout=_RUN_S)
        except subprocess.TimeoutExpired:
            # Asked to end, it stops all that it started.
            rig.terminate()
            raise
    assert code != _WRONG_USE, log.read_text()


def _window(prometheus: Prometheus) -> Window:
    """From the first to the last time that the exporter answered."""
    query = f'(up{{job="{EXPORTER_JOB}"}} == 1)[15m:{EVERY_S}s]'
    (series,) = prometheus.ask("query", query=query)["result"]
    times = [float(time) for time, _ in series["values"]]
    # The first second has no rate yet, and the last may be one in which everything stops.
    return Window(start_s=min(times), end_s=max(times) - EVERY_S)


@contextlib.contextmanager
def exported_run(programs: tuple[str, str], folder: Path, run: Path) -> Iterator[Watched]:
    """The run's export, beside itself as a second run, in blocks that promtool made."""
    prometheus, promtool = programs
    text = folder / "runs.txt"
    for argv in (
        [sys.executable, "-m", "mailrig", "export", str(run), str(run), "-o", str(text)],
        [promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")],
    ):
        made = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
    times = [float(line.rsplit(" ", 1)[1]) for line in text.read_text().splitlines() if not line.startswith("#")]
    with over_blocks(prometheus, folder) as serving:
        yield Watched(prometheus=serving, window=Window(start_s=min(times), end_s=max(times)), run=run)


def board(name: str) -> dict[str, Any]:
    """A committed dashboard."""
    return json.loads((GRAFANA / f"{name}.json").read_text())


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that ask something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def substituted(expr: str, window: Window) -> str:
    """What Grafana makes of a query when all is chosen and the window is shown."""
    expr = expr.replace("$__rate_interval", f"{_RATE_WINDOW_S}s").replace("$__range", f"{window.length_s}s")
    return re.sub(r"\$\w+", ".*", expr)


def complaints(dashboard: dict[str, Any], watched: Watched) -> list[str]:
    """A line for each query that Prometheus refuses, or that shows nothing."""
    return [
        f"{dashboard['title']} / {panel['title']} / {target['refId']}: {what}: {target['expr']}"
        for panel in panels(dashboard)
        for target in panel["targets"]
        if (what := _complaint((dashboard["uid"], panel["title"], target["refId"]), target, watched))
    ]


def _complaint(place: tuple[str, str, str], target: dict[str, Any], watched: Watched) -> str:
    expr, prometheus = substituted(target["expr"], watched.window), watched.prometheus
    try:
        found = (
            prometheus.at(expr, watched.window.end_s)
            if target.get("instant")
            else prometheus.over(expr, watched.window)
        )
    except QueryError as err:
        return f"refused ({err})"
    if finite(found):
        return ""
    needed = _NEEDS.get(place)
    if needed and not prometheus.over(f'{{__name__="{needed}"}}', watched.window):
        # Rightly: what it shows does not exist in this run.
        return ""
    return "no number" if found else "empty"


def layout(dashboard: dict[str, Any]) -> str:
    """The grid as text: where to look for the panel that a complaint names."""
    lines = []
    for panel in sorted(dashboard["panels"], key=lambda p: (p["gridPos"]["y"], p["gridPos"]["x"])):
        at = panel["gridPos"]
        lines.append(f"{at['y']:4} |{' ' * at['x'] + '#' * at['w']:24}| {panel['type']:10} {panel['title']}")
    return "\n".join(lines)
