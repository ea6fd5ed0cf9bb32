"""A Celery application, looked at in a process of its own, with its own interpreter if it has one.

Owns that process: its time, its output, and the words for what went wrong. Called by cli.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from mailrig.doctor.facts import App
from mailrig.doctor.findings import Finding, look_at
from mailrig.doctor.holding import HOLDING
from mailrig.doctor.keeping import KEEPING
from mailrig.doctor.order import ORDER
from mailrig.doctor.spelling import SPELLING
from mailrig.doctor.waiting import WAITING
from mailrig.scenario import RigError

#: The service's own.
OURS: Final = "mailrig.doctor.ours:app"
#: How long an application may take to be imported.
IMPORT_TIMEOUT_S: Final = 60.0
_PROBE: Final = Path(__file__).with_name("probe.py")


class DoctorError(RigError):
    """There is nothing to look at: exit code 2."""


def inspect_application(name: str, *, python: str | None = None, timeout_s: float = IMPORT_TIMEOUT_S) -> App:
    """What ``module:attribute`` is, imported from the working directory.

    Raises:
        DoctorError: it can't be imported, or is no application.
    """
    try:
        done = subprocess.run(
            [python or sys.executable, os.fspath(_PROBE), name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise DoctorError(f"{name} is not imported after {timeout_s:g} s") from err
    except OSError as err:
        raise DoctorError(f"{python}: {err.strerror}") from err
    answer = _answer(done, name)
    if "error" in answer:
        raise DoctorError(str(answer["error"]))
    return App.of(answer)


def _answer(done: subprocess.CompletedProcess[bytes], name: str) -> dict[str, Any]:
    """The probe answers in any case; a process that was killed, or that the application ended, does not."""
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as err:
        raise DoctorError(f"{name} can't be looked at: its process ended with {done.returncode} at import") from err
    return answer


def application_findings(app: App) -> list[Finding]:
    """One finding for each trap."""
    return look_at(app, (HOLDING, ORDER, WAITING, KEEPING, SPELLING))
