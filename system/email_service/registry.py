"""The registry of running workers in Redis 0: what each says of itself, and what others may believe of it.

Rule 1: on the same host, /proc is believed and not the entry: a killed worker leaves its entry behind. On another host
(every container is one) the entry is believed as long as it is fresh.
Rule 2: nothing here talks to Redis or knows Celery. Callers: worker (writes every few seconds), exporter (reads).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psutil

_log = logging.getLogger(__name__)

#: How often a worker says what it is. Reading the memory of five processes takes 2 to 10 ms.
EVERY_S: Final = 5.0
#: An entry that is older is of a worker that is gone, stopped or cut off from the broker.
STALE_S: Final = 20.0
#: A worker that was killed and came back under another name leaves its entry; the next one to start removes it.
FORGET_S: Final = 86_400.0
#: Two readings of one process's start may differ by the clock's tick and by a correction of the boot time.
START_TOLERANCE_S: Final = 2.0
#: cgroup v1 says no limit by a number close to 2^63.
_NO_LIMIT_BYTES: Final = 2**60

Sizes = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker that runs."""

    node: str
    concurrency: int
    started_s: float
    #: Tasks that it can run at once now; None where nobody knows.
    capacity: int | None = None
    #: Process (``main``, ``child-0``, ...) -> kind (rss, pss, uss) -> bytes.
    memory: Mapping[str, Sizes] = field(default_factory=dict)
    #: ``current`` and ``limit`` of its control group in bytes, as far as there are any.
    cgroup: Sizes = field(default_factory=dict)


# --- what a worker says ---------------------------------------------------------------------------------------------


def state(pid: int, children: Iterable[int], *, prefetch: int, now_ns: int) -> dict[str, Any]:
    """What changes: memory, capacity, and when this was.

    ``prefetch`` is how many messages the consumer takes at most, 0 for any number.
    """
    memory = _memory(pid, children)
    return {
        "seen_ns": now_ns,
        "prefetch": prefetch,
        "capacity": capacity(len(memory) - 1, prefetch),
        "memory": memory,
        "cgroup": cgroup(),
    }


def capacity(living: int, prefetch: int) -> int:
    """What a worker with so many living processes can run at once, if it takes so many messages at most."""
    return max(min(living, prefetch) if prefetch > 0 else living, 0)


def _memory(pid: int, children: Iterable[int]) -> dict[str, Sizes]:
    """By process; those that are gone are left out."""
    living = filter(None, map(memory_of, sorted(children)))
    return {"main": memory_of(pid), **{f"child-{i}": sizes for i, sizes in enumerate(living)}}


def memory_of(pid: int) -> dict[str, int]:
    """rss, pss and uss in bytes, as far as this system tells them; nothing of a process that is gone."""
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open("rb") as file:
            kilobytes = {line.split(b":")[0]: int(line.split()[1]) for line in file if line.endswith(b" kB\n")}
        private = kilobytes[b"Private_Clean"] + kilobytes[b"Private_Dirty"]
        sizes = {"rss": kilobytes[b"Rss"], "pss": kilobytes[b"Pss"], "uss": private}
    except (OSError, KeyError):
        # Gone, a zombie, or no Linux.
        return _memory_by_psutil(pid)
    return {kind: size * 1024 for kind, size in sizes.items()}


def _memory_by_psutil(pid: int) -> dict[str, int]:
    try:
        info = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return {}
    return {kind: getattr(info, kind) for kind in ("rss", "pss", "uss") if getattr(info, kind, 0)}


def cgroup(of: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> dict[str, int]:
    """``current`` and ``limit`` of a process's control group, version 2 or 1; nothing without one."""
    try:
        lines = of.read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found = _group(mount, path, "memory.current", "memory.max")
        elif "memory" in controllers.split(","):
            found = _group(mount / "memory", path, "memory.usage_in_bytes", "memory.limit_in_bytes")
        else:
            continue
        if found:
            return found
    return {}


def _group(mount: Path, path: str, current: str, limit: str) -> dict[str, int]:
    # In a container the path is often that of the host, and the group itself is what is mounted.
    for folder in (mount / path.lstrip("/"), mount):
        if (size := _number(folder / current)) is not None:
            bound = _number(folder / limit)
            return {"current": size} | ({} if bound is None or bound >= _NO_LIMIT_BYTES else {"limit": bound})
    return {}


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        # Not there, or ``max``.
        return None


# --- what others may believe ----------------------------------------------------------------------------------------


def workers(entries: Mapping[bytes, bytes], host: str, *, now_ns: int) -> list[Worker]:
    """The workers that run, by what is registered and, of this host's, by what is there."""
    found = []
    for name, value in sorted(entries.items()):
        node = name.decode(errors="replace")
        try:
            worker = _worker(node, json.loads(value), host, now_ns)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            _log.warning("the registry's entry of worker %s can't be read (%s)", node, type(err).__name__)
            continue
        if worker is not None:
            found.append(worker)
    return found


def forgotten(entries: Mapping[bytes, bytes], *, now_ns: int) -> list[bytes]:
    """The entries of workers that are long gone, and what can't be read."""
    return [name for name, value in entries.items() if now_ns - _seen_ns(value) > FORGET_S * 1e9]


def _seen_ns(value: bytes) -> int:
    try:
        facts = json.loads(value)
        return int(facts.get("seen_ns") or facts["ready_ns"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


def _worker(node: str, facts: Mapping[str, Any], host: str, now_ns: int) -> Worker | None:
    is_fresh = now_ns - int(facts.get("seen_ns", 0)) <= STALE_S * 1e9
    worker = Worker(
        node=node,
        concurrency=int(facts["concurrency"]),
        started_s=facts["started_ns"] / 1e9,
        cgroup=facts["cgroup"] if is_fresh else {},
    )
    if facts["host"] != host:
        return replace(worker, capacity=int(facts["capacity"]), memory=facts["memory"]) if is_fresh else None
    children = _children(facts["pid"], worker.started_s)
    if children is None:
        return None
    memory = _memory(facts["pid"], children)
    return replace(worker, capacity=_able(facts, len(memory) - 1, is_fresh=is_fresh), memory=memory)


def _able(facts: Mapping[str, Any], living: int, *, is_fresh: bool) -> int | None:
    if "prefetch" not in facts:
        # Of an older version.
        return None
    # One that is there and says nothing is stopped, stuck, or cut off from the broker: it takes no message.
    return capacity(living, int(facts["prefetch"])) if is_fresh else 0


def _children(pid: int, started_s: float) -> Sequence[int] | None:
    """The children of a process of this host; None if it is gone, or its number is another one's by now."""
    try:
        main = psutil.Process(pid)
        if abs(main.create_time() - started_s) > START_TOLERANCE_S:
            return None
        # Those of now: children are replaced.
        return [child.pid for child in main.children()]
    except psutil.NoSuchProcess:
        return None
