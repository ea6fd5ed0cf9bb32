"""All parts together: in which order they come up, what they are told, who keeps them alive, how they are hurt.

Owns the secrets of one run: they are made here, live in the children's environment, and go with them. Never reads the
service's code: it knows its commands and its variables. Called by runner and, through a protocol, by nemesis.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from mailrig.stack import parts
from mailrig.stack.leftovers import StateFile, forget_databases
from mailrig.stack.processes import (
    Command,
    Part,
    Spawner,
    StackError,
    await_file,
    children,
    death,
    end,
    kill_session,
    note_end,
    wait_until,
)
from mailrig.stack.samplers import MEMORY_EVERY_S, memory_of

#: Long-running kinds of ``python -m email_service``.
SERVICES: Final = ("api", "worker", "beat", "dispatcher", "exporter")
#: How often one part may be started again before the run is given up.
RESTARTS_MAX: Final = 5
READY_TIMEOUT_S: Final = 30.0
ONE_SHOT_TIMEOUT_S: Final = 60.0
#: How long parts get to end by themselves: a worker finishes what it runs.
STOP_GRACE_S: Final = 10.0
TOOL_GRACE_S: Final = 1.0
_WATCH_EVERY_S: Final = 0.05
#: Variables of the user's that would change the service behind the rig's back (Celery prefers its own to any setting).
_OURS: Final = ("MAIL_", "DATABASE_", "OTEL_", "CELERY", "TASK_", "WORKER_", "CREDENTIAL_")


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """How to bring the stack up."""

    #: Where logs and spans go.
    log_dir: Path
    span_dir: Path
    #: Where rigs write down what they started, to find what a killed one left.
    state_dir: Path
    #: Scales the service's backoff, leases and intervals; 0.05 to 1.
    time_scale: float = 1.0
    #: Processes of the worker that run tasks.
    concurrency: int = 4
    #: Seeds the fakes' faults.
    seed: int = 1
    #: By part (api, exporter, smtp, imap, control, redis, postgres); 0 or none takes a free one.
    ports: Mapping[str, int] = field(default_factory=dict)
    #: Environment of the service's processes on top of ours: what a mutant overrides.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: A folder that holds a patched email_service; comes first for the service's processes only.
    python_path: Path | None = None
    #: Parts that are not started.
    without: frozenset[str] = frozenset()


class Stack:
    """All parts. ``start`` and ``stop``, or a ``with`` block."""

    def __init__(self, options: StackOptions) -> None:
        # Children don't run in our working directory, nor need we stay in it.
        self._options = replace(
            options,
            log_dir=options.log_dir.absolute(),
            span_dir=options.span_dir.absolute(),
            state_dir=options.state_dir.absolute(),
            python_path=options.python_path and options.python_path.absolute(),
        )
        #: What was done about rigs that were killed, a line each.
        self.leftovers: list[str] = []
        #: A part that could not be kept alive; the runner gives up when it is set.
        self.broken: StackError | None = None
        self.api_url = self.exporter_url = self.control_url = self.redis_url = self.audit_url = ""
        self.smtp: tuple[str, int] = ("", 0)
        self.imap: tuple[str, int] = ("", 0)
        self.without: frozenset[str] = options.without
        self.memory_every_s = MEMORY_EVERY_S
        self._lock = threading.RLock()
        self._all: list[Part] = []
        self._now: dict[str, Part] = {}
        self._tools: list[Part] = []
        self._commands: dict[str, tuple[Command, Path]] = {}
        self._restarts = dict.fromkeys(SERVICES, 0)
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._env: dict[str, str] = {}
        self._owner_url = ""
        self._own_database: tuple[str, str] | None = None
        self._folder: Path | None = None
        self._state = StateFile(self._options.state_dir)
        self._spawner = Spawner(self._state.add, mark=self._state.mark)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as err:
            self.stop_after(err)
            raise
        return self

    def __exit__(self, _kind: object, err: BaseException | None, _trace: object) -> None:
        if err is None:
            self.stop()
        else:
            self.stop_after(err)

    def stop_after(self, err: BaseException) -> None:
        """Bring all down without losing what went wrong first."""
        try:
            self.stop()
        except StackError as second:
            err.add_note(str(second))

    # --- up ---

    def start(self) -> None:
        """Bring all parts up.

        Raises:
            StackError: names the part, and says what would be right.
        """
        for folder in (self._options.log_dir, self._options.span_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._clean_up_after_others()
        self._folder = Path(parts.data_folder())
        self._state.add_folder(self._folder)
        self._check_ports()
        self._together([self._start_broker, self._start_migrated_database, self._start_fakes])
        self._env |= self._neighbours()
        for kind in SERVICES:
            if kind not in self._options.without:
                self._launch(kind)
        self._together([lambda kind=kind: self._ready(kind) for kind in SERVICES if kind in self._now])  # type: ignore[misc]
        self._supervisor.start()

    def _clean_up_after_others(self) -> None:
        found = self._state.end_leftovers()
        self.leftovers = list(found.told)
        owner_url = parts.external_database()
        # Without the server's address they can't be dropped: the file stays until a rig has it.
        if owner_url and found.databases:
            for _, name in found.databases:
                parts.drop_database(owner_url, name)
                self.leftovers.append(f"dropped database {name}, left by a rig that was killed")
            forget_databases(found.databases)

    def _check_ports(self) -> None:
        """Before anything is started: what can't work is said at once."""
        for part, port in self._options.ports.items():
            if port:
                parts.check_port(port, part)

    def _together(self, steps: Sequence[Callable[[], None]]) -> None:
        """Do all at once; the first that fails stops the others from waiting, and is the one that is told."""
        with ThreadPoolExecutor(max_workers=max(1, len(steps))) as pool:
            futures = [pool.submit(step) for step in steps]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in done if future.exception() is not None]
                if failed:
                    failed[0].result()
            except BaseException:
                self._given_up.set()
                raise

    def _note(self, part: Part) -> Part:
        with self._lock:
            self._all.append(part)
            self._now[part.kind] = part
        return part

    @property
    def _home(self) -> Path:
        assert self._folder is not None  # noqa: S101  # start made it
        return self._folder

    def _port(self, part: str) -> int:
        return self._options.ports.get(part) or 0

    def _start_broker(self) -> None:
        given = os.environ.get("REDIS_URL")
        if given:
            self.redis_url = parts.external_redis(given)
            return
        folder, logs = self._home / "valkey", self._options.log_dir
        part, self.redis_url = parts.start_valkey(self._spawner, folder, logs, self._port("redis"), self._given_up)
        self._note(part)

    def _start_migrated_database(self) -> None:
        owner_url = self._owner_url = self._start_database()
        urls = parts.role_urls(owner_url)
        self.audit_url = urls["DATABASE_AUDIT_URL"]
        self._env = self._service_env(urls)
        self._one_shot("migrate", env={"DATABASE_OWNER_URL": owner_url})

    def _start_database(self) -> str:
        given = parts.external_database()
        if given:
            url, name = parts.own_database(given)
            self._own_database = (given, name)
            self._state.add_database(name)
            return url
        folder, logs = self._home / "postgres", self._options.log_dir
        part, url = parts.start_postgres(self._spawner, folder, logs, self._port("postgres"), self._given_up)
        self._note(part)
        return url

    def _start_fakes(self) -> None:
        ready = self._home / "fakemail.ready"
        argv = parts.python("fakemail", "--ready-file", str(ready), "--seed", str(self._options.seed))
        for part in ("smtp", "imap", "control"):
            argv += [f"--{part}-port", str(self._port(part))]
        argv += ["--smtps-port", "0", "--imaps-port", "0"]
        log = self._options.log_dir / "fakemail.log"
        fakes = self._note(self._spawner.start(Command(kind="fakemail", argv=argv, env=os.environ, log=log)))
        facts = await_file(fakes, ready, deadline_s=READY_TIMEOUT_S, cancel=self._given_up)
        self.smtp = (facts["smtp"]["host"], facts["smtp"]["port"])
        self.imap = (facts["imap"]["host"], facts["imap"]["port"])
        self.control_url = facts["control"]

    # --- the service ---

    def _service_env(self, urls: Mapping[str, str]) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        env |= {k: v for k, v in os.environ.items() if k.startswith("OTEL_EXPORTER_")}
        env |= urls
        env |= {
            "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "MAIL_TOKEN_SECRET": secrets.token_urlsafe(48),
            "MAIL_BLOB_DIR": str(self._home / "blobs"),
            "MAIL_BEAT_STORE": str(self._home / "beat-schedule.db"),
            "MAIL_RATE_LIMIT": "off",
            "MAIL_TIME_SCALE": str(self._options.time_scale),
            "MAIL_SPAN_DIR": str(self._options.span_dir),
            # The rig reads them all when the run is over.
            "MAIL_SPAN_BYTES_MAX": "0",
            "PYTHONUNBUFFERED": "1",
        }
        if self._options.python_path is not None:
            inherited = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
            env["PYTHONPATH"] = os.pathsep.join([str(self._options.python_path), *inherited])
        return env | dict(self._options.environment)

    def _neighbours(self) -> dict[str, str]:
        """What is known only once the broker and the fakes are up; a mutant's word counts more."""
        hosts = ",".join(f"{host}:{port}" for host, port in (self.smtp, self.imap))
        return {"REDIS_URL": self.redis_url, "MAIL_ALLOWED_HOSTS": hosts} | dict(self._options.environment)

    def _launch(self, kind: str) -> None:
        ready = self._home / f"{kind}.ready"
        argv = parts.python("email_service", kind, "--ready-file", str(ready))
        if kind in {"api", "exporter"}:
            argv += ["--port", str(self._port(kind))]
        if kind == "worker":
            argv += ["--concurrency", str(self._options.concurrency), "--node", "mail@rig"]
        log = self._options.log_dir / f"{kind}.log"
        command = Command(kind=kind, argv=argv, env=self._env, log=log, cwd=self._home)
        self._commands[kind] = (command, ready)
        self._note(self._spawner.start(command))

    def _ready(self, kind: str) -> None:
        command, ready = self._commands[kind]
        facts = await_file(self._now[kind], ready, deadline_s=READY_TIMEOUT_S, cancel=self._given_up)
        if kind == "api":
            self.api_url = facts["url"]
        if kind == "exporter":
            self.exporter_url = facts["url"]
        if "url" in facts:
            # Started again, it must be where its clients look for it.
            argv = [*command.argv[:-1], str(urlsplit(facts["url"]).port)]
            self._commands[kind] = (replace(command, argv=argv), ready)

    def _one_shot(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        command = Command(
            kind=f"python -m email_service {arguments[0]}",
            argv=parts.python("email_service", *arguments),
            env={**self._env, **(env or {})},
            log=self._options.log_dir / f"{arguments[0]}.log",
            capture=True,
            cwd=self._home,
        )
        code, out, err = self._spawner.run(command, timeout_s=ONE_SHOT_TIMEOUT_S, cancel=self._given_up)
        # Its answer may be a token; what it says on the way is a log like any other.
        if err:
            with command.log.open("a", encoding="utf-8") as log:
                log.write(err)
        if code:
            last = (err.strip() or "it wrote nothing").splitlines()[-1]
            raise StackError(f"{command.kind} ended with exit code {code}: {last}")
        return out.strip()

    def create_tenant(self, name: str) -> None:
        """Make a tenant, by the service's own command."""
        self._one_shot("tenant", name)

    def token(self, tenant: str, user: str) -> str:
        """A bearer token, by the service's own command."""
        return self._one_shot("token", "--tenant", tenant, "--user", user)

    def run_tool(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Part:
        """Start a program that is no part of the stack, but that must not outlive the rig either."""
        log = self._options.log_dir / f"{name}.log"
        tool = self._spawner.start(Command(kind=name, argv=argv, env=env, log=log))
        self._tools.append(tool)
        return tool

    # --- down ---

    def stop(self) -> None:
        """End all parts, in the order of who needs whom; safe to call twice.

        Raises:
            StackError: everything has ended, but something of it stayed on a server that is not ours.
        """
        self._stopping.set()
        self._given_up.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        try:
            end(self._tools, reason="stop", grace_s=TOOL_GRACE_S)
            self._end_kinds(SERVICES)
            self._drop_own_database()
        finally:
            self._end_kinds(("fakemail", "valkey"))
            self._end_kinds(("postgres",), first=signal.SIGINT)
            self._end_rest()

    def _end_kinds(self, kinds: Sequence[str], *, first: int = signal.SIGTERM) -> None:
        with self._lock:
            doomed = [self._now.pop(kind) for kind in kinds if kind in self._now]
        end(doomed, reason="stop", grace_s=STOP_GRACE_S, first=first)

    def _end_rest(self) -> None:
        self._spawner.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        # With a database still there, the next rig needs to know.
        if self._own_database is None:
            self._state.clear()

    def _drop_own_database(self) -> None:
        if self._own_database is not None:
            parts.drop_database(*self._own_database)
            self._own_database = None

    def retire(self, kind: str) -> None:
        """End one part for good, before the others."""
        self._end_kinds((kind,))

    # --- watching ---

    def _supervise(self) -> None:
        """Start again what ends by itself, and write down that it did."""
        while not self._stopping.wait(_WATCH_EVERY_S):
            with self._lock:
                for part in [part for part in self._now.values() if part.popen.poll() is not None]:
                    try:
                        self._revive(part)
                    except (StackError, OSError) as err:
                        self.broken = StackError(f"{part.kind} ended and can't be started again: {err}")

    def _revive(self, part: Part) -> None:
        kill_session(part.identity, part.mark)
        note_end(part, "killed" if part.popen.returncode == -signal.SIGKILL else "restart")
        del self._now[part.kind]
        if self._restarts.get(part.kind, RESTARTS_MAX) >= RESTARTS_MAX:
            again = f" after {RESTARTS_MAX} restarts" if part.kind in self._restarts else ""
            self.broken = StackError(f"gave up{again}: {death(part)}")
            return
        self._restarts[part.kind] += 1
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
            return {kind: part.identity.pid for kind, part in self._now.items()}

    @property
    def told(self) -> dict[str, str]:
        """What the service was told, and the owner's URL, which only ``migrate`` gets to know."""
        return {**self._env, "DATABASE_OWNER_URL": self._owner_url}

    @property
    def broker_dir(self) -> Path | None:
        """Where our own broker appends its commands."""
        return self._home / "valkey" if "valkey" in self._now else None

    @property
    def worker_pid(self) -> int | None:
        """The worker's main process; None while it is down."""
        return self.pids.get("worker")

    def worker_children(self) -> list[int]:
        """The processes that run tasks."""
        pid = self.worker_pid
        return children(pid) if pid else []

    def worker_processes(self) -> list[tuple[int, str]]:
        """Pids with their kind."""
        pid = self.worker_pid
        main = [(pid, "worker-main")] if pid else []
        return main + [(child, "worker-child") for child in self.worker_children()]

    def worker_memory(self) -> list[dict[str, Any]]:
        """What each of them takes; whoever has ended meanwhile has no row."""
        return [row for pid, kind in self.worker_processes() if (row := memory_of(pid, kind)) is not None]

    # --- hurting ---

    def kill_worker_child(self, pid: int) -> None:
        """SIGKILL one process that runs tasks.

        Raises:
            StackError: it is none of the worker's: it has ended, and its number may be anybody's by now.
        """
        if pid not in self.worker_children():
            raise StackError(f"process {pid} runs no tasks (any more)")
        os.kill(pid, signal.SIGKILL)

    def kill_worker_parent(self) -> int | None:
        """SIGKILL the worker's main process; the supervisor starts it again."""
        return self.signal_part("worker", signal.SIGKILL)

    def pause_worker(self) -> None:
        """Stop the worker's main process where it stands."""
        self.signal_part("worker", signal.SIGSTOP)

    def resume_worker(self) -> None:
        """Let it go on."""
        self.signal_part("worker", signal.SIGCONT)

    @contextmanager
    def server_down(self, kind: str, *, forget: bool = False) -> Iterator[None]:
        """SIGKILL our own valkey or postgres; behind the block it serves again, with what it had written.

        With ``forget`` a broker begins empty.

        Raises:
            StackError: the server is not ours, or does not come back.
        """
        with self._lock:
            if kind not in {"valkey", "postgres"} or kind not in self._now:
                raise StackError(f"{kind} is no server of the stack's own")
            # Whoever is not there is not revived.
            part = self._now.pop(kind)
        part.popen.kill()
        part.popen.wait()
        note_end(part, "killed")
        kill_session(part.identity, part.mark)
        if forget:
            shutil.rmtree(self._home / kind / "appendonlydir", ignore_errors=True)
        try:
            yield
        finally:
            again = self._note(self._spawner.start(part.command))
            url = self.redis_url if kind == "valkey" else self.audit_url
            wait_until(lambda: parts.answers(url), again, deadline_s=READY_TIMEOUT_S, cancel=self._given_up)

    def signal_part(self, kind: str, number: int) -> int | None:
        """Send a signal to a part's main process; answers its pid, or None when it does not run.

        Whatever ends of it is started again by the supervisor, and a paused part that is stopped goes on first.
        """
        with self._lock:
            part = self._now.get(kind)
            if part is None or part.popen.poll() is not None:
                return None
            part.popen.send_signal(number)
            return part.identity.pid
