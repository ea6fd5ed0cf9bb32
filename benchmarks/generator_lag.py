"""How late the load generator is, alone: ``python benchmarks/generator_lag.py``.

A Locust process with our locustfile sends at rates up to 500 a second to an API on loopback that does nothing but take,
settle and tell; what is measured is the time from the intended instant of each arrival to its request, by the
generator's own history, and the CPU time that a request costs it. Two processes, and nothing else of the product.
Called by: people. Never does: judge; a figure here is one run on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import psutil
from aiohttp import web

from mailrig.history import read_history
from mailrig.runner.load import locust_argv
from mailrig.statistics import percentile

WARMUP_S: Final = 2
FEED_LIMIT: Final = 500
SCENARIO: Final = """
name = "lag"
description = "Sends of one recipient at a rate, to an API that does nothing."
seed = 1
[load]
arrivals = "poisson"
warmup_s = {warmup_s}
duration_s = {seconds}
[[load.op]]
f = "send"
rate_per_s = {rate}
[population]
tenants = 2
mailboxes = 4
messages_per_mailbox = 0
[system]
[drain]
timeout_s = 5
"""


# --- the API that does nothing ----------------------------------------------------------------------------------------


class NullApi:
    """202 for every POST; each is settled at once and told by its tenant's feed."""

    def __init__(self) -> None:
        self.settled: dict[str, list[dict[str, Any]]] = {}
        self.count = 0

    async def send(self, request: web.Request) -> web.Response:
        await request.read()
        self.count += 1
        now_ns = time.time_ns()
        times = {"enqueued_ns": now_ns, "due_ns": now_ns, "started_ns": now_ns, "ended_ns": now_ns}
        row = {"task_id": f"t{self.count}", "queue": "send", "state": "succeeded", "trace_id": "0" * 32, **times}
        self.settled.setdefault(request.match_info["tenant"], []).append(row)
        return web.json_response({"task_id": row["task_id"], "message_id": "<m>"}, status=202)

    async def feed(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        rows = self.settled.get(request.match_info["tenant"], [])[after : after + FEED_LIMIT]
        end = after + len(rows)
        return web.json_response({"tasks": rows, "cursor": str(end) if end else None})


def serve(ready: Connection) -> None:
    """A process of its own; says its port, and ends with its parent."""
    asyncio.run(_serve(ready))


async def _serve(ready: Connection) -> None:
    api, app = NullApi(), web.Application()
    app.router.add_post("/api/v1/{tenant}/email/send", api.send)
    app.router.add_get("/api/v1/{tenant}/tasks", api.feed)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    ready.send(runner.addresses[0][1])
    await asyncio.get_running_loop().run_in_executor(None, ready.poll, None)
    await runner.cleanup()


# --- one rate ---------------------------------------------------------------------------------------------------------


def one_rate(rate: float, seconds: float) -> dict[str, float]:
    """Lag percentiles in milliseconds, and the generator's CPU milliseconds a request."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    api = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    api.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _load(Path(folder), f"http://127.0.0.1:{ours.recv()}", rate, seconds)
    finally:
        ours.close()
        api.terminate()
        api.join()


def _load(folder: Path, url: str, rate: float, seconds: float) -> dict[str, float]:
    stack, scenario, history = folder / "stack.json", folder / "lag.toml", folder / "history.jsonl"
    stack.write_text(json.dumps({"api_url": url, "population": [*_accounts()]}))
    scenario.write_text(SCENARIO.format(warmup_s=WARMUP_S, seconds=seconds, rate=rate))
    files = {"MAILRIG_STACK": str(stack), "MAILRIG_SCENARIO": str(scenario), "MAILRIG_HISTORY": str(history)}
    with psutil.Popen(
        locust_argv("--headless", "--only-summary"), env={**os.environ, **files}, cwd=folder, stdout=-3, stderr=-3
    ) as locust:
        cpu_s = 0.0
        while locust.poll() is None:
            # The last look before the end is what is known of it: the warm-up and the start are in it.
            cpu_s = max(cpu_s, _cpu_s(locust))
            time.sleep(0.1)
    if locust.returncode:
        sys.exit(f"Locust ended with exit code {locust.returncode}")
    invoked = [op for op in read_history(history) if op.type == "invoke"]
    lags_ms = [op.value["lag_ns"] / 1e6 for op in invoked if not op.value["warmup"]]
    ranks = {f"p{rank}": percentile(lags_ms, rank) for rank in (50, 95, 99)}
    return {"requests": len(lags_ms), **ranks, "max": max(lags_ms), "cpu_ms": cpu_s * 1e3 / len(invoked)}


def _accounts() -> list[dict[str, Any]]:
    return [
        {
            "tenant": tenant,
            "user": "alice",
            "token": "none",
            "clients": [{"client_id": f"{tenant}-{k}", "address": f"user{k}@{tenant}.example"} for k in range(2)],
            "attachment_ids": [],
        }
        for tenant in ("acme", "globex")
    ]


def _cpu_s(process: psutil.Popen) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each rate."""
    parser = argparse.ArgumentParser(description="How late the load generator is, alone.")
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 250, 500], help="arrivals a second")
    parser.add_argument("--seconds", type=float, default=15, help="for each rate, after two of warm-up")
    arguments = parser.parse_args(argv)
    print(
        f"{'rate/s':>8} {'requests':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'max ms':>8} {'CPU ms/request':>15}"
    )
    for rate in arguments.rates:
        row = one_rate(rate, arguments.seconds)
        told = " ".join(f"{row[name]:8.2f}" for name in ("p50", "p95", "p99", "max"))
        print(f"{rate:8.0f} {row['requests']:9.0f} {told} {row['cpu_ms']:15.2f}", flush=True)


if __name__ == "__main__":
    main()
