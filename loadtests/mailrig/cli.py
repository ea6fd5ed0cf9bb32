"""mailrig: the command line. Parses, calls runner or report, turns what comes back into an exit code.

0 pass · 1 a gate failed · 2 wrong use, or the rig itself failed · 3 warnings, under --strict · 4 invalid or unknown
129, 130 and 143 after SIGHUP, SIGINT and SIGTERM, with everything stopped. What the user asked for goes to stdout,
what is said on the way to stderr. The first SIGINT while `run` has its load ends the load: what was accepted is
drained, collected and judged, as an invalid run, and the exit code is 130; the second one stops everything at once.
"""

from __future__ import annotations

import argparse
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mailrig import (
    ab,
    budget,
    catalogue,
    claims,
    comparing,
    completion,
    doctor,
    export,
    logs,
    mutation,
    report,
    runner,
    telling,
    watch,
)
from mailrig.checkers import Verdict
from mailrig.clients import Account
from mailrig.jaeger import Otlp
from mailrig.scenario import RigError, mutant_names, scenario_names
from mailrig.stack import VARIABLES, Stack
from mailrig.store import Run, open_run

PORTS: Final = ("api", "exporter", "smtp", "imap", "control", "redis", "postgres")
PORT_MAX: Final = 65_535
#: Where Locust's master listens, unless it is told otherwise: who has workers elsewhere says so.
LOCUST_HOST: Final = "127.0.0.1"
LOCUST_PORT: Final = 5557
LOCUST_WORKERS_MAX: Final = 100
USAGE: Final = 2
_EXIT_CODES: Final = (
    "Exit codes: 0 pass; 1 a gate failed (doctor: a trap, ab: slower, diff: a difference); "
    "2 wrong use or internal error; 3 warnings under --strict; 4 invalid or unknown; "
    "129, 130, 143 after SIGHUP, SIGINT, SIGTERM, with everything stopped. "
    "The first ctrl-C during a load only ends the load: what there is is drained and judged (invalid, exit code 130)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; answers its exit code."""
    arguments = _parser().parse_args(argv)
    runner.stop_on_signals()
    try:
        return int(arguments.run(arguments))
    except RigError as err:
        _complain(str(err), *getattr(err, "__notes__", ()))
        return err.exit_code
    except BrokenPipeError:
        return _hushed()
    except OSError as err:
        _complain(f"{err.filename or 'the system'}: {err.strerror or err}")
        return USAGE
    except runner.Stopped as stop:
        _complain(f"{stop}: everything is stopped")
        return stop.exit_code
    except Exception:  # noqa: BLE001  # exit code 1 is a gate's, so a defect of ours must not fall through to it
        traceback.print_exc()
        _complain("this is a defect of mailrig itself")
        return USAGE


def _complain(*lines: str) -> None:
    print("\n".join(f"mailrig: {line}" for line in lines), file=sys.stderr)


def _hushed() -> int:
    """Whoever read our output has had enough: say nothing, not even when the interpreter flushes what is left."""
    sys.stdout = None
    return 0


# --- arguments --------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailrig",
        description="Brings a multi-tenant e-mail service up, loads it, breaks it, watches it and judges it.",
        epilog=_EXIT_CODES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EXIT_CODES)
        command.set_defaults(run=act)
        return command

    _run_arguments(add("run", _run, "run a scenario, or all of them, and judge it"))
    add(
        "scenarios", _scenarios, "list the scenarios: what each proves, how long it takes, by which gates"
    ).add_argument("--json", action="store_true", help="the list for machines, with the ids of all gates")
    up = add("up", _up, "bring the whole system up and leave it running until ctrl-C")
    up.add_argument(
        "--time-scale", type=_time_scale, default=1.0, help="0.05 to 1: scales backoff, leases, beat (default: 1)"
    )
    _jaeger(up)
    _ports(up)
    worker = add("load-worker", _load_worker, "send a share of the load of a `mailrig run --locust-workers`")
    worker.add_argument(
        "--master",
        type=_address,
        required=True,
        metavar="HOST[:PORT]",
        help=f"where that is; waited for up to five minutes (default port: {LOCUST_PORT})",
    )
    check = add("check", _check, "judge a stored run again, without running it")
    _which(check)
    _baseline(check)
    _strict(check)
    _output(check)
    _which(add("report", _report, "write a stored run's reports again"))
    trace = add("trace", _trace, "draw a trace of a stored run in the terminal")
    _which(trace)
    trace.add_argument(
        "trace_id", nargs="?", help="a trace's id or its beginning, or a task's id; without it, the slowest send"
    )
    lines = add("logs", _logs, "print the log lines of a stored run, of all its processes, in order of time")
    _which(lines)
    one = lines.add_mutually_exclusive_group()
    for kind in logs.IDS:
        one.add_argument(f"--{kind}", metavar="ID", help=f"only those of this {kind}: its id or its beginning")
    lines.add_argument("--level", type=str.upper, choices=logs.LEVELS, default="DEBUG", help="this bad or worse")
    lines.add_argument("--json", action="store_true", help="one JSON object a line")
    _comparisons(add)
    exported = add(
        "export", _export, "write the recorded metrics of runs as OpenMetrics text, for Prometheus to compare"
    )
    exported.add_argument(
        "which", metavar="RUN", nargs="+", help="a run's folder, or a scenario's name for its latest run"
    )
    exported.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write it (default: stdout)")
    exported.add_argument("--keep-times", action="store_true", help="do not let all runs begin when the latest began")
    _runs_dir(exported)
    sent = add("upload", _upload, "send a stored run's spans to a Jaeger or a collector")
    _which(sent)
    sent.add_argument("--otlp", metavar="URL", required=True, help="where OTLP over HTTP is received, with port 4318")
    seen = add("doctor", _doctor, "say what this machine lacks, and which traps a Celery application walks into")
    seen.add_argument("--app", metavar="MODULE:APP", help="an application of yours, imported from here, alone")
    seen.add_argument("--python", metavar="FILE", help="the interpreter that can import it (default: this one)")
    broker = seen.add_mutually_exclusive_group()
    broker.add_argument("--broker", metavar="URL", help="the Redis server to ask (default: the application's)")
    broker.add_argument("--offline", action="store_true", help="ask no server")
    seen.add_argument("--json", action="store_true", help="the answer for machines")
    watch.add_arguments(add("watch", _watch, "watch a Celery application of yours, and say what its workers do"))
    budget.add_arguments(add("budget", _budget, "say which memory limit a worker needs, and what fits a limit"))
    _mutants_arguments(add("mutants", _mutants, "run defects of the service, and say which gates see them"))
    _claims_arguments(add("claims", _claims, "say what the architecture document claims and what runs have measured"))
    shells = add("completion", _completion, "print the script by which a shell completes these commands")
    shells.add_argument("shell", choices=completion.SHELLS, help="such as: source <(mailrig completion bash)")
    return parser


