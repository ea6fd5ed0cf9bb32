"""The arguments of ``mailrig ab``, and what it answers. Prints nothing itself. Called by cli."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mailrig.ab import table
from mailrig.ab.course import ATTEMPTS, BLOCKS, Comparison, Options, compare
from mailrig.ab.decision import BLOCKS_MIN
from mailrig.ab.figures import FIGURES, MARGIN, parse_figure, with_margin
from mailrig.ab.sides import HERE, parse_setting

BLOCKS_MAX: Final = 200
PLANT_MAX: Final = 1000


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be said to it."""
    command.add_argument("base", nargs="?", default=HERE, help="A: a git revision, or . for what stands here (default)")
    command.add_argument("head", nargs="?", default=HERE, help="B: the same; only the service differs, not the rig")
    command.add_argument("--scenario", default="smoke", help="a name or a TOML file (default: smoke)")
    command.add_argument("--seed", type=int, help="another seed than the scenario's; it is the same in all runs")
    command.add_argument(
        "--blocks", type=_blocks, default=BLOCKS, metavar="N", help=f"of four runs each, ABBA (default: {BLOCKS})"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of B, MAIL_...; may be repeated"
    )
    command.add_argument("--mutate", metavar="NAME", help="break B by a mutant")
    command.add_argument(
        "--plant",
        type=_percent,
        default=0,
        metavar="PERCENT",
        help="make B slower by so much CPU time in each task, to see whether it is found",
    )
    command.add_argument(
        "--figure",
        action="append",
        default=[],
        metavar="'METRIC AGGREGATE'",
        help=f"compare by this; may be repeated (default: {'; '.join(map(str, FIGURES))})",
    )
    command.add_argument(
        "--margin", type=_margin, metavar="SHARE", help=f"by which B may be worse (default: {MARGIN}; end to end 0.1)"
    )
    command.add_argument(
        "--attempts",
        type=_blocks_any,
        default=ATTEMPTS,
        metavar="N",
        help=f"for a run that counts (default: {ATTEMPTS})",
    )
    command.add_argument("--resume", action="store_true", help="go on with the latest comparison, if it is the same")
    command.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="its runs are in ab/ there (default: runs)"
    )
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="the answer for machines")
    shape.add_argument("--markdown", action="store_true", help="the answer for a step summary")


def act(arguments: argparse.Namespace, *, say: Callable[[str], None]) -> tuple[str, int]:
    """Compare; what to print, and the exit code.

    Raises:
        RigError: it could not be made as asked.
    """
    found = compare(options_of(arguments), say=say)
    return _told(arguments)(found), found.exit_code


def options_of(arguments: argparse.Namespace) -> Options:
    """What was asked for.

    Raises:
        RigError: a setting or a figure is not allowed.
    """
    figures = tuple(map(parse_figure, arguments.figure)) or FIGURES
    return Options(
        base=arguments.base,
        head=arguments.head,
        scenario=arguments.scenario,
        seed=arguments.seed,
        blocks=arguments.blocks,
        settings=dict(map(parse_setting, arguments.set)),
        mutant=arguments.mutate,
        plant_percent=arguments.plant,
        figures=with_margin(figures, arguments.margin),
        runs_dir=arguments.runs_dir,
        resume=arguments.resume,
        attempts=arguments.attempts,
    )


def _told(arguments: argparse.Namespace) -> Callable[[Comparison], str]:
    return table.as_json if arguments.json else table.as_markdown if arguments.markdown else table.as_text


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def _blocks(text: str) -> int:
    return _whole(text, BLOCKS_MIN, BLOCKS_MAX)


def _blocks_any(text: str) -> int:
    return _whole(text, 1, BLOCKS_MAX)


def _percent(text: str) -> int:
    return _whole(text, 1, PLANT_MAX)


def _margin(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 10:  # noqa: PLR2004  # the bounds that the message names
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 10, such as 0.05")
    return share
