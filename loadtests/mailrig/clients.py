"""The load's side of the API: one arrival becomes one request, one answer becomes one operation of the history.

Rule 1: 202 is ok, 4xx is fail, and a timeout, a 5xx or a broken connection is info: nobody knows what happened.
Rule 2: latency counts from the intended time, so a generator that is late or a server that stalls can't hide it.
Rule 3: nothing here imports Locust, opens a socket or a database; whoever calls brings clock, sleep and spawn.
Callers: locustfile.py, runner and population.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mailrig.scenario import RigError
from mailrig.schedule import Arrival

#: Where ``mailrig up`` and ``run`` say where the stack is, unless MAILRIG_STACK names another file.
STACK_FILE: Final = Path(".mailrig/stack.json")
#: Rows of one page of the feed that we ask for.
FEED_LIMIT: Final = 500
_ACCEPTED: Final = 202
_CLIENT_ERRORS: Final = range(400, 500)


class NoStackError(RigError):
    """There is no stack to load."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of a tenant, with mailboxes and uploads; ``repr`` shows no token."""

    tenant: str
    user: str
    token: str = field(repr=False)
    #: Client id and address, in the order of the population.
    clients: tuple[tuple[str, str], ...]
    attachment_ids: tuple[str, ...]
    #: The mailboxes' passwords by their names, where they are known; never written down.
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the API is and who calls it."""

    api_url: str
    accounts: tuple[Account, ...]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request, ready to be sent."""

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes
    #: What the history says of it.
    value: Mapping[str, Any]


def read_target(path: Path) -> Target:
    """The stack that ``mailrig up`` left word of.

    Raises:
        NoStackError: there is no such file, or it is not one of ours.
    """
    try:
        return target_of(path.read_text())
    except FileNotFoundError as err:
        raise NoStackError(
            f"{path} does not exist: start a stack with `mailrig up`, or name its file in MAILRIG_STACK"
        ) from err
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise NoStackError(
            f"{path} does not describe a stack ({type(err).__name__}); start one with `mailrig up`"
        ) from err