def _claims_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "which", metavar="RUN", nargs="+", help="a run's folder, or a scenario's name for its latest run"
    )
    endings = ", ".join(claims.FORMATS)
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help=f"write the page there, by its ending: {endings}; may be repeated (default: Markdown to stdout)",
    )
    command.add_argument("--json", action="store_true", help="print it for machines")
    _runs_dir(command)


def _comparisons(add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]) -> None:
    ab.add_arguments(add("ab", _ab, "compare two revisions or settings of the service by interleaved runs"))
    comparing.add_arguments(add("diff", _diff, "say what two stored runs differ in, beyond noise"))


def _run_arguments(run: argparse.ArgumentParser) -> None:
    run.add_argument("scenario", nargs="?", help=f"a name ({', '.join(scenario_names())}) or a TOML file")
    run.add_argument(
        "--all", action="store_true", help="every scenario in turn; the exit code is that of the worst run"
    )
    run.add_argument(
        "--resume",
        action="store_true",
        help="with --all: leave out what has passed or failed already, and is still the same",
    )
    run.add_argument("--full", action="store_true", help="the scenario's full length, at the document's times")
    run.add_argument(
        "--replay", metavar="RUN", help="requests come when they came in this run, a folder or a scenario's latest"
    )
    run.add_argument("--seed", type=int, help="another seed than the scenario's")
    run.add_argument("--mutate", metavar="NAME", help=f"break the service: {', '.join(mutant_names())}")
    run.add_argument(
        "--nemesis",
        metavar="ACTION@SECONDS",
        action="append",
        default=[],
        help="one more fault, such as kill-child@10 (seconds from the start of the warm-up); may be repeated",
    )
    _jaeger(run)
    run.add_argument(
        "--attach", action="store_true", help=f"load the stack that is told by {', '.join(VARIABLES)}; none is started"
    )
    run.add_argument(
        "--locust-workers", type=_count, metavar="N", help="wait for N load workers, each a `mailrig load-worker`"
    )
    run.add_argument(
        "--locust-bind",
        type=_address,
        default=(LOCUST_HOST, LOCUST_PORT),
        metavar="HOST:PORT",
        help=f"where they find this one (default: {LOCUST_HOST}:{LOCUST_PORT})",
    )
    _baseline(run)
    _strict(run)
    _output(run)
    _runs_dir(run)
    _ports(run)


