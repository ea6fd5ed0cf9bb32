"""When a run is searched for its own secrets, and which they are: while the stack is up, when it is down, its reports.

Owns ``evidence/leaks.jsonl``. The secrets live here between the two, and go with the run. Called by experiment and by
the package itself.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from mailrig import leaks
from mailrig.clients import Account
from mailrig.leaks import Row, Searcher, Secret, Tables
from mailrig.stack import RunningStack

#: What a password of an operator's has to be to be searched for: a word would be found everywhere.
SECRET_CHARS_MIN: Final = 12
_NAME: Final = "leaks.jsonl"
_REPORTS: Final = ("report.html", "report.md", "junit.xml", "verdict.json")


def known_secrets(told: Mapping[str, str], accounts: Sequence[Account]) -> dict[str, Secret]:
    """All that a run must not show, by name."""
    found: dict[str, Secret] = {}
    for name, value in told.items():
        if name.endswith("_URL") and (password := _password(value)):
            found[f"password in {name}"] = unquote(password)
    for name in ("MAIL_TOKEN_SECRET", "MAIL_FLOWER_PASSWORD", "CREDENTIAL_ENCRYPTION_KEY"):
        found[name] = told.get(name, "")
    found["CREDENTIAL_ENCRYPTION_KEY, decoded"] = _decoded(told.get("CREDENTIAL_ENCRYPTION_KEY", ""))
    for account in accounts:
        found[f"bearer token of {account.tenant}"] = account.token
        found |= account.passwords
    return {name: secret for name, secret in found.items() if len(secret) >= SECRET_CHARS_MIN}


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def _decoded(key: str) -> bytes:
    try:
        return base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return b""


class LeakSearch:
    """The search of one run, in as many steps as there are moments at which something can be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._searcher = Searcher({})
        self._rows: list[Row] = []
        self._unseen_logs = ""

    def live(self, stack: RunningStack, accounts: Sequence[Account]) -> None:
        """What only a running stack can show: its rows, its broker, its metrics, its answers, its command lines."""
        told = stack.told
        self._searcher = Searcher(known_secrets(told, accounts))
        search, page = self._search, stack.exporter_url.removesuffix("/metrics") + "/metrics"
        search("metrics", leaks.page_pieces("/metrics", page))
        search("redis", leaks.redis_pieces(stack.redis_url))
        if stack.broker_dir is not None:
            search("redis log", leaks.file_pieces(stack.broker_dir))
        search("answers", leaks.answer_pieces(stack.api_url, accounts))
        if stack.pids:
            search("command lines", leaks.command_lines(stack.pids))
        else:
            self._unseen_logs = "the logs of the service's processes, which others started"
        self._search_rows(told, [*(account.tenant for account in accounts), "system"])

    def _search_rows(self, told: Mapping[str, str], tenants: Sequence[str]) -> None:
        readable = {
            "DATABASE_AUDIT_URL": ("audit", ()),
            "DATABASE_SYSTEM_URL": ("public", ()),
            "DATABASE_URL": ("public", tuple(tenants)),
        }
        tables = [
            Tables(url=_plain(told[name]), schema=schema, tenants=whose)
            for name, (schema, whose) in readable.items()
            if told.get(name)
        ]
        unseen = "" if told.get("DATABASE_URL") else "columns that neither mail_audit nor mail_system may read"
        self._search("rows", (piece for some in tables for piece in leaks.column_pieces(some)), unseen=unseen)

    def left(self, span_dir: Path | None) -> None:
        """What is on disk once all processes have ended, the run's folder included."""
        spans = self._folder / "evidence" / "spans.jsonl"
        logs = self._folder / "logs"
        self._search("logs", leaks.file_pieces(logs), unseen=self._unseen_logs)
        # Span files have torn lines, too, which the evidence leaves out.
        self._search("spans", leaks.file_pieces(*([span_dir] if span_dir is not None else []), spans))
        self._search("run", leaks.file_pieces(self._folder, without=lambda p: p == spans or logs in p.parents))
        self._write()

    def reports(self) -> bool:
        """What was written after the judgement; answers whether it has to be judged again."""
        written = [self._folder / name for name in _REPORTS if (self._folder / name).is_file()]
        self._search("reports", leaks.file_pieces(*written))
        self._write()
        return bool(self._rows[-1]["hits"] or self._rows[-1]["error"])

    def _search(self, sink: str, pieces: leaks.Pieces, *, unseen: str = "") -> None:
        self._rows.append(self._searcher.search(sink, pieces, unseen=unseen))

    def _write(self) -> None:
        lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in self._rows)
        (self._folder / "evidence" / _NAME).write_text(lines, encoding="utf-8")


def _plain(url: str) -> str:
    """As psycopg has it, without SQLAlchemy's driver."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
