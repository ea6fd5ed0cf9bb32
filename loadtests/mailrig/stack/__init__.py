"""The stack: every part of the service and its neighbours, up, watched, hurt on demand, and down.

Embedded processes by default; REDIS_URL and DATABASE_URL put servers of yours in the place of ours. Called by runner.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psutil

from mailrig.stack import parts
from mailrig.stack.doctor import doctor
from mailrig.stack.processes import (
    Command,
    Part,
    Spawner,
    StackError,
    StateFile,
    await_file,
    end,
    kill_session,
    note_end,
    tail,
)
from mailrig.stack.samplers import MemorySampler, QueueSampler

__all__ = ["MemorySampler", "Part", "QueueSampler", "Stack", "StackError", "StackOptions", "doctor", "end"]

#: Long-running kinds of ``python -m email_service``.
SERVICES: Final = ("api", "worker", "beat", "dispatcher", "exporter")
#: How often one part may be started again before the run is given up.
RESTARTS_MAX: Final = 5
READY_TIMEOUT_S: Final = 30.0
#: How long parts get to end by themselves: a worker finishes what it runs.
STOP_GRACE_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """How to bring the stack up."""

    #: Where logs and spans go.
    log_dir: Path
    span_dir: Path
    #: Where rigs write down what they started, to find what a killed one left.
    state_dir: Path
    time_scale: float = 1.0
    concurrency: int = 4
    seed: int = 1
    #: 0 takes a free port.
    ports: Mapping[str, int] = field(default_factory=dict)
    #: Environment of the service's processes on top of ours: what a mutant overrides.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: A folder that holds a patched email_service.
    python_path: Path | None = None
    #: Parts that are not started.
    without: frozenset[str] = frozenset()


class Stack:
    """All parts. ``start`` and ``stop``, or a ``with`` block."""

    def __init__(self, options: StackOptions) -> None:
        self._options = options
        self._spawner = Spawner()
        self._state = StateFile(options.state_dir)
        self._lock = threading.RLock()
        self._all: list[Part] = []
        self._now: dict[str, Part] = {}
        self._commands: dict[str, tuple[Command, Path]] = {}
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._folder = Path(parts.data_folder())
        self._env: dict[str, str] = {}
        self._external: tuple[str, str] | None = None
        #: A part that could not be kept alive; the runner gives up when it is set.
        self.broken: StackError | None = None
        self.leftovers: list[str] = []
        self.api_url = self.exporter_url = self.control_url = self.redis_url = self.audit_url = ""
        self.smtp: tuple[str, int] = ("", 0)
        self.imap: tuple[str, int] = ("", 0)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- up and down ---

    def start(self) -> None:
        """Bring all parts up.

        Raises:
            StackError: names the part, and says what would be right.
        """
        self.leftovers = self._state.end_leftovers()
        self._state.add_folder(self._folder)
        self._options.span_dir.mkdir(parents=True, exist_ok=True)
        self._options.log_dir.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max_workers=3) as pool:
            servers = [pool.submit(f) for f in (self._start_broker, self._start_database, self._start_fakes)]
            owner_url = [s.result() for s in servers][1]
        self._env = self._service_env(str(owner_url))
        self._one_shot("migrate")
        for kind in SERVICES:
            if kind not in self._options.without:
                self._launch(kind)
        for kind in [k for k in SERVICES if k in self._now]:
            self._ready(kind)
        self._supervisor.start()

    def stop(self) -> None:
        """End all parts, in the order of who needs whom; safe to call twice."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        with self._lock:
            services = [self._now[k] for k in SERVICES if k in self._now]
            end(services, reason="stop", grace_s=STOP_GRACE_S)
            self._drop_external()
            servers = [self._now[k] for k in ("fakemail", "valkey") if k in self._now]
            end(servers, reason="stop", grace_s=STOP_GRACE_S)
            if "postgres" in self._now:
                end([self._now["postgres"]], reason="stop", grace_s=STOP_GRACE_S, first=signal.SIGINT)
            self._now.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._state.clear()
        self._spawner.close()

    def _drop_external(self) -> None:
        if self._external is not None:
            parts.drop_database(*self._external)
            self._external = None

    def _port(self, part: str) -> int:
        wanted = self._options.ports.get(part, 0)
        return parts.check_port(wanted, part) if wanted else parts.free_port()

    def _note(self, part: Part) -> Part:
        with self._lock:
            self._all.append(part)
            self._now[part.kind] = part
            self._state.add(part)
        return part

    def _start_broker(self) -> None:
        given = os.environ.get("REDIS_URL")
        if given:
            self.redis_url = parts.external_redis(given)
            return
        part, self.redis_url = parts.start_valkey(
            self._spawner, self._folder / "valkey", self._options.log_dir, self._port("redis")
        )
        self._note(part)

    def _start_database(self) -> str:
        given = os.environ.get("DATABASE_URL")
        if given:
            url, name = parts.own_database(given)
            self._external = (given, name)
            return url
        part, url = parts.start_postgres(
            self._spawner, self._folder / "postgres", self._options.log_dir, self._port("postgres")
        )
        self._note(part)
        return url

    def _start_fakes(self) -> None:
        ready = self._folder / "fakemail.ready"
        argv = parts.python("fakemail", "--ready-file", str(ready), "--seed", str(self._options.seed))
        for part in ("smtp", "imap", "control"):
            argv += [f"--{part}-port", str(self._port(part))]
        argv += ["--smtps-port", "0", "--imaps-port", "0"]
        log = self._options.log_dir / "fakemail.log"
        part_ = self._note(self._spawner.start(Command(kind="fakemail", argv=argv, env=os.environ, log=log)))
        facts = await_file(part_, ready, deadline_s=READY_TIMEOUT_S)
        self.smtp = (facts["smtp"]["host"], facts["smtp"]["port"])
        self.imap = (facts["imap"]["host"], facts["imap"]["port"])
        self.control_url = facts["control"]

    # --- the service ---

    def _service_env(self, owner_url: str) -> dict[str, str]:
        urls = parts.role_urls(owner_url)
        self.audit_url = urls["DATABASE_AUDIT_URL"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAIL_", "DATABASE_", "OTEL_"))}
        env |= {k: v for k, v in os.environ.items() if k.startswith("OTEL_EXPORTER_")}
        env |= urls | {
            "DATABASE_OWNER_URL": owner_url,
            "REDIS_URL": self.redis_url,
            "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "MAIL_TOKEN_SECRET": secrets.token_urlsafe(48),
            "MAIL_ALLOWED_HOSTS": ",".join(f"{host}:{port}" for host, port in (self.smtp, self.imap)),
            "MAIL_BLOB_DIR": str(self._folder / "blobs"),
            "MAIL_BEAT_STORE": str(self._folder / "beat-schedule.db"),
            "MAIL_TIME_SCALE": str(self._options.time_scale),
            "MAIL_SPAN_DIR": str(self._options.span_dir),
            "PYTHONUNBUFFERED": "1",
        }
        if self._options.python_path is not None:
            inherited = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
            env["PYTHONPATH"] = os.pathsep.join([str(self._options.python_path), *inherited])
        return env | dict(self._options.environment)

    def _launch(self, kind: str) -> None:
        ready = self._folder / f"{kind}.ready"
        argv = parts.python("email_service", kind, "--ready-file", str(ready))
        if kind in {"api", "exporter"}:
            argv += ["--port", str(self._port(kind))]
        if kind == "worker":
            argv += ["--concurrency", str(self._options.concurrency), "--node", "mail@rig"]
        command = Command(kind=kind, argv=argv, env=self._env, log=self._options.log_dir / f"{kind}.log")
        self._commands[kind] = (command, ready)
        self._note(self._spawner.start(command))

    def _ready(self, kind: str) -> None:
        facts = await_file(self._now[kind], self._commands[kind][1], deadline_s=READY_TIMEOUT_S)
        if kind == "api":
            self.api_url = facts["url"]
        if kind == "exporter":
            self.exporter_url = facts["url"]

    def _one_shot(self, *arguments: str) -> str:
        done = subprocess.run(
            parts.python("email_service", *arguments),
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise StackError(f"python -m email_service {arguments[0]} ended with {done.returncode}: {last}")
        return done.stdout.strip()

    def create_tenant(self, name: str) -> None:
        """Make a tenant, by the service's own command."""
        self._one_shot("tenant", name)

    def token(self, tenant: str, user: str) -> str:
        """A bearer token, by the service's own command."""
        return self._one_shot("token", "--tenant", tenant, "--user", user)

    def run_tool(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Part:
        """Start a program that is no part of the stack, but that must not outlive the rig either."""
        log = self._options.log_dir / f"{name}.log"
        part = self._spawner.start(Command(kind=name, argv=argv, env=env, log=log))
        self._state.add(part)
        return part

    def retire(self, kind: str) -> None:
        """End one part for good, before the others."""
        with self._lock:
            part = self._now.pop(kind, None)
        if part is not None:
            end([part], reason="stop", grace_s=STOP_GRACE_S)

    # --- watching ---

    def _supervise(self) -> None:
        """Start again what ends by itself, and write down that it did."""
        restarts = dict.fromkeys(SERVICES, 0)
        while not self._stopping.wait(0.05):
            with self._lock:
                for part in list(self._now.values()):
                    if part.popen.poll() is not None:
                        self._revive(part, restarts)

    def _revive(self, part: Part, restarts: dict[str, int]) -> None:
        code = part.popen.returncode
        kill_session(part.popen.pid, part.create_time)
        note_end(part, "killed" if code == -signal.SIGKILL else "exit")
        del self._now[part.kind]
        if part.kind not in restarts or restarts[part.kind] >= RESTARTS_MAX:
            self.broken = StackError(
                f"{part.kind} ended with exit code {code} and is not started again:{tail(part.log)}"
            )
            return
        restarts[part.kind] += 1
        command, ready = self._commands[part.kind]
        ready.unlink(missing_ok=True)
        self._note(self._spawner.start(command))

    @property
    def records(self) -> list[dict[str, Any]]:
        """All processes that ever were, for processes.jsonl."""
        with self._lock:
            return [part.record() for part in self._all]

    @property
    def pids(self) -> dict[str, int]:
        """The main process of each part that runs."""
        with self._lock:
            return {kind: part.popen.pid for kind, part in self._now.items()}

    @property
    def worker_pid(self) -> int | None:
        """The worker's main process; None while it is down."""
        return self.pids.get("worker")

    def worker_children(self) -> list[int]:
        """The processes that run tasks."""
        pid = self.worker_pid
        try:
            return [child.pid for child in psutil.Process(pid).children()] if pid else []
        except psutil.Error:
            return []

    def worker_processes(self) -> list[tuple[int, str]]:
        """Pids with their kind, for the memory sampler."""
        pid = self.worker_pid
        main = [(pid, "worker-main")] if pid else []
        return main + [(child, "worker-child") for child in self.worker_children()]

    # --- hurting ---

    def kill_worker_child(self, pid: int) -> None:
        """SIGKILL one process that runs tasks."""
        os.kill(pid, signal.SIGKILL)

    def kill_worker_parent(self) -> int | None:
        """SIGKILL the worker's main process; the supervisor starts it again."""
        pid = self.worker_pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid

    def pause_worker(self) -> None:
        """Stop the worker's main process where it stands."""
        self._signal_worker(signal.SIGSTOP)

    def resume_worker(self) -> None:
        """Let it go on."""
        self._signal_worker(signal.SIGCONT)

    def _signal_worker(self, number: int) -> None:
        pid = self.worker_pid
        if pid is not None:
            os.kill(pid, number)