def _mutants_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Run defects of the service, each in its scenario behind a run of the healthy one, and print which gates "
        "turned red. Exit code 1 when a mutant survives a gate that it names, 4 when one could not be judged. Each "
        "run is kept as it ends, in RUNS_DIR/mutants."
    )
    command.add_argument("--only", metavar="NAME", nargs="+", default=[], help="these mutants (default: all)")
    command.add_argument("--scenario", metavar="NAME", nargs="+", default=[], help="those of these scenarios")
    command.add_argument(
        "--resume", action="store_true", help="go on with the last campaign: what is unchanged is not run again"
    )
    command.add_argument("--list", action="store_true", help="run nothing: list them, and the gates without a mutant")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the matrix for machines")
    form.add_argument("--markdown", action="store_true", help="the matrix for a step summary")
    _runs_dir(command)


def _which(command: argparse.ArgumentParser) -> None:
    command.add_argument("which", metavar="RUN", help="a run's folder, or a scenario's name for its latest run")
    _runs_dir(command)


def _runs_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")


def _strict(command: argparse.ArgumentParser) -> None:
    command.add_argument("--strict", action="store_true", help="exit with 3 when a gate warns")


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="no progress; a line for the verdict and each bad gate")
    command.add_argument("--json", action="store_true", help="the verdict for machines")


def _baseline(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--baseline", metavar="RUN", help="an earlier run of the scenario, which gates with a ratio compare with"
    )


def _baseline_of(arguments: argparse.Namespace) -> Run | None:
    return None if arguments.baseline is None else open_run(arguments.baseline, runs_dir=arguments.runs_dir)


def _ports(command: argparse.ArgumentParser) -> None:
    for part in PORTS:
        command.add_argument(f"--{part}-port", type=_port, default=0, metavar="N", help="default: a free one")


