"""The arguments of ``mailrig watch``, and its answer for people and machines. Called by cli."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mailrig import report
from mailrig.scenario import RigError
from mailrig.watch.judging import Judged, facts_of, judge_folder
from mailrig.watch.watching import WatchOptions, to_stderr, watch

EVERY_S: Final = 0.1
_EVERY_S_MIN: Final = 0.02


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What ``mailrig watch`` takes."""
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--app", metavar="MODULE:APP", help="the application, imported from here in a process of its own")
    what.add_argument("--again", type=Path, metavar="FOLDER", help="judge what an earlier watch has seen")
    command.add_argument("--broker", metavar="URL", help="its Redis, if it is not the one that the application names")
    command.add_argument("--python", metavar="FILE", help="the interpreter that can import it (default: this one)")
    command.add_argument(
        "--seconds", type=_above(1.0), metavar="N", help="how long (default: until ctrl-C, which judges as well)"
    )
    command.add_argument(
        "--every",
        type=_above(_EVERY_S_MIN),
        default=EVERY_S,
        metavar="SECONDS",
        help=f"between two readings of the broker (default: {EVERY_S:g}); a slow one is read less often",
    )
    command.add_argument(
        "--enable-events",
        action="store_true",
        help="ask workers that send no events of tasks to do so meanwhile, and switch them off at the end: "
        "retries and short tasks are known by them only; 2-3 ms of a worker's CPU a task",
    )
    command.add_argument(
        "--gates",
        type=Path,
        metavar="FILE",
        help="gates of your own ([validity], [[gate]], [limits] held_max, [limits.backoff] TASK = [SECONDS, ...]) "
        "instead of those that follow from what the application declares; the folder's gates.toml shows these",
    )
    command.add_argument("--strict", action="store_true", help="exit with 3 when a gate warns")
    command.add_argument("--json", action="store_true", help="the answer for machines")
    command.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where folders are kept (default: runs)")


def answer(arguments: argparse.Namespace) -> tuple[str, int]:
    """What ``mailrig watch`` prints, and its exit code.

    Raises:
        RigError: there is nothing to watch, or the gates are wrong.
    """
    folder, judged = _again(arguments) if arguments.again else _watch(arguments)
    code = judged.verdict.exit_code(strict=arguments.strict)
    return (_as_json if arguments.json else _as_text)(folder, judged, code), code


def _again(arguments: argparse.Namespace) -> tuple[Path, Judged]:
    folder: Path = arguments.again
    if not (folder / "application.json").is_file():
        raise RigError(f"{folder} is no folder of a watch: it has no application.json")
    return folder.resolve(), judge_folder(folder, arguments.gates)


def _watch(arguments: argparse.Namespace) -> tuple[Path, Judged]:
    run, judged = watch(
        WatchOptions(
            app=arguments.app,
            python=arguments.python,
            broker=arguments.broker,
            seconds=arguments.seconds,
            every_s=arguments.every,
            enable_events=arguments.enable_events,
            gates=arguments.gates,
            runs_dir=arguments.runs_dir,
            say=to_stderr,
        )
    )
    return run.path, judged


def _as_text(folder: Path, judged: Judged, _code: int) -> str:
    width = shutil.get_terminal_size((100, 24)).columns
    table = report.terminal_verdict(judged.verdict.to_dict(), width=width, color=sys.stdout.isatty())
    # Nothing was drawn at random; verdict.json has the key all the same.
    table = table.replace(f"{judged.verdict.scenario}, seed 0, ", f"{judged.verdict.scenario}, ")
    return "\n".join([table, *(f"note: {note}" for note in judged.notes), str(folder)])


def _as_json(folder: Path, judged: Judged, code: int) -> str:
    head = {"folder": str(folder), "exit_code": code, "declared": facts_of(judged), "notes": list(judged.notes)}
    return json.dumps(head | judged.verdict.to_dict(), indent=2)


def _above(minimum: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not minimum <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {minimum:g} up")
        return value

    return number
