"""The question that ``mailrig budget`` puts to a run, and the answer for people and machines. Called by cli."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from mailrig.budget.estimate import (
    CONCURRENCY_MAX,
    MARGIN,
    MIB,
    MIX_RANK,
    SAMPLES,
    STEP_MIB,
    TASK_RANK,
    Budget,
    BudgetError,
    read_budget,
)
from mailrig.checkers.memory import told
from mailrig.statistics import Interval
from mailrig.store import open_run

_UNITS: Final = {"B": 1, "K": 2**10, "M": MIB, "G": 2**30}
_MARGIN_MAX: Final = 10
#: A growth that matters is a megabyte in so many minutes; a run that tells it from a start has so many seconds.
_GROWTH_OVER_MIN: Final = 10
_SURE_S: Final = 600.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What ``mailrig budget`` takes."""
    command.add_argument(
        "which", metavar="RUN", nargs="?", help="a run's folder, or a scenario's name (default: the newest run)"
    )
    command.add_argument(
        "--concurrency", type=_concurrency, metavar="N", help="processes of a worker (default: as many as the run had)"
    )
    command.add_argument(
        "--limit", type=_size, default="512MiB", metavar="SIZE", help="say what fits it (default: 512MiB)"
    )
    command.add_argument(
        "--margin",
        type=_margin,
        default=MARGIN,
        metavar="SHARE",
        help=f"above what was seen: 0 to 10 (default: {MARGIN:g})",
    )
    command.add_argument(
        "--mix", metavar="TASK=SHARE,...", help="how often a slot has which task (default: as in the run)"
    )
    command.add_argument("--json", action="store_true", help="the answer for machines, in bytes")
    command.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")


def answer(arguments: argparse.Namespace) -> str:
    """What ``mailrig budget`` prints.

    Raises:
        RigError: there is no such run, it says too little, or the mix has what it does not.
    """
    run = _folder(arguments.which, arguments.runs_dir)
    budget = read_budget(run)
    question = Question(
        concurrency=arguments.concurrency or budget.children,
        limit_bytes=arguments.limit,
        margin=arguments.margin,
        mix=parse_mix(arguments.mix, budget) if arguments.mix else own_mix(budget),
    )
    return as_json(budget, question, run=run) if arguments.json else "\n".join(as_text(budget, question, run=run))


