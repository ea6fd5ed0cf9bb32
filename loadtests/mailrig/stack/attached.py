"""A stack that others started: where it is, by the environment; and what a run may do to it, which is little.

Rule 1: no part is started, stopped or hurt here; what the fakes were told to spoil is healed at the end.
Rule 2: secrets come from the environment and go to the service's own commands alone.
Called by runner (``mailrig run --attach``).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import redis

from fakemail.client import ControlError, FakeMail
from mailrig.stack import parts
from mailrig.stack.leftovers import StateFile
from mailrig.stack.processes import Command, Part, Spawner, StackError, end

#: What must be told of a stack, and what may be.
VARIABLES: Final = (
    "MAILRIG_API_URL", "MAILRIG_CONTROL_URL", "MAILRIG_EXPORTER_URL", "MAILRIG_SMTP", "MAILRIG_IMAP",
    "DATABASE_AUDIT_URL", "DATABASE_SYSTEM_URL", "MAIL_TOKEN_SECRET", "REDIS_URL",
)  # fmt: skip
OPTIONAL: Final = (
    "MAILRIG_JAEGER_URL",
    "MAILRIG_JAEGER_LINK",
    "MAILRIG_SPAN_DIR",
    "MAILRIG_TIME_SCALE",
    "MAIL_TRACE_SAMPLE",
)
TIMEOUT_S: Final = 5.0
#: Between two readings of the exporter, seconds: workers tell their memory no more often.
MEMORY_EVERY_S: Final = 2.0
#: Numbers that no process has, for processes whose own we don't know.
_NO_PID: Final = 2**31
_ONE_SHOT_TIMEOUT_S: Final = 60.0
_TOOL_GRACE_S: Final = 1.0
_SAMPLE: Final = re.compile(
    r"^(mail_worker_(?:memory_bytes|start_time_seconds))\{(.*)\}\s+(\S+)",
)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """Where a stack is that runs already."""

    api_url: str
    #: The fakes' control.
    control_url: str
    exporter_url: str
    #: As the service reaches them.
    smtp: tuple[str, int]
    imap: tuple[str, int]
    redis_url: str = field(repr=False)
    audit_url: str = field(repr=False)
    #: The query side of its Jaeger, as we reach it, and as a reader of the report does.
    jaeger_url: str | None
    jaeger_link: str | None
    #: Where its span files are mounted.
    span_dir: Path | None
    #: As its processes were told.
    time_scale: float
    trace_sample: float

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Attachment:
        """What the environment says.

        Raises:
            StackError: a variable is missing or wrong, by name.
        """
        if missing := [name for name in VARIABLES if not env.get(name, "").strip()]:
            raise StackError(f"--attach needs {', '.join(missing)}: where the stack is that is to be loaded")
        jaeger_url = env.get("MAILRIG_JAEGER_URL") or None
        span_dir = env.get("MAILRIG_SPAN_DIR") or None
        return cls(
            api_url=_url(env, "MAILRIG_API_URL"),
            control_url=_url(env, "MAILRIG_CONTROL_URL"),
            exporter_url=_url(env, "MAILRIG_EXPORTER_URL").removesuffix("/metrics"),
            smtp=_address(env, "MAILRIG_SMTP"),
            imap=_address(env, "MAILRIG_IMAP"),
            redis_url=env["REDIS_URL"].rstrip("/"),
            audit_url=env["DATABASE_AUDIT_URL"],
            jaeger_url=jaeger_url,
            jaeger_link=env.get("MAILRIG_JAEGER_LINK") or jaeger_url,
            span_dir=_folder("MAILRIG_SPAN_DIR", span_dir),
            time_scale=_number(env, "MAILRIG_TIME_SCALE", 0.05, "the MAIL_TIME_SCALE of the stack"),
            trace_sample=_number(env, "MAIL_TRACE_SAMPLE", 0, "as the stack has it"),
        )


def _url(env: Mapping[str, str], name: str) -> str:
    value = env[name].strip()
    try:
        parts = urlsplit(value)
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or "@" in value:
        raise StackError(f"{name} must look like http://host:8000, without a user or a password")
    return value.rstrip("/")


def _address(env: Mapping[str, str], name: str) -> tuple[str, int]:
    host, _, port = env[name].strip().rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004  # TCP's
        raise StackError(f"{name} must look like mail:3025, a host and a port as the service reaches them")
    return host.strip("[]"), int(port)


def _folder(name: str, value: str | None) -> Path | None:
    if value is None:
        return None
    if not Path(value).is_dir():
        raise StackError(
            f"{name} = {value} is no folder: mount the one that the service writes its spans to, or unset it"
        )
    return Path(value).absolute()


def _number(env: Mapping[str, str], name: str, least: float, what: str) -> float:
    """A number of the service's own, up to 1, which is what it has unless it is told otherwise."""
    text = env.get(name) or "1"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= 1:
        raise StackError(f"{name} = {text} is not a number from {least:g} to 1: {what}")
    return value


