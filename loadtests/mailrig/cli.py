"""mailrig: the command line. Parses, calls runner or report, turns what comes back into an exit code.

0 pass · 1 a gate failed · 2 wrong use, or the rig itself failed · 3 warnings, under --strict · 4 invalid or unknown
130 and 143 after SIGINT and SIGTERM, with everything stopped.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mailrig import report, runner
from mailrig.checkers import Verdict
from mailrig.scenario import RigError, mutant_names, scenario_names
from mailrig.stack import doctor
from mailrig.store import Run, open_run

PORTS: Final = ("api", "exporter", "smtp", "imap", "control", "redis", "postgres")
USAGE: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; answers its exit code."""
    arguments = _parser().parse_args(argv)
    runner.stop_on_signals()
    try:
        return int(arguments.run(arguments))
    except RigError as err:
        print(f"mailrig: {err}", file=sys.stderr)
        return err.exit_code
    except PermissionError as err:
        print(f"mailrig: no permission: {err.filename}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("\nmailrig: interrupted; everything is stopped", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailrig",
        description="Brings a multi-tenant e-mail service up, loads it, breaks it, watches it and judges it.",
        epilog="Exit codes: 0 pass, 1 a gate failed, 2 wrong use or internal error, 3 warnings under --strict, "
        "4 invalid or unknown, 130 interrupted, 143 terminated.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=act)
        command.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
        return command

    run = add("run", _run, "run a scenario and judge it")
    run.add_argument("scenario", help=f"a name ({', '.join(scenario_names())}) or a TOML file")
    run.add_argument("--seed", type=int, default=None, help="another seed than the scenario's")
    run.add_argument("--mutate", metavar="NAME", default=None, help=f"break the service: {', '.join(mutant_names())}")
    run.add_argument(
        "--nemesis", metavar="ACTION@SECONDS", action="append", default=[], help="one more fault, such as kill-child@10"
    )
    _strict(run)
    _ports(run)
    up = add("up", _up, "bring the whole system up and leave it running until ctrl-C")
    up.add_argument(
        "--time-scale", type=float, default=1.0, help="0.05 to 1: scales backoff, leases, beat (default: 1)"
    )
    _ports(up)
    check = add("check", _check, "judge a stored run again, without running it")
    _which(check)
    _strict(check)
    _which(add("report", _report, "write a stored run's reports again"))
    trace = add("trace", _trace, "draw a trace of a stored run in the terminal")
    _which(trace)
    trace.add_argument("trace_id", nargs="?", default=None, help="or its beginning; without it, the slowest send")
    add("doctor", _doctor, "say what this machine has and lacks")
    return parser


def _which(command: argparse.ArgumentParser) -> None:
    command.add_argument("which", metavar="RUN", help="a run's folder, or a scenario's name for its latest run")


def _strict(command: argparse.ArgumentParser) -> None:
    command.add_argument("--strict", action="store_true", help="exit with 3 when a gate warns")


def _ports(command: argparse.ArgumentParser) -> None:
    for part in PORTS:
        command.add_argument(f"--{part}-port", type=int, default=0, metavar="N", help="default: a free one")


def _ports_of(arguments: argparse.Namespace) -> dict[str, int]:
    return {part: getattr(arguments, f"{part}_port") for part in PORTS}


def _run(arguments: argparse.Namespace) -> int:
    options = runner.RunOptions(
        scenario=arguments.scenario,
        seed=arguments.seed,
        mutant=arguments.mutate,
        nemesis=tuple(arguments.nemesis),
        runs_dir=arguments.runs_dir,
        ports=_ports_of(arguments),
    )
    folder, verdict = runner.run(options)
    return _tell(folder, verdict, strict=arguments.strict)


def _tell(folder: Run, verdict: Verdict, *, strict: bool) -> int:
    width = shutil.get_terminal_size((100, 24)).columns
    print(report.terminal_verdict(verdict.to_dict(), width=width, color=sys.stdout.isatty()))
    print(f"report: {folder.path / 'report.html'}")
    return verdict.exit_code(strict=strict)


def _up(arguments: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logs = runner.STATE_DIR / "logs"
    with runner.standing(_ports_of(arguments), logs, time_scale=arguments.time_scale) as (stack, accounts):
        rows = [
            ("API", stack.api_url),
            ("metrics", stack.exporter_url),
            ("SMTP", f"{stack.smtp[0]}:{stack.smtp[1]}"),
            ("IMAP", f"{stack.imap[0]}:{stack.imap[1]}"),
            ("fakes' control", stack.control_url),
            ("broker", stack.redis_url.rpartition("@")[2].removeprefix("redis://")),
            ("database", stack.audit_url.rpartition("@")[2]),
            ("tenants", ", ".join(f"{a.tenant} ({len(a.clients)} mailboxes)" for a in accounts)),
            ("tokens", str(runner.STATE_DIR / "stack.json")),
            ("logs", str(logs)),
        ]
        print("\n".join(f"{name:15} {value}" for name, value in rows))
        print("load it:        locust -f loadtests/locustfile.py    stop it: ctrl-C", flush=True)
        while not stop.wait(0.2):
            if stack.broken is not None:
                raise stack.broken
    print("stopped")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    return _tell(folder, runner.check(folder), strict=arguments.strict)


def _report(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    for path in report.write_reports(folder.path):
        print(path)
    return 0


def _trace(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    width = shutil.get_terminal_size((100, 24)).columns
    print(report.terminal_waterfall(folder.path, arguments.trace_id, width=width, color=sys.stdout.isatty()))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    findings = doctor()
    for name, ok, text in findings:
        print(f"{'ok  ' if ok else 'LACK'}  {name:14} {text}")
    return 0 if all(ok for _, ok, _ in findings) else USAGE
