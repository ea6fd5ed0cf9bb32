"""A real Jaeger on free ports, with its spans in memory: found, or built from Go's module cache or its proxy.

Owns: its version, its configuration, and how its program is come by. Without its web page, which nothing here needs.
Never: builds where nobody asked for it: on a laptop only from what Go's cache has already, it takes minutes.
Called by: the tests of Jaeger.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from processes import HOST, free_ports, running

#: The line of Jaeger 2, whose modules count on from 1.
VERSION = "v1.76.0"
MODULE = "github.com/jaegertracing/jaeger"
GO_AT_LEAST = (1, 24)
BUILD_S = 1800
_CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
extensions:
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "{host}:{query}"}}
    grpc: {{endpoint: "{host}:{grpc}"}}
  jaeger_storage:
    backends:
      memory: {{memory: {{max_traces: 100000}}}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: "{host}:{otlp}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


class NoJaegerError(Exception):
    """There is no program, and none can be built here."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where it is."""

    url: str
    otlp: str


def program(cache: Path) -> Path:
    """The program: named by JAEGER, on the path, built earlier, or built now."""
    given = os.environ.get("JAEGER") or shutil.which("jaeger")
    built = cache / f"jaeger-{VERSION}"
    if given:
        return Path(given)
    if not built.exists():
        _build(cache, built)
    return built


def _build(cache: Path, built: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise NoJaegerError("neither JAEGER, nor jaeger on the path, nor go to build it with")
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, env=env, timeout=60)
    found = re.match(r"go(\d+)\.(\d+)", version.stdout)
    if found is None or (int(found[1]), int(found[2])) < GO_AT_LEAST:
        raise NoJaegerError(
            f"{version.stdout.strip()} is too old to build it: {'.'.join(map(str, GO_AT_LEAST))} is not"
        )
    if not os.environ.get("CI"):
        env["GOPROXY"] = "off"
    place = cache / "build"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # `go install MODULE@VERSION` refuses a module that replaces others, as this one does.
    for step in (
        ("mod", "init", "build"),
        ("get", "-tool", f"{MODULE}/cmd/jaeger@{VERSION}"),
        ("build", "-o", str(built), f"{MODULE}/cmd/jaeger"),
    ):
        done = subprocess.run(
            [go, *step], capture_output=True, text=True, check=False, cwd=place, env=env, timeout=BUILD_S
        )
        if done.returncode != 0:
            raise NoJaegerError(f"go {step[0]} failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")


@contextlib.contextmanager
def jaeger(path: Path, folder: Path) -> Iterator[Running]:
    """Jaeger from the moment it serves until it is gone."""
    query, grpc, otlp = free_ports(3)
    config = folder / "jaeger.yaml"
    config.write_text(_CONFIG.format(host=HOST, query=query, grpc=grpc, otlp=otlp))
    where = Running(url=f"http://{HOST}:{query}", otlp=f"http://{HOST}:{otlp}")
    with running([str(path), "--config", str(config)], log=folder / "jaeger.log", ready=lambda: _serves(where)):
        yield where


def _serves(where: Running) -> bool:
    with contextlib.suppress(OSError, ValueError):
        with urllib.request.urlopen(f"{where.url}/api/v3/services", timeout=2) as answer:
            json.loads(answer.read())
        request = urllib.request.Request(
            f"{where.otlp}/v1/traces", data=b"{}", headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=2):
            return True
    return False