class AttachedStack:
    """A ``RunningStack`` of others."""

    def __init__(self, attachment: Attachment, *, log_dir: Path, state_dir: Path) -> None:
        self._attachment, self._log_dir = attachment, log_dir.absolute()
        self.api_url, self.control_url = attachment.api_url, attachment.control_url
        self.exporter_url, self.redis_url = attachment.exporter_url, attachment.redis_url
        self.audit_url, self.smtp, self.imap = attachment.audit_url, attachment.smtp, attachment.imap
        self.leftovers: list[str] = []
        self.broken: StackError | None = None
        self.without: frozenset[str] = frozenset()
        self.memory_every_s = MEMORY_EVERY_S
        self._tools: list[Part] = []
        self._state = StateFile(state_dir.absolute())
        self._spawner = Spawner(self._state.add, mark=self._state.mark)
        self._cancel = threading.Event()
        self._started = False
        #: When each worker started, by node; a worker that was started again is there twice.
        self._workers: dict[tuple[str, int], int] = {}
        self._numbers: dict[tuple[str, str], int] = {}

    # --- up and down ---

    def start(self) -> None:
        """See that all of it answers.

        Raises:
            StackError: names the variable of what does not.
        """
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self.leftovers = list(self._state.end_leftovers().told)
        _fetch("MAILRIG_API_URL", f"{self.api_url}/health")
        self._read_exporter()
        self._check("MAILRIG_CONTROL_URL", self.control_url, FakeMail(self.control_url, timeout_s=TIMEOUT_S).index)
        self._check("REDIS_URL", self.redis_url, self._ping)
        self._check("DATABASE_AUDIT_URL", self.audit_url, self._look)
        self._started = True

    def _ping(self) -> None:
        options = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
        with redis.Redis.from_url(self.redis_url + "/0", **options) as client:
            client.ping()

    def _look(self) -> None:
        with psycopg.connect(self.audit_url, connect_timeout=int(TIMEOUT_S)) as connection:
            connection.execute("SELECT 1 FROM audit.jobs LIMIT 1")

    @staticmethod
    def _check(name: str, url: str, ask: Callable[[], object]) -> None:
        try:
            ask()
        except (ControlError, redis.RedisError, psycopg.Error, ValueError, OSError) as err:
            reason = " ".join(parts.hidden(str(err), url).split()) or type(err).__name__
            raise StackError(
                f"{name} ({parts.masked(url)}) does not serve: {reason}"
            ) from None  # it can hold a password

    def stop(self) -> None:
        """End what we started, and heal the fakes."""
        self._cancel.set()
        end(self._tools, reason="stop", grace_s=_TOOL_GRACE_S)
        self._spawner.close()
        if self._started:
            self._started = False
            with contextlib.suppress(StackError):
                self._read_exporter()
            try:
                FakeMail(self.control_url).clear_faults()
            except ControlError as err:
                raise StackError(f"faults stay in the fakes at {self.control_url}: {err}") from err
            finally:
                self._state.clear()
        self._state.clear()

    def stop_after(self, err: BaseException) -> None:
        """As ``stop``, without losing what went wrong first."""
        try:
            self.stop()
        except StackError as second:
            err.add_note(str(second))

    def retire(self, kind: str) -> None:
        """Nothing: the parts are not ours."""

    # --- tenants and tools ---

    def create_tenant(self, name: str) -> None:
        """Make a tenant, by the service's own command."""
        self._one_shot("tenant", name)

    def token(self, tenant: str, user: str) -> str:
        """A bearer token, by the service's own command."""
        return self._one_shot("token", "--tenant", tenant, "--user", user)

    def _one_shot(self, *arguments: str) -> str:
        with tempfile.TemporaryDirectory() as empty:
            command = Command(
                kind=f"python -m email_service {arguments[0]}",
                argv=parts.python("email_service", *arguments),
                env=os.environ,
                log=self._log_dir / f"{arguments[0]}.log",
                capture=True,
                cwd=Path(empty),
            )
            code, out, err = self._spawner.run(command, timeout_s=_ONE_SHOT_TIMEOUT_S, cancel=self._cancel)
        if code:
            last = (err.strip() or "it wrote nothing").splitlines()[-1]
            raise StackError(f"{command.kind} ended with exit code {code}: {last}")
        return out.strip()

    def run_tool(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Part:
        """Start a program that must not outlive the rig; it gets none of the stack's secrets."""
        kept = {key: value for key, value in env.items() if key not in VARIABLES}
        tool = self._spawner.start(Command(kind=name, argv=argv, env=kept, log=self._log_dir / f"{name}.log"))
        self._tools.append(tool)
        return tool

    # --- watching ---

    def worker_memory(self) -> list[dict[str, Any]]:
        """What the exporter says of each worker process; none when it is away: the next reading is a retry."""
        try:
            return self._read_exporter()
        except StackError:
            return []

    def _read_exporter(self) -> list[dict[str, Any]]:
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        now_ns = time.time_ns()
        for name, labels, value in _samples(_fetch("MAILRIG_EXPORTER_URL", f"{self.exporter_url}/metrics")):
            worker = labels.get("worker", "")
            if name == "mail_worker_start_time_seconds":
                self._workers[worker, round(value * 1e9)] = now_ns
                continue
            process, kind = labels.get("process", ""), labels.get("kind", "")
            row = rows.setdefault((worker, process), self._row(worker, process))
            row[f"{kind}_bytes"] = int(value)
        return [row for row in rows.values() if "pss_bytes" in row]

    def _row(self, worker: str, process: str) -> dict[str, Any]:
        number = self._numbers.setdefault((worker, process), _NO_PID + len(self._numbers))
        return {"pid": number, "kind": "worker-main" if process == "main" else "worker-child"}

    @property
    def pids(self) -> dict[str, int]:
        """None: the processes are not ours."""
        return {}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The workers that the exporter saw; one that another took the place of has ended when it was last seen."""
        newest = {node: max(s for n, s in self._workers if n == node) for node, _ in self._workers}
        return [
            {
                "kind": "worker",
                "pid": _NO_PID + len(self._numbers) + number,
                "started_ns": started_ns,
                "ended_ns": None if newest[node] == started_ns else seen_ns,
                "exit_code": None,
                "reason": None if newest[node] == started_ns else "restart",
            }
            for number, ((node, started_ns), seen_ns) in enumerate(sorted(self._workers.items()))
        ]

    @property
    def told(self) -> dict[str, str]:
        """The secrets of the stack that we were given."""
        names = ("DATABASE_AUDIT_URL", "DATABASE_SYSTEM_URL", "MAIL_TOKEN_SECRET", "REDIS_URL")
        return {name: os.environ[name] for name in names if os.environ.get(name)}

    @property
    def broker_dir(self) -> Path | None:
        """None of ours."""
        return None

    # --- hurting: a scenario that would is refused before it begins ---

    @property
    def worker_pid(self) -> int | None:
        """None of ours."""
        return None

    def worker_children(self) -> list[int]:
        """None of ours."""
        return []

    def kill_worker_child(self, pid: int) -> None:
        """Refused."""
        raise StackError(f"process {pid} is none of the rig's: the stack was started by others")

    def kill_worker_parent(self) -> int | None:
        """Nobody."""
        return None

    def signal_part(self, kind: str, number: int) -> int | None:  # noqa: ARG002  # nobody is there to get it
        """Nobody."""
        return None

    def server_down(
        self,
        kind: str,
        *,
        forget: bool = False,  # noqa: ARG002  # as above
    ) -> contextlib.AbstractContextManager[None]:
        """Refused."""
        raise StackError(f"{kind} is none of the rig's: the stack was started by others")


def _fetch(name: str, url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  # http or https: see _url
            text: str = answer.read().decode(errors="replace")
            return text
    except urllib.error.HTTPError as err:
        raise StackError(f"{name}: {url} answers {err.code}") from err
    except (OSError, http.client.HTTPException) as err:
        reason = getattr(err, "reason", None) or err
        told = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise StackError(f"{name}: {url} does not answer: {told}") from err


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Metric, labels and value of the workers' lines of an exposition."""
    for line in text.splitlines():
        if found := _SAMPLE.match(line):
            yield found[1], dict(_LABEL.findall(found[2])), float(found[3])
