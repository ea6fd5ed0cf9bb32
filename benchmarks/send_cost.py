"""What one send costs and how many there can be: ``python benchmarks/send_cost.py``, on a whole stack of its own.

Prints the CPU milliseconds that one send of 18 kB to three recipients takes in each process, the time from the intended
arrival to the 202, and the highest rate that the stack sustains: after a step of arrivals at that rate all jobs are
settled within ``SETTLE_S``. Everything runs on this machine, the generator included; its own share is shown apart.
Called by: people. Never does: judge; a figure here is one run on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from fakemail.client import FakeMail
from mailrig.clients import Account
from mailrig.population import populate
from mailrig.scenario import Population
from mailrig.stack import Stack, StackOptions

TEXT_BYTES: Final = 18_000
RECIPIENTS: Final = 3
#: How long after the last arrival all jobs must be settled for a rate to count as sustained.
SETTLE_S: Final = 2.0
DRAIN_S: Final = 60.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rate, and what came of it."""

    rate_per_s: float
    sends: int
    #: From the intended arrival to the 202, milliseconds, sorted.
    accept_ms: list[float]
    refused: int
    #: From the last arrival until nothing was left to do; None if that took longer than ``DRAIN_S``.
    settle_s: float | None
    #: Kind of process -> CPU milliseconds of one send.
    cpu_ms: dict[str, float]

    @property
    def sustained(self) -> bool:
        """Whether the stack kept up."""
        return not self.refused and self.settle_s is not None and self.settle_s <= SETTLE_S


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 wrong use."""
    arguments = _arguments(argv)
    environment = {"MAIL_SPAN_DIR": ""} if arguments.untraced else {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        options = StackOptions(
            log_dir=root / "logs",
            span_dir=root / "spans",
            state_dir=root / "state",
            time_scale=1.0,
            concurrency=arguments.concurrency,
            environment=environment,
        )
        with Stack(options) as stack:
            population = Population(tenants=2, mailboxes=2, messages_per_mailbox=1, profile="small")
            accounts = populate(stack, population, seed=arguments.seed, evidence=None)
            if arguments.delay_ms:
                FakeMail(stack.control_url).put_fault("smtp.data", delay_ms=arguments.delay_ms)
            asyncio.run(_steps(stack, accounts, arguments))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=40.0, help="sends a second of the cost step (default: 40)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a step (default: 20)")
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[60, 80, 100, 110, 120, 130, 140], help="further steps"
    )
    parser.add_argument("--concurrency", type=int, default=4, help="processes that run tasks (default: 4)")
    parser.add_argument("--delay-ms", type=int, default=0, help="how long the mail server takes over DATA (default: 0)")
    parser.add_argument("--untraced", action="store_true", help="write no spans")
    parser.add_argument("--seed", type=int, default=7, help="of the arrivals (default: 7)")
    parser.add_argument("--json", type=Path, default=None, help="where to keep the figures")
    return parser.parse_args(argv)


def _loop_ms() -> float:
    """What this machine takes for a million additions: figures of two days are compared by it."""
    started, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return (time.process_time() - started) * 1000


async def _steps(stack: Stack, accounts: list[Account], arguments: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(stack.api_url, connector=connector, timeout=TIMEOUT) as session:
        # Imports, pools and the first connections are nobody's send.
        await _step(stack, session, accounts, rate_per_s=20, seconds=3, seed=arguments.seed)
        steps = []
        for rate in (arguments.rate, *arguments.rates):
            step = await _step(
                stack, session, accounts, rate_per_s=rate, seconds=arguments.seconds, seed=arguments.seed
            )
            _print(step)
            steps.append(step)
            if not step.sustained and rate != arguments.rate:
                break
    print(f"a loop of a million additions takes {_loop_ms():.0f} ms of CPU here")
    best = max((s.rate_per_s for s in steps if s.sustained), default=None)
    print(f"highest sustained rate: {best:g} sends/s" if best else "no rate was sustained")
    if arguments.json:
        arguments.json.write_text(json.dumps([s.__dict__ for s in steps], indent=2))


async def _step(
    stack: Stack,
    session: aiohttp.ClientSession,
    accounts: list[Account],
    *,
    rate_per_s: float,
    seconds: float,
    seed: int,
) -> Step:
    chance, before, latencies, refused = random.Random(seed), _cpu(stack), [], []  # noqa: S311  # arrivals
    started, tasks = time.perf_counter(), []
    for at_s in _arrivals(chance, rate_per_s, seconds):
        await asyncio.sleep(max(0.0, started + at_s - time.perf_counter()))
        account = accounts[len(tasks) % len(accounts)]
        tasks.append(asyncio.create_task(_send(session, account, started + at_s, latencies, refused)))
    await asyncio.gather(*tasks)
    settle_s = await _settled(session, accounts)
    after = _cpu(stack)
    cpu_ms = {kind: (after[kind] - before[kind]) * 1000 / len(tasks) for kind in after}
    return Step(
        rate_per_s=rate_per_s,
        sends=len(tasks),
        accept_ms=sorted(latencies),
        refused=len(refused),
        settle_s=settle_s,
        cpu_ms=cpu_ms,
    )


def _arrivals(chance: random.Random, rate_per_s: float, seconds: float) -> Iterator[float]:
    at_s = chance.expovariate(rate_per_s)
    while at_s < seconds:
        yield at_s
        at_s += chance.expovariate(rate_per_s)


async def _send(
    session: aiohttp.ClientSession, account: Account, intended: float, latencies: list[float], refused: list[int]
) -> None:
    body = {
        "client_id": account.clients[0][0],
        "to": [f"r{k}@outside.example" for k in range(RECIPIENTS)],
        "subject": "What a send costs",
        "text": ("x" * 71 + "\n") * (TEXT_BYTES // 72),
    }
    headers = {"Authorization": f"Bearer {account.token}"}
    async with session.post(f"/api/v1/{account.tenant}/email/send", json=body, headers=headers) as answer:
        await answer.read()
        (latencies if answer.status == 202 else refused).append(  # type: ignore[attr-defined]
            (time.perf_counter() - intended) * 1000 if answer.status == 202 else answer.status
        )


async def _settled(session: aiohttp.ClientSession, accounts: list[Account]) -> float | None:
    """Seconds until the queue is empty: the last send of each account, which is the last in its queue, is settled."""
    started = time.perf_counter()
    markers = []
    for account in accounts:
        body = {"client_id": account.clients[0][0], "to": ["last@outside.example"], "subject": "last", "text": "-"}
        headers = {"Authorization": f"Bearer {account.token}"}
        async with session.post(f"/api/v1/{account.tenant}/email/send", json=body, headers=headers) as answer:
            markers.append((account, (await answer.json())["task_id"]))
    for account, task_id in markers:
        headers = {"Authorization": f"Bearer {account.token}"}
        while True:
            async with session.get(f"/api/v1/{account.tenant}/tasks/{task_id}", headers=headers) as answer:
                row: dict[str, Any] = await answer.json()
            if row["state"] in {"succeeded", "failed", "unknown"}:
                break
            if time.perf_counter() - started > DRAIN_S:
                return None
            await asyncio.sleep(0.05)
    return time.perf_counter() - started


def _cpu(stack: Stack) -> Counter[str]:
    """CPU seconds by kind of process, of those that have ended as well (their parents keep count)."""
    total: Counter[str] = Counter()
    for kind, pid in {**stack.pids, "generator": psutil.Process().pid}.items():
        process = psutil.Process(pid)
        if kind == "worker":
            total["worker parent"] += _own(process)
        else:
            total[kind] += _own(process)
        if kind == "generator":
            continue
        name = "worker children" if kind == "worker" else kind
        total[name] += _gone(process)
        for child in process.children(recursive=True):
            total[name] += _own(child) + _gone(child)
    return total


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _gone(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def _print(step: Step) -> None:
    accept = step.accept_ms
    p99 = accept[min(len(accept) - 1, int(len(accept) * 0.99))]
    settle = f"{step.settle_s:.2f} s" if step.settle_s is not None else f"over {DRAIN_S:g} s"
    print(
        f"{step.rate_per_s:g}/s: {step.sends} sends, accept p50 {statistics.median(accept):.1f} ms, p99 {p99:.1f} ms, "
        f"settled after {settle}, {step.refused} refused -> {'sustained' if step.sustained else 'NOT sustained'}"
    )
    costs = {k: v for k, v in sorted(step.cpu_ms.items(), key=lambda item: -item[1]) if k != "generator"}
    shares = ", ".join(f"{kind} {ms:.2f}" for kind, ms in costs.items())
    print(
        f"  CPU ms a send: {sum(costs.values()):.2f} ({shares}); generator {step.cpu_ms['generator']:.2f}", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
