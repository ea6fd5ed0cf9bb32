"""Names that are set and that nobody reads: a setting with a slip of the pen would otherwise do nothing, silently.

Never repeats a value. Called by ``settings``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from email_service.config.variables import NAMES

#: What a name of ours, or of Celery's, begins with.
_PREFIXES: Final = ("MAIL_", "CELERY", "TASK_", "WORKER_", "DATABASE_", "CREDENTIAL_")
#: Kubernetes names every service in every container, as docker's links did: a service called mail gives MAIL_PORT.
_SERVICE_LINK: Final = re.compile(r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP)(_[A-Z]+)?)")
#: Celery sets or reads these for its own logs and debugging; none changes what the service does.
_CELERYS: Final = re.compile(r"CELERY_(LOG_(FILE|LEVEL|REDIRECT|REDIRECT_LEVEL)|RDB\w*|TRACE_APP|BENCH\w*|SKIP_CHECKS)")
#: Celery prefers these to any setting (celery/app/utils.py: Settings.broker_url and its neighbours).
_BROKERS: Final = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
_RESULTS: Final = "CELERY_RESULT_BACKEND"


def unread(env: Mapping[str, str]) -> Iterator[str]:
    """One problem for each name that looks like a setting and is none."""
    for name in sorted(env):
        if name.startswith(_PREFIXES) and name not in NAMES and not _foreign(name, env[name]):
            yield f"{name} is not a setting{_hint(name)}"


def _foreign(name: str, value: str) -> bool:
    link = name.endswith("_PORT") and value.startswith(("tcp://", "udp://"))
    own = name in {*_BROKERS, _RESULTS}
    return own or link or bool(_SERVICE_LINK.fullmatch(name)) or bool(_CELERYS.fullmatch(name))


def _hint(name: str) -> str:
    near = get_close_matches(name, sorted(NAMES), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; the README has the table of settings"


def overruled(env: Mapping[str, str], broker_url: str, result_url: str) -> Iterator[str]:
    """One problem for each variable by which Celery would talk to another Redis than the rest of the service."""
    for name, url, number in (*((n, broker_url, 0) for n in _BROKERS), (_RESULTS, result_url, 1)):
        if env.get(name) and env[name] != url:
            yield f"{name} is set, and Celery prefers it to REDIS_URL: unset it, or make it REDIS_URL and /{number}"
