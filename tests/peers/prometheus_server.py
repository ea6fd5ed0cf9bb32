"""A real Prometheus: over the shipped configuration and a live exporter, or over blocks that promtool made.

Owns: its folder and its process.
Never: scrapes faster than once a second, or anything but 127.0.0.1.
Called by: the tests of rules and panels.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from processes import HOST, free_ports, running

PACKAGE = "prometheus"
SHIPPED = Path(__file__).parents[2] / "dashboards" / "prometheus"
#: Seconds between scrapes, and between evaluations of the rules.
EVERY_S = 1


class QueryError(Exception):
    """Prometheus did not like a query."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of time in which the exporter answered."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> int:
        """Whole seconds."""
        return max(1, math.ceil(self.end_s - self.start_s))


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """One that serves."""

    url: str

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer.

        Raises:
            QueryError: with what Prometheus says of it.
        """
        body = urllib.parse.urlencode(parameters, doseq=True).encode()
        url = f"{self.url}/api/v1/{path}"
        # Only what takes a query takes a POST.
        request = urllib.request.Request(url, data=body) if "query" in parameters else f"{url}?{body.decode()}"
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as err:
            with err:
                raise QueryError(json.load(err)["error"]) from err

    def at(self, expr: str, time_s: float) -> list[dict[str, Any]]:
        """Series of one moment, with their numbers."""
        found = self.ask("query", query=expr, time=time_s)["result"]
        return [{**series, "values": [series["value"]]} for series in found]

    def over(self, expr: str, window: Window) -> list[dict[str, Any]]:
        """Series of a stretch of time, a number a second."""
        step_s = max(EVERY_S, window.length_s // 10_000 + 1)
        return self.ask("query_range", query=expr, start=window.start_s, end=window.end_s, step=step_s)["result"]

    def exemplars(self, expr: str, window: Window) -> list[dict[str, str]]:
        """Labels of the exemplars of all series that an expression selects."""
        found = self.ask("query_exemplars", query=expr, start=window.start_s, end=window.end_s)
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]


def finite(series: list[dict[str, Any]]) -> list[float]:
    """The numbers of some series, without those that are none."""
    numbers = (float(value) for one in series for _, value in one["values"])
    return [number for number in numbers if math.isfinite(number)]


@contextlib.contextmanager
def over_exporter(program: str, folder: Path, exporter_port: int) -> Iterator[Prometheus]:
    """With all that is shipped, but for the addresses, and quicker."""
    shutil.copytree(SHIPPED, folder / "config")
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    (port,) = free_ports(1)
    config["global"] = {"scrape_interval": f"{EVERY_S}s", "evaluation_interval": f"{EVERY_S}s"}
    moved = {"exporter:9540": f"{HOST}:{exporter_port}", "localhost:9090": f"{HOST}:{port}"}
    for job in config["scrape_configs"]:
        for targets in job["static_configs"]:
            targets["targets"] = [moved[target] for target in targets["targets"] if target in moved]
    # Collector and Jaeger are not here: a job without a target is none.
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["static_configs"][0]["targets"]]
    (folder / "config" / "prometheus.yml").write_text(yaml.safe_dump(config))
    for name in config["rule_files"]:
        rules = yaml.safe_load((SHIPPED / name).read_text())
        for group in rules["groups"]:
            group["interval"] = f"{EVERY_S}s"
        (folder / "config" / name).write_text(yaml.safe_dump(rules))
    with _serving(program, folder, port) as serving:
        yield serving


@contextlib.contextmanager
def over_blocks(program: str, folder: Path) -> Iterator[Prometheus]:
    """Over the blocks in a folder's ``data``, with nothing to scrape."""
    (port,) = free_ports(1)
    (folder / "config").mkdir()
    (folder / "config" / "prometheus.yml").write_text("global: {}\n")
    with _serving(program, folder, port) as serving:
        yield serving


@contextlib.contextmanager
def _serving(program: str, folder: Path, port: int) -> Iterator[Prometheus]:
    argv = [
        program,
        f"--config.file={folder / 'config' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        # What was recorded long ago is kept.
        "--storage.tsdb.retention.time=10y",
        "--enable-feature=exemplar-storage",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
    serving = Prometheus(url=f"http://{HOST}:{port}")

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{serving.url}/-/ready", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    with running(argv, log=folder / "prometheus.log", ready=ready):
        yield serving