def _jaeger(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--jaeger", metavar="URL", help="a Jaeger's query side, such as http://127.0.0.1:16686: spans go there too"
    )
    command.add_argument("--otlp", metavar="URL", help="where it receives OTLP over HTTP (default: there, port 4318)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LOCUST_WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {LOCUST_WORKERS_MAX}")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    if not host or (colon and not (port.isdecimal() and 0 < int(port) <= PORT_MAX)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST or HOST:PORT")
    return host.strip("[]"), int(port or LOCUST_PORT)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 1 to {PORT_MAX}, or 0 for a free one")
    return int(text)


def _time_scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0.05 <= scale <= 1:  # noqa: PLR2004  # the bounds that the message names
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.05 to 1")
    return scale


def _ports_of(arguments: argparse.Namespace) -> dict[str, int]:
    return {part: getattr(arguments, f"{part}_port") for part in PORTS}


# --- commands ---------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    if arguments.all == (arguments.scenario is not None) or (arguments.resume and not arguments.all):
        raise RigError("say which scenario to run, or --all, which --resume goes with")
    options = runner.RunOptions(
        scenario=arguments.scenario or "",
        seed=arguments.seed,
        full=arguments.full,
        replay=_history_of(arguments),
        mutant=arguments.mutate,
        nemesis=tuple(arguments.nemesis),
        runs_dir=arguments.runs_dir,
        ports=_ports_of(arguments),
        jaeger=arguments.jaeger,
        otlp=arguments.otlp,
        attach=arguments.attach,
        fleet=_fleet(arguments),
        baseline=_baseline_of(arguments),
        quiet=arguments.quiet,
        winds_down=True,
    )
    if arguments.all:
        return _run_all(options, arguments)
    folder, verdict = runner.run(options)
    return _tell(folder, verdict, arguments)


def _history_of(arguments: argparse.Namespace) -> Path | None:
    """The history of the run that is to be repeated."""
    if arguments.replay is None:
        return None
    return open_run(arguments.replay, runs_dir=arguments.runs_dir).path / "history.jsonl"


def _run_all(options: runner.RunOptions, arguments: argparse.Namespace) -> int:
    def tell(text: str) -> None:
        if not arguments.quiet:
            print(f"== {text}", file=sys.stderr)

    entries = runner.run_series(
        options, scenario_names(), run=runner.run, resume=arguments.resume, strict=arguments.strict, tell=tell
    )
    code = runner.worst(entries)
    if arguments.json:
        print(telling.series_json(entries, code=code))
    elif arguments.quiet:
        print(telling.series_lines(entries))
    else:
        print(telling.series_table(entries, color=sys.stdout.isatty()))
    return code


def _fleet(arguments: argparse.Namespace) -> runner.Fleet | None:
    if arguments.locust_workers is None:
        return None
    host, port = arguments.locust_bind
    return runner.Fleet(workers=arguments.locust_workers, host=host, port=port)


def _load_worker(arguments: argparse.Namespace) -> int:
    host, port = arguments.master
    runner.work_for(host, port)


def _upload(arguments: argparse.Namespace) -> int:
    otlp = Otlp(arguments.otlp)
    count = runner.upload(open_run(arguments.which, runs_dir=arguments.runs_dir), otlp)
    print(f"{count} spans are at {otlp.url}")
    return 0


def _tell(folder: Run, verdict: Verdict, arguments: argparse.Namespace) -> int:
    """Print a verdict as it was asked for; answers the exit code."""
    code = telling.exit_code(verdict, strict=arguments.strict)
    if arguments.json:
        print(telling.verdict_json(folder, verdict, code=code))
    elif arguments.quiet:
        print(telling.verdict_lines(folder, verdict))
    else:
        print(telling.verdict_text(folder, verdict))
    return code


def _scenarios(arguments: argparse.Namespace) -> int:
    found = catalogue.entries()
    print(catalogue.as_json(found) if arguments.json else catalogue.as_text(found, width=telling.width()))
    return 0


def _up(arguments: argparse.Namespace) -> int:
    logs, is_up = runner.STATE_DIR / "logs", False
    try:
        with runner.standing(
            _ports_of(arguments),
            logs,
            time_scale=arguments.time_scale,
            environment=runner.traced(arguments.jaeger, arguments.otlp),
        ) as (stack, accounts):
            print(_urls(stack, accounts, logs, jaeger=arguments.jaeger), flush=True)
            is_up, tick = True, threading.Event()
            while not tick.wait(0.2):
                if stack.broken is not None:
                    raise stack.broken
    except runner.Stopped:
        # Once it is up, this is how it is meant to end.
        if not is_up:
            raise
    print("stopped")
    return 0


def _urls(stack: Stack, accounts: Sequence[Account], logs: Path, *, jaeger: str | None) -> str:
    rows = [
        ("API", stack.api_url),
        ("metrics", stack.exporter_url),
        *([("traces", jaeger)] if jaeger else []),
        ("SMTP", f"{stack.smtp[0]}:{stack.smtp[1]}"),
        ("IMAP", f"{stack.imap[0]}:{stack.imap[1]}"),
        ("fakes' control", stack.control_url),
        ("broker", _without_password(stack.redis_url)),
        ("database", _without_password(stack.audit_url)),
        ("tenants", ", ".join(f"{a.tenant} ({len(a.clients)} mailboxes)" for a in accounts)),
        ("tokens", str(runner.STATE_DIR / "stack.json")),
        ("logs", str(logs)),
        ("load it", "locust -f loadtests/locustfile.py"),
        ("stop it", "ctrl-C"),
    ]
    return "\n".join(f"{name:15} {value}" for name, value in rows)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _check(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    return _tell(folder, runner.check(folder, baseline=_baseline_of(arguments)), arguments)


def _report(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    for path in report.write_reports(folder.path):
        print(path)
    return 0


def _ab(arguments: argparse.Namespace) -> int:
    answer, code = ab.act(arguments, say=lambda line: print(f"ab: {line}", file=sys.stderr, flush=True))
    print(answer)
    return code


def _diff(arguments: argparse.Namespace) -> int:
    answer, code = comparing.act(arguments)
    print(answer)
    return code


def _export(arguments: argparse.Namespace) -> int:
    folders = [open_run(which, runs_dir=arguments.runs_dir) for which in arguments.which]
    lines = export.export(folders, keep_times=arguments.keep_times)
    if arguments.output is not None:
        export.write(lines, arguments.output)
        return 0
    for line in lines:
        print(line)
    return 0


def _trace(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    print(report.terminal_waterfall(folder.path, arguments.trace_id, width=telling.width(), color=sys.stdout.isatty()))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    folder = open_run(arguments.which, runs_dir=arguments.runs_dir)
    wanted = {kind: getattr(arguments, kind) for kind in logs.IDS}
    lines = logs.read_lines(folder.path, level=arguments.level, **wanted)
    for line in logs.as_json(lines) if arguments.json else logs.as_text(lines):
        print(line)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    parts = [] if arguments.app else doctor.check_machine()
    if not arguments.json:
        # Said first: what this machine lacks may be why the application can't be looked at.
        print("".join(f"{line}\n" for line in doctor.machine_lines(parts)), end="")
    app = doctor.inspect_application(arguments.app or doctor.OURS, python=arguments.python)
    asked, away = _broker_findings(arguments, app.broker_url, app.result_url)
    findings = [*doctor.application_findings(app), *asked]
    if arguments.json:
        print(doctor.to_json(app, findings, parts, away))
    else:
        lines = [doctor.title(app), *doctor.finding_lines(findings, width=telling.width())]
        print("\n".join([*lines, f"broker: {away}", doctor.summary(findings)]))
    lacking = any(not right for _, right, _ in parts)
    return USAGE if lacking else int(any(f.finding == doctor.TRAP for f in findings))


def _claims(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a run shows that a claim is not so."""
    writers = [claims.writer(path) for path in arguments.output]
    page = claims.measure(
        claims.load_claims(), [open_run(which, runs_dir=arguments.runs_dir) for which in arguments.which]
    )
    for path, write in zip(arguments.output, writers, strict=True):
        path.write_text(write(page), encoding="utf-8")
        print(path, file=sys.stderr)
    if arguments.json or not arguments.output:
        print(claims.FORMATS[".json" if arguments.json else ".md"](page), end="")
    return int(page.counts[claims.BROKEN] > 0)


def _completion(arguments: argparse.Namespace) -> int:
    names = {"scenario": scenario_names(), "mutate": mutant_names()}
    print(completion.script(_parser(), arguments.shell, names), end="")
    return 0


def _mutants(arguments: argparse.Namespace) -> int:
    mutants = mutation.chosen(arguments.only, arguments.scenario)
    if arguments.list:
        print(mutation.listing(mutants, mutation.without_mutant(), as_json=arguments.json))
        return 0
    folder = arguments.runs_dir / "mutants"
    earlier = mutation.Results.latest(folder) if arguments.resume else None
    results = earlier or mutation.Results.begin(folder, datetime.now(UTC))
    campaign = mutation.Campaign(mutants, results)

    def run(scenario: str, mutant: str | None) -> tuple[Path, Verdict]:
        made, verdict = runner.run(runner.RunOptions(scenario=scenario, mutant=mutant, runs_dir=folder))
        return made.path, verdict

    def tell(line: str) -> None:
        print(f"mutants: {line}", file=sys.stderr, flush=True)

    tell(f"results go to {results.file}; after a stop: --resume")
    matrix = campaign.conduct(run, tell)
    view = mutation.as_json if arguments.json else mutation.as_markdown if arguments.markdown else mutation.as_text
    print(view(matrix))
    return matrix.exit_code


def _broker_findings(arguments: argparse.Namespace, url: str, result_url: str) -> tuple[list[doctor.Finding], str]:
    """What the server says, and where it is or why it was not asked."""
    if arguments.offline:
        return [], "not asked"
    try:
        asked = doctor.ask_server(arguments.broker or url, result_url)
    except doctor.AwayError as err:
        # Named, it is what was asked for; the application's own may well be out of reach from here.
        if arguments.broker:
            raise doctor.DoctorError(str(err)) from err
        return [], str(err)
    return doctor.server_findings(asked), asked.place


def _watch(arguments: argparse.Namespace) -> int:
    text, code = watch.answer(arguments)
    print(text)
    return code


def _budget(arguments: argparse.Namespace) -> int:
    print(budget.answer(arguments))
    return 0
