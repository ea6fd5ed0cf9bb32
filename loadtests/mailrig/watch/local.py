"""Memory of a foreign worker's processes, where they are on this machine. Called by watching.

A node's name says where its worker believes to be; only the kernel says whether a process of that number here is it.
Reading PSS and USS takes 1 to 4 ms of CPU for a process of 30 to 80 MiB; each line says what it took.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psutil

from mailrig.stack.samplers import memory_of

#: A worker says when it was ready; its process is older by what the import took.
_IMPORT_S_MAX: Final = 600.0
_CLOCK_S: Final = 5.0


def memory_line(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A line of ``evidence/memory.jsonl``; ``away`` says why a node's processes are not in it."""
    begun_ns, spent_ns = time.time_ns(), time.thread_time_ns()
    rows, away = [], {}
    for node, facts in sorted(nodes.items()):
        found = list(_rows(node, facts))
        rows += found
        if not found:
            away[node] = "its processes are not on this machine, or not ours to look at"
    line: dict[str, Any] = {"time_ns": begun_ns, "processes": rows}
    return line | ({"away": away} if away else {}) | {"read_cpu_ns": time.thread_time_ns() - spent_ns}


def _rows(node: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    pid = facts.get("pid")
    if not isinstance(pid, int) or not _is_it(pid, facts):
        return
    for number, kind in [(pid, "worker-main"), *((child, "worker-child") for child in _children(pid, facts))]:
        row = memory_of(number, kind)
        if row is not None:
            yield row | {"node": node}


def _is_it(pid: int, facts: Mapping[str, Any]) -> bool:
    """Whether the process here is as old as the worker, and the father of its children."""
    try:
        born_s = psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    ready_s = time.time() - float(facts.get("uptime_s") or 0)
    children = [child for child in facts.get("processes") or () if child != pid]
    return ready_s - _IMPORT_S_MAX <= born_s <= ready_s + _CLOCK_S and (
        not children or bool(_children(pid, facts)) or facts.get("pool") != "prefork"
    )


def _children(pid: int, facts: Mapping[str, Any]) -> list[int]:
    """Of the processes that the pool names, those that are this one's."""
    found = []
    for child in facts.get("processes") or ():
        try:
            if child != pid and psutil.Process(child).ppid() == pid:
                found.append(child)
        except psutil.Error:
            continue  # recycled since
    return found
