"""Further processes of the service beside those of the live stack, each with settings of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import until

from email_service.celery_app import MailCelery, celery_for
from email_service.config import settings_from
from mailrig.stack import Part, end, parts

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


@contextmanager
def process(live: Any, folder: Path, kind: str, *arguments: str, **environment: str) -> Iterator[Process]:
    """``python -m email_service KIND`` on the live stack's servers, ended with the block."""
    name = f"{kind}-{folder.name}"
    ready = folder / f"{kind}.ready"
    ready.unlink(missing_ok=True)
    argv = parts.python("email_service", kind, "--ready-file", str(ready), *arguments)
    part = live.stack.run_tool(name, argv, live.stack._env | environment)
    try:
        until(lambda: ready.exists() or part.popen.poll() is not None, what=f"{kind}'s start")
        assert ready.exists(), part.log.read_text()
        yield Process(part=part, facts=json.loads(ready.read_text()))
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
