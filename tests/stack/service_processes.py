"""Further processes of the service beside those of the live stack, each with settings of its own."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import until

from email_service.celery_app import MailCelery, celery_for
from email_service.config import settings_from
from mailrig.stack import Part, end, parts
from mailrig.stack.processes import Command, Spawner

#: The node of the live stack's own worker.
RIG = "mail@rig"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One that serves."""

    part: Part
    #: What its ready file says.
    facts: dict[str, Any]

    @property
    def pid(self) -> int:
        return self.part.identity.pid

    @property
    def log(self) -> str:
        return self.part.log.read_text(errors="replace")

    def exit_code(self, *, deadline_s: float) -> int:
        """Waits for its end."""
        until(lambda: self.part.popen.poll() is not None, what="its end", deadline_s=deadline_s)
        return int(self.part.popen.returncode)


def bare_environment(redis_url: str, folder: Path, **changes: str) -> dict[str, str]:
    """What a process needs that has a broker and never asks the database."""
    nowhere = "postgresql://{}:nothing@127.0.0.1:9/none"
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("MAIL_", "DATABASE_", "OTEL_", "CELERY"))},
        "REDIS_URL": redis_url,
        "DATABASE_URL": nowhere.format("mail_app"),
        "DATABASE_SYSTEM_URL": nowhere.format("mail_system"),
        "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
        "MAIL_TOKEN_SECRET": "t" * 40,
        "MAIL_BLOB_DIR": str(folder / "blobs"),
        "MAIL_BEAT_STORE": str(folder / "beat.db"),
        "MAIL_FLOWER_STORE": str(folder / "flower.db"),
        "MAIL_TIME_SCALE": "0.05",
        **changes,
    }


class Bare:
    """A broker of its own, and processes that need no more."""

    def __init__(self, folder: Path) -> None:
        self.spawner = Spawner()
        self._part, self.redis_url = parts.start_valkey(self.spawner, folder / "valkey", folder, 0)

    def close(self) -> None:
        end([self._part], reason="stop", grace_s=5)
        self.spawner.close()

    def start(self, environment: dict[str, str], folder: Path, kind: str, *arguments: str) -> tuple[Part, Path]:
        """A process that may fail, and its ready file."""
        ready = folder / f"{kind}.ready"
        ready.unlink(missing_ok=True)
        argv = parts.python("email_service", kind, "--ready-file", str(ready), *arguments)
        command = Command(kind=kind, argv=argv, env=environment, log=folder / f"{kind}.log")
        return self.spawner.start(command), ready

    @contextmanager
    def serving(self, environment: dict[str, str], folder: Path, kind: str, *arguments: str) -> Iterator[Process]:
        """A process that serves, ended with the block."""
        part, ready = self.start(environment, folder, kind, *arguments)
        try:
            yield _ready(part, ready)
        finally:
            end([part], reason="stop", grace_s=5)


def _ready(part: Part, ready: Path) -> Process:
    until(lambda: ready.exists() or part.popen.poll() is not None, what=f"{part.kind}'s start")
    assert ready.exists(), part.log.read_text()
    return Process(part=part, facts=json.loads(ready.read_text()))


@contextmanager
def process(live: Any, folder: Path, kind: str, *arguments: str, **environment: str) -> Iterator[Process]:
    """``python -m email_service KIND`` on the live stack's servers, ended with the block."""
    name = f"{kind}-{folder.name}"
    ready = folder / f"{kind}.ready"
    ready.unlink(missing_ok=True)
    argv = parts.python("email_service", kind, "--ready-file", str(ready), *arguments)
    part = live.stack.run_tool(name, argv, live.stack._env | environment)
    try:
        yield _ready(part, ready)
    finally:
        end([part], reason="stop", grace_s=0)


def celery_of(live: Any, **environment: str) -> MailCelery:
    """An application on the live stack's broker, to publish and to control with."""
    return celery_for(settings_from(live.stack._env | environment))


@contextmanager
def deaf(app: MailCelery, *queues: str, node: str = RIG) -> Iterator[None]:
    """A worker that does not consume these queues, although it answers; again what it was after the block."""

    def control(command: str) -> None:
        for queue in queues:
            answers = app.control.broadcast(
                command, arguments={"queue": queue}, destination=[node], reply=True, timeout=5.0, limit=1
            )
            assert answers, f"{node} does not answer {command}"

    control("cancel_consumer")
    try:
        yield
    finally:
        control("add_consumer")