def target_of(text: str) -> Target:
    """The stack that a stack file's text describes.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    facts = json.loads(text)
    accounts = tuple(
        Account(
            tenant=row["tenant"],
            user=row["user"],
            token=row["token"],
            clients=tuple((c["client_id"], c["address"]) for c in row["clients"]),
            attachment_ids=tuple(row["attachment_ids"]),
        )
        for row in facts["population"]
    )
    return Target(api_url=facts["api_url"], accounts=accounts)


def pace(
    schedule: Iterable[Arrival],
    *,
    start_ns: int,
    now_ns: Callable[[], int],
    sleep: Callable[[float], None],
    spawn: Callable[[Arrival, int], object],
) -> None:
    """Spawn each arrival at its intended time, however long the earlier ones take.

    Sleeps, if for no time at all, before each one: a generator that is behind must still let its requests run.
    """
    for arrival in schedule:
        intended_ns = start_ns + round(arrival.at_s * 1e9)
        sleep(max(0.0, (intended_ns - now_ns()) / 1e9))
        spawn(arrival, intended_ns)


def listing_path(account: Account) -> str:
    """What is asked before a deletion: a message of the tenant that there is now."""
    return f"/api/v1/{account.tenant}/email/messages?limit=1"


def listed_message(body: bytes) -> str | None:
    """The id of the message that a listing shows; None when there is none, or the answer is no listing."""
    try:
        messages = json.loads(body)["messages"]
        return str(messages[0]["id"]) if messages else None
    except (ValueError, KeyError, TypeError):
        return None


def call_for(
    arrival: Arrival,
    account: Account,
    *,
    seed: int,
    intended_ns: int,
    session: str,
    keeps: Callable[[str], bool] = lambda _trace_id: True,
    message_id: str | None = None,
) -> Call:
    """The request of an arrival. ``session`` keeps the keys and traces of two runs on one stack apart.

    ``keeps`` tells whether a trace is recorded, which its first caller decides: that is us. A deletion needs the
    ``message_id`` that it is about.
    """
    client_id, address = account.clients[arrival.client]
    trace_id, span_id = trace_ids(seed, arrival.index, session)
    key = f"{session}-{arrival.index}"
    headers = {
        "Authorization": f"Bearer {account.token}",
        "traceparent": f"00-{trace_id}-{span_id}-{int(keeps(trace_id)):02x}",
        "Idempotency-Key": key,
        "Content-Type": "application/json",
    }
    value = {
        "arrival": arrival.index,
        "intended_ns": intended_ns,
        "tenant": account.tenant,
        "client_id": client_id,
        "trace_id": trace_id,
        "warmup": arrival.warmup,
    }
    base = f"/api/v1/{account.tenant}/email"
    if arrival.f == "sync":
        return Call(path=f"{base}/clients/{client_id}/sync", headers=headers, body=b"", value=value)
    if arrival.f == "delete":
        return Call(
            path=f"{base}/delete", headers=headers, body=json.dumps({"message_ids": [message_id]}).encode(), value=value
        )
    attachments = list(account.attachment_ids[:1]) if arrival.attachment else []
    recipients = {"to": list(arrival.to), "cc": list(arrival.cc), "bcc": list(arrival.bcc)}
    content = {"subject": arrival.subject, "text": arrival.text, "attachment_ids": attachments}
    body = json.dumps({"client_id": client_id, **recipients, **content}).encode()
    value |= {"mail_from": address, **recipients, "attachments": len(attachments), "idempotency_key": key}
    return Call(path=f"{base}/send", headers=headers, body=body, value=value)


def trace_ids(seed: int, index: int, session: str) -> tuple[str, str]:
    """Trace id and span id of an arrival, the same for the same seed in the same session."""
    digest = hashlib.sha256(f"{session}/{seed}/{index}".encode()).hexdigest()
    return digest[:32], digest[32:48]


def classify(status: int | None, body: bytes | None, error: str | None) -> tuple[str, dict[str, Any], str | None]:
    """Type, further value and error of an answer; ``status`` None is no answer at all."""
    if status == _ACCEPTED:
        try:
            answer = json.loads(body or b"")
            # A batch of one message is one task.
            answer = answer["tasks"][0] if "tasks" in answer else answer
            known = {k: answer[k] for k in ("task_id", "message_id") if k in answer}
            return "ok", {"status": status, "task_id": known.pop("task_id"), **known}, None
        except (ValueError, KeyError, TypeError, IndexError):
            return "info", {"status": status}, "the answer is not the JSON that was promised"
    if status in _CLIENT_ERRORS:
        return "fail", {"status": status}, _problem(body)
    return "info", {"status": status}, error or _problem(body)


def _problem(body: bytes | None) -> str:
    try:
        problem = json.loads(body or b"")
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return "no problem details"


class Feed:
    """The completion feed of one tenant: a cursor, and what it has shown."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._cursor: str | None = None
        self.headers = {"Authorization": f"Bearer {account.token}"}

    @property
    def tenant(self) -> str:
        """Whose feed it is."""
        return self._account.tenant

    @property
    def path(self) -> str:
        """The next page's path."""
        after = f"&after={quote(self._cursor)}" if self._cursor else ""
        return f"/api/v1/{self.tenant}/tasks?limit={FEED_LIMIT}{after}"

    def absorb(self, body: bytes) -> list[dict[str, Any]]:
        """The tasks of a page, each with its tenant; moves the cursor. A full page has another one behind it.

        Raises:
            ValueError: the page is not what was promised.
        """
        try:
            page = json.loads(body)
            tasks = [{**task, "tenant": self.tenant} for task in page["tasks"]]
            self._cursor = page["cursor"] or self._cursor
        except (KeyError, TypeError) as err:
            raise ValueError(f"not a page of the feed: {type(err).__name__}") from err
        return tasks


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A duration to be shown while the load runs; the checkers measure for themselves."""

    #: ``API`` or ``TASK``.
    kind: str
    name: str
    duration_ns: int
    error: str | None = None
    #: The trace of what took this long, where there is one.
    trace_id: str | None = None
    #: No sample of any latency.
    warmup: bool = False


class Tally:
    """What was accepted and has not ended. The feed may show a task's end before its request is answered."""

    def __init__(self) -> None:
        #: Task id -> the intended time, and whether that was in the warm-up.
        self._intended: dict[str, tuple[int, bool]] = {}
        self._early: dict[str, Mapping[str, Any]] = {}

    @property
    def unsettled(self) -> int:
        """Accepted tasks whose end no feed has shown."""
        return len(self._intended)

    def early(self, task_id: str) -> Mapping[str, Any] | None:
        """The end of a task that was shown before its request was answered."""
        return self._early.get(task_id)

    def accepted(self, task_id: str, intended_ns: int, *, warmup: bool = False) -> list[Timing]:
        """A request was answered by 202; the timings if its end is known already."""
        self._intended[task_id] = (intended_ns, warmup)
        row = self._early.pop(task_id, None)
        return [] if row is None else self.settled(row)

    def settled(self, row: Mapping[str, Any]) -> list[Timing]:
        """A feed has shown the end of a task; its timings if it is one of ours."""
        known = self._intended.pop(row["task_id"], None)
        if known is None:
            self._early[row["task_id"]] = row
            return []
        intended_ns, warmup = known
        durations_ns = {"e2e": row["ended_ns"] - intended_ns}
        if row["started_ns"] is not None:
            # From the execution's own clock: the interval of polling is in neither.
            durations_ns["queue"] = row["started_ns"] - max(row["enqueued_ns"], row.get("due_ns") or 0)
            durations_ns["run"] = row["ended_ns"] - row["started_ns"]
        error = None if row["state"] == "succeeded" else str(row["state"])
        return [
            Timing(
                kind="TASK",
                name=f"{word} {row['queue']}",
                duration_ns=duration_ns,
                # How long it waited is no worse for how it ended.
                error=None if word == "queue" else error,
                trace_id=row.get("trace_id"),
                warmup=warmup,
            )
            for word, duration_ns in durations_ns.items()
        ]