def _folder(which: str | None, runs_dir: Path) -> Path:
    """Any folder that has samples will do, also that of a watch."""
    if which is not None and (Path(which) / SAMPLES).is_file():
        return Path(which).resolve()
    if which is not None:
        return open_run(which, runs_dir=runs_dir).path
    newest = max(runs_dir.glob(f"*/*/{SAMPLES}"), key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        raise BudgetError(f"{runs_dir} has no run with memory samples: make one by `mailrig run`, or name a folder")
    return newest.parents[1].resolve()


def _concurrency(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= CONCURRENCY_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {CONCURRENCY_MAX}")
    return int(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B?|B)?", text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512MiB, 1GiB or 536870912")
    return int(float(found[1]) * _UNITS[(found[2] or "B")[0]])


def _margin(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= _MARGIN_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to {_MARGIN_MAX}: 0.2 is 20 %")
    return share


def parse_mix(text: str, budget: Budget) -> dict[str, float]:
    """Shares from ``send_email=8,sync_emails=2``; a name's beginning will do.

    Raises:
        BudgetError: a task was not seen, or a share is no number.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        known = [task.name for task in budget.tasks if task.name.startswith(name)] if name else []
        if len(known) != 1:
            seen = ", ".join(task.name for task in budget.tasks) or "no task"
            raise BudgetError(f"--mix: {name or part!r} is not the beginning of one task's name; the run has {seen}")
        if not share.replace(".", "", 1).isdecimal() or float(share) == 0:
            raise BudgetError(f"--mix: {part.strip()!r} is not TASK=SHARE, with a number above 0")
        mix[known[0]] = float(share)
    return mix


def own_mix(budget: Budget) -> dict[str, float]:
    """The shares of time that the run itself had: so often a slot is found with that task."""
    return {task.name: task.time_share for task in budget.tasks if task.time_share}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the user wants to know."""

    concurrency: int
    limit_bytes: int
    margin: float
    mix: Mapping[str, float]


def as_text(budget: Budget, question: Question, *, run: Path) -> Iterator[str]:
    """The answer for a person."""
    cost = "" if budget.reading_s is None else f", a reading takes {budget.reading_s * 1e3:.1f} ms of CPU"
    seen = f"{budget.children} processes, {budget.samples} samples in {budget.duration_s:.0f} s{cost}"
    yield f"memory of {run} ({seen})"
    yield f"  {'parent, and what is shared':38}{_mib(budget.shared)}"
    yield f"  {'a process between tasks, its own':38}{_mib(budget.idle)}"
    for task in budget.tasks:
        name = f"{task.name} above that, p{TASK_RANK:g}"
        yield f"  {name:38}{_mib(task.peak)}  {task.time_share:.0%} of the time, {task.executions} executions"
    if budget.cgroup_peak_bytes is not None:
        cap = budget.cgroup_limit_bytes
        yield f"  {'control group, page cache and all':38}{budget.cgroup_peak_bytes / MIB:8.1f} MiB" + (
            f" at most, of {cap / MIB:.0f}" if cap else " at most, without a limit"
        )
    yield from _answers(budget, question)
    yield from _leaks(budget)


def _answers(budget: Budget, question: Question) -> Iterator[str]:
    n, margin = question.concurrency, question.margin
    worst, mixed = budget.limit(n, margin=margin), budget.limit(n, margin=margin, mix=question.mix or None)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in _normal(question.mix).items())
    parts = f"{budget.shared.high / MIB:.1f} + {n} x ({budget.idle.high / MIB:.1f} + {budget.heaviest / MIB:.1f})"
    yield f"limit to set for concurrency {n}: {worst // MIB} MiB"
    yield f"  {parts} = {budget.need(n) / MIB:.1f} MiB at the upper bounds, {margin:.0%} more, the next {STEP_MIB} MiB"
    if question.mix:
        yield f"  {mixed // MIB} MiB if a limit for {MIX_RANK:g} % of the time will do, by the mix {shares}"
    room = budget.fits(question.limit_bytes, margin=margin)
    mixed_room = budget.fits(question.limit_bytes, margin=margin, mix=question.mix or None)
    by_mix = f" ({mixed_room} by the mix)" if question.mix else ""
    yield f"concurrency that fits {question.limit_bytes // MIB} MiB: {room}{by_mix}"
    yield "  a peak that is shorter than the time between two readings, and gone when its task ends, is not in it"


def _leaks(budget: Budget) -> Iterator[str]:
    """The process that grows fastest, if one certainly does; a short run can't tell a leak from a cache that fills."""
    name, grown = max(budget.growth.items(), key=lambda item: item[1].low, default=("", None))
    if grown is None or grown.low * _GROWTH_OVER_MIN < MIB:
        yield f"no process certainly grows by more than 1 MiB in {_GROWTH_OVER_MIN} minutes ({len(budget.growth)} seen)"
        return
    yield f"grows: {name} by {told(grown)}: no limit holds for ever; recycle it (worker_max_tasks_per_child)"
    if budget.duration_s < _SURE_S:
        yield f"  {budget.duration_s:.0f} s are few: under {_SURE_S / 60:.0f} minutes it may be caches that still fill"


def as_json(budget: Budget, question: Question, *, run: Path) -> str:
    """The answer for machines, bytes."""
    n, margin, mix = question.concurrency, question.margin, question.mix or None
    facts = asdict(budget)
    for task in facts["tasks"]:
        del task["peaks"]
    answer: dict[str, Any] = {
        "run": str(run),
        "margin": margin,
        "mix": _normal(question.mix),
        "concurrency": n,
        "need_bytes": round(budget.need(n)),
        "limit_bytes": budget.limit(n, margin=margin),
        "limit_by_mix_bytes": budget.limit(n, margin=margin, mix=mix),
        "within_bytes": question.limit_bytes,
        "fits": budget.fits(question.limit_bytes, margin=margin),
        "fits_by_mix": budget.fits(question.limit_bytes, margin=margin, mix=mix),
    }
    return json.dumps(answer | {"found": facts}, indent=2)


def _normal(mix: Mapping[str, float]) -> dict[str, float]:
    in_all = sum(mix.values()) or 1.0
    return {name: share / in_all for name, share in mix.items()}


def _mib(size: Interval) -> str:
    return f"{size.estimate / MIB:8.1f} MiB (95 %: {size.low / MIB:.1f} to {size.high / MIB:.1f})"
