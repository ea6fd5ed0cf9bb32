"""What tracing costs a send: ``python benchmarks/trace_cost.py``, about four minutes, on whole stacks of its own.

Arms, each a stack that is up all the time: ``off`` (neither a directory nor a collector: no span is made, nothing is
instrumented), ``off again`` (the same once more: what the ratio of two equal arms looks like here), ``unsampled``
(MAIL_TRACE_SAMPLE=0) and ``full`` (span files); on demand ``collector`` (OTLP to one that takes all, in the generator;
its spans are not counted). They take turns in an order that is drawn, forwards and backwards (ABBA), with the same
arrivals of the same message of 20 kB in each round, and a round's arms are compared with each other. Prints the CPU
time of a send as a ratio to the first arm with its bootstrap interval (95 %), for all processes of the service and for
those that run tasks; how long accepting and sending took; spans a send, and executions without their span.
Called by people. Never does: judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import psycopg

from mailrig.clients import Account
from mailrig.population import populate
from mailrig.scenario import Population
from mailrig.stack import Stack, StackOptions

TEXT_BYTES: Final = 20_000
OFF: Final = {"MAIL_SPAN_DIR": ""}
ARMS: Final[Mapping[str, Mapping[str, str]]] = {
    "off": OFF,
    "off again": OFF,
    "unsampled": {"MAIL_TRACE_SAMPLE": "0"},
    "full": {},
    "collector": OFF,
}
DEFAULT: Final = ("off", "off again", "unsampled", "full")
#: Their CPU time is not the service's.
NEIGHBOURS: Final = frozenset({"postgres", "valkey", "fakemail"})
#: Length of one arm's turn.
TURN_S: Final = 3.0
RESAMPLES: Final = 4000
DRAIN_S: Final = 60.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)
#: So that no process is replaced, and none of its CPU time forgotten, in the middle of a turn.
ALWAYS: Final = {"WORKER_MAX_TASKS_PER_CHILD": "1000000"}


@dataclass(kw_only=True)
class Arm:
    """One stack, and what was measured on it, turn by turn."""

    name: str
    stack: Stack
    span_dir: Path
    accounts: list[Account]
    session: aiohttp.ClientSession
    #: CPU milliseconds of one send, turn by turn, by kind of process.
    cpu_ms: list[Mapping[str, float]] = field(default_factory=list)
    accept_ms: list[float] = field(default_factory=list)
    sends: int = 0

    def kept(self) -> tuple[int, int, int, list[float]]:
        """Spans, executions, executions without a span, and how long each execution took in milliseconds."""
        spans, processed = 0, set()
        for file in self.span_dir.glob("*.jsonl"):
            for line in file.read_text().splitlines():
                spans += 1
                if '"name":"process ' in line:
                    processed.add(json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"])
        with psycopg.connect(self.stack.audit_url) as connection:
            query = "SELECT span_id, ended_ns - started_ns FROM audit.executions WHERE ended_ns IS NOT NULL"
            rows = connection.execute(query).fetchall()
        return spans, len(rows), sum(row[0] not in processed for row in rows), [float(row[1]) / 1e6 for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 wrong use."""
    arguments = _arguments(argv)
    print(f"seed {arguments.seed}, {arguments.rate:g} sends/s, arms {', '.join(arguments.arms)}", flush=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_stacks:
        root, url = Path(folder), open_stacks.enter_context(_collector())
        stacks = {
            name: _stack(
                root / name.replace(" ", "-"),
                {**ARMS[name], **({"OTEL_EXPORTER_OTLP_ENDPOINT": url} if name == "collector" else {})},
                arguments.concurrency,
            )
            for name in arguments.arms
        }
        for stack, _ in stacks.values():
            open_stacks.enter_context(stack)
        arms = asyncio.run(_measure(stacks, arguments))
        results = {arm.name: _result(arm, arms[0], arguments.seed) for arm in arms}
    for name, result in results.items():
        _print(name, result)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=220.0, help="load in all, of all arms (default: 220)")
    parser.add_argument("--rate", type=float, default=25.0, help="sends a second (default: 25)")
    parser.add_argument("--concurrency", type=int, default=2, help="processes that run tasks (default: 2)")
    parser.add_argument(
        "--arms", nargs="+", default=list(DEFAULT), choices=list(ARMS), help="the first is compared with"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the arrivals and of the bootstrap (default: 7)")
    parser.add_argument("--json", type=Path, default=None, help="where to keep the figures")
    return parser.parse_args(argv)


@contextmanager
def _collector() -> Iterator[str]:
    """Takes whatever it is sent; its URL."""

    class Taker(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _stack(root: Path, environment: Mapping[str, str], concurrency: int) -> tuple[Stack, Path]:
    options = StackOptions(
        log_dir=root / "logs",
        span_dir=root / "spans",
        state_dir=root / "state",
        concurrency=concurrency,
        environment={**ALWAYS, **environment},
    )
    return Stack(options), options.span_dir


async def _measure(stacks: Mapping[str, tuple[Stack, Path]], arguments: argparse.Namespace) -> list[Arm]:
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        arms = [_arm(name, stack, span_dir, session, arguments) for name, (stack, span_dir) in stacks.items()]
        for arm in arms:
            # Imports, pools and the first connections are nobody's send.
            await _load(arm, arguments.rate, 3.0, arguments.seed)
            arm.accept_ms.clear()
        rounds = 2 * max(1, round(arguments.seconds / TURN_S / len(arms) / 2))
        chance, order = random.Random(arguments.seed), arms  # noqa: S311  # the order of the arms
        for number in range(rounds):
            # Forwards and backwards in an order that changes: the first and the last would always follow themselves.
            order = chance.sample(arms, k=len(arms)) if number % 2 == 0 else order[::-1]
            for arm in order:
                await _turn(arm, arguments.rate, arguments.seed + number)
        return arms


def _arm(name: str, stack: Stack, span_dir: Path, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> Arm:
    population = Population(tenants=2, mailboxes=2, messages_per_mailbox=1, profile="small")
    accounts = populate(stack, population, seed=arguments.seed, evidence=None)
    return Arm(name=name, stack=stack, span_dir=span_dir, accounts=accounts, session=session)


async def _turn(arm: Arm, rate_per_s: float, seed: int) -> None:
    before = _cpu_ms(arm.stack)
    sends = await _load(arm, rate_per_s, TURN_S, seed)
    after = _cpu_ms(arm.stack)
    arm.cpu_ms.append({kind: (spent - before[kind]) / sends for kind, spent in after.items()})


async def _load(arm: Arm, rate_per_s: float, seconds: float, seed: int) -> int:
    """Send at random times, and wait until all is settled; answers how many."""
    chance, started, sending = random.Random(seed), time.perf_counter(), []  # noqa: S311  # arrivals
    for at_s in _arrivals(chance, rate_per_s, seconds):
        await asyncio.sleep(max(0.0, started + at_s - time.perf_counter()))
        sending.append(asyncio.create_task(_send(arm, arm.accounts[len(sending) % len(arm.accounts)])))
    await asyncio.gather(*sending)
    deadline = time.perf_counter() + DRAIN_S
    with psycopg.connect(arm.stack.audit_url, autocommit=True) as connection:
        while connection.execute(UNSETTLED).fetchall() != [(0,)]:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{arm.name} has not settled its sends within {DRAIN_S:g} s")
            await asyncio.sleep(0.05)
    return len(sending)


UNSETTLED: Final = "SELECT count(*) FROM audit.jobs WHERE state NOT IN ('succeeded', 'failed', 'unknown')"


def _arrivals(chance: random.Random, rate_per_s: float, seconds: float) -> Iterator[float]:
    at_s = chance.expovariate(rate_per_s)
    while at_s < seconds:
        yield at_s
        at_s += chance.expovariate(rate_per_s)


async def _send(arm: Arm, account: Account) -> None:
    body = {
        "client_id": account.clients[0][0],
        "to": ["one@outside.example"],
        "subject": "What a trace costs",
        "text": ("x" * 71 + "\n") * (TEXT_BYTES // 72),
    }
    headers, started = {"Authorization": f"Bearer {account.token}"}, time.perf_counter()
    url = f"{arm.stack.api_url}/api/v1/{account.tenant}/email/send"
    async with arm.session.post(url, json=body, headers=headers) as answer:
        answer.raise_for_status()
        await answer.read()
    arm.accept_ms.append((time.perf_counter() - started) * 1000)
    arm.sends += 1


def _cpu_ms(stack: Stack) -> dict[str, float]:
    """CPU time so far by kind of process; ``tasks`` are the worker's children."""
    spent: dict[str, float] = defaultdict(float)
    for kind, pid in stack.pids.items():
        if kind not in NEIGHBOURS:
            process = psutil.Process(pid)
            spent[kind] += _spent_ms(process)
            for child in process.children(recursive=True):
                spent["tasks" if kind == "worker" else kind] += _spent_ms(child)
    return spent


def _spent_ms(process: psutil.Process) -> float:
    """By the scheduler's nanoseconds: the process's own figures come in steps of 10 ms, more than a send takes."""
    tasks = Path(f"/proc/{process.pid}/task")
    if tasks.exists():
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e6
    times = process.cpu_times()
    return float(times.user + times.system) * 1000


# --- what came of it ---


def _result(arm: Arm, base: Arm, seed: int) -> dict[str, Any]:
    spans, executions, lost, ran_ms = arm.kept()
    return {
        "rounds": len(arm.cpu_ms),
        "sends": arm.sends,
        "cpu_ms": {kind: statistics.fmean(turn[kind] for turn in arm.cpu_ms) for kind in arm.cpu_ms[0]},
        "all_ratio": _ratio(_all(arm), _all(base), seed),
        "tasks_ratio": _ratio(_tasks(arm), _tasks(base), seed),
        "accept_ms": _quantiles(arm.accept_ms),
        "run_ms": _quantiles(ran_ms),
        "spans_per_send": spans / executions,
        # An arm without any span was not to have one.
        "executions_without_span": lost if spans else 0,
    }


def _all(arm: Arm) -> list[float]:
    return [sum(turn.values()) for turn in arm.cpu_ms]


def _tasks(arm: Arm) -> list[float]:
    return [turn["tasks"] for turn in arm.cpu_ms]


def _ratio(arm: Sequence[float], base: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Of the sums, and the bounds within which 95 % of resampled rounds are."""
    chance, pairs = random.Random(seed), list(zip(arm, base, strict=True))  # noqa: S311  # statistics
    draws = sorted(_of_sums(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return _of_sums(pairs), draws[int(RESAMPLES * 0.025)], draws[int(RESAMPLES * 0.975)]


def _of_sums(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(one for one, _ in pairs) / sum(other for _, other in pairs)


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=20)
    return cuts[9], cuts[18]


def _print(name: str, result: Mapping[str, Any]) -> None:
    print(f"{name}: {result['sends']} sends in {result['rounds']} rounds")
    for what, spent_ms in (("all", sum(result["cpu_ms"].values())), ("tasks", result["cpu_ms"]["tasks"])):
        ratio, low, high = result[f"{what}_ratio"]
        print(f"  CPU of a send, {what}: {spent_ms:.2f} ms, x {ratio:.3f} ({low:.3f} to {high:.3f})")
    print("  " + ", ".join(f"{kind} {ms:.2f}" for kind, ms in result["cpu_ms"].items()))
    (accept50, accept95), (run50, run95) = result["accept_ms"], result["run_ms"]
    print(f"  accepted after p50 {accept50:.1f}, p95 {accept95:.1f} ms; ran p50 {run50:.1f}, p95 {run95:.1f} ms")
    lost = result["executions_without_span"]
    print(f"  {result['spans_per_send']:.1f} spans a send; {lost} executions without their span", flush=True)


if __name__ == "__main__":
    sys.exit(main())
