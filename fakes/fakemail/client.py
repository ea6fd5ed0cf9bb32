"""The control API's client, with the standard library alone: safe under gevent and in threads, importable anywhere.

Owns: requests to a running fakemail, one connection each, and the error that any of them may raise.
Never does: polling with sleeps (``wait_for`` is one long poll after another), retries, guesses about a lost answer.
Called by: the rig, the pytest plugin, the command line, and tests of other people.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlencode, urlsplit

from fakemail import FakemailError

#: Where a server listens that was told nothing else: GreenMail's ports, so that one can stand in for the other.
PORTS: Final[Mapping[str, int]] = {"smtp": 3025, "smtps": 3465, "imap": 3143, "imaps": 3993, "control": 3080}
#: The keywords of ``put_fault`` that say when; every other one is part of the action.
WHEN: Final = frozenset(
    {"always", "first", "nth", "after", "every", "window", "window_s", "probability", "bucket"},
)
#: One long poll; a longer wait is several.
_POLL_S: Final = 20.0
_PAGE: Final = 5_000
#: What a line for people has in its head, and what is too long for it.
_UNTOLD: Final = frozenset({"seq", "time_ns", "protocol", "connection", "kind", "header", "sha256"})
#: Of one fact in a line for people.
_FACT_CHARACTERS_MAX: Final = 120
_ANY_HOST: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  # what a server may bind, not what we bind


class ControlError(FakemailError):
    """The control API refused a request, or did not answer."""

    def __init__(self, message: str, *, status: int | None = None, where: str = "", allowed: str = "") -> None:
        super().__init__(message)
        #: The HTTP status, or None when no answer came.
        self.status = status
        #: The key or parameter that was wrong, where the answer names one.
        self.where = where
        #: What would have been right, where the answer says so.
        self.allowed = allowed


class Address(NamedTuple):
    """Where a server listens; unpacks into what ``smtplib.SMTP`` and ``imaplib.IMAP4`` take."""

    #: Name or number.
    host: str
    #: TCP port.
    port: int


class Fault:
    """A fault that is set; as a context manager it heals on exit."""

    def __init__(self, fakes: FakeMail, fault_id: str) -> None:
        self._fakes = fakes
        #: As the ledger's ``fault`` entries name it.
        self.id = fault_id

    def counts(self) -> dict[str, int]:
        """How often its point was reached (``seen``) and spoilt (``fired``) since it was put."""
        return dict(self._fakes.fault_counts().get(self.id, {"seen": 0, "fired": 0}))

    def heal(self) -> None:
        """Take it away; one that is gone already stays gone."""
        try:
            self._fakes.remove_fault(self.id)
        except ControlError as err:
            if err.status != http.client.NOT_FOUND:
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.heal()


class FakeMail:
    """A running fakemail; ``base_url`` is its control URL."""

    def __init__(self, base_url: str, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._timeout_s = timeout_s
        self._servers: dict[str, Address] = {}
        #: The control URL.
        self.url = base_url.rstrip("/")

    # -- where it is

    @property
    def smtp(self) -> Address:
        """Where SMTP listens (STARTTLS offered)."""
        return self._server("smtp")

    @property
    def smtps(self) -> Address:
        """Where SMTP over TLS listens."""
        return self._server("smtps")

    @property
    def imap(self) -> Address:
        """Where IMAP listens (STARTTLS offered)."""
        return self._server("imap")

    @property
    def imaps(self) -> Address:
        """Where IMAP over TLS listens."""
        return self._server("imaps")

    def index(self) -> dict[str, Any]:
        """Its version, its servers, its endpoints."""
        return dict(self._call("GET", "/"))

    def health(self) -> dict[str, Any]:
        """Answers when it serves."""
        return dict(self._call("GET", "/health"))

    def stats(self) -> dict[str, Any]:
        """Users, messages, connections, ledger entries by kind, resident memory."""
        return dict(self._call("GET", "/stats"))

    def ca_pem(self) -> str:
        """The certificate of the authority that signs for the TLS ports, as PEM text."""
        return self._request("GET", "/ca.pem").decode("ascii")

    # -- users and folders

    def add_user(self, address: str, password: str, *, token: str | None = None) -> None:
        """Make a mailbox that this password opens, and this OAuth token if one is given."""
        body = {"address": address, "password": password}
        self._call("POST", "/users", body | ({} if token is None else {"token": token}))

    def remove_user(self, address: str) -> None:
        """Forget a user with all mail."""
        self._call("DELETE", f"/mailboxes/{_segment(address)}")

    def users(self) -> list[str]:
        """The addresses of all users."""
        return [str(user["address"]) for user in self._call("GET", "/users")["users"]]

    def mailbox(self, address: str) -> dict[str, Any]:
        """Folders and messages of a mailbox; at most 10,000 messages are listed for each folder."""
        return dict(self._call("GET", f"/mailboxes/{_segment(address)}"))

    def create_folder(self, address: str, name: str) -> dict[str, Any]:
        """Make a folder."""
        return dict(self._call("POST", f"/mailboxes/{_segment(address)}/folders", {"folder": name}))

    def delete_folder(self, address: str, name: str) -> None:
        """Take a folder away with its mail."""
        self._call("DELETE", _path(address, "folders", folder=name))

    def seed(
        self,
        address: str,
        *,
        count: int,
        seed: int,
        folder: str = "INBOX",
        profile: str = "small",
        digests: bool | None = None,
    ) -> dict[str, Any]:
        """Put synthesised mail into a folder; answers what came, with digests for at most 10,000 unless told."""
        body: dict[str, Any] = {"folder": folder, "count": count, "seed": seed, "profile": profile}
        if digests is not None:
            body["digests"] = digests
        return dict(self._call("POST", f"/mailboxes/{_segment(address)}/seed", body))

    def load(self, address: str, path: str, *, folder: str = "INBOX") -> dict[str, Any]:
        """Load a Maildir or an mbox file that the server can read."""
        body = {"folder": folder, "path": str(path)}
        return dict(self._call("POST", f"/mailboxes/{_segment(address)}/load", body))

    def reset_uidvalidity(self, address: str, folder: str = "INBOX") -> dict[str, Any]:
        """Give all messages of a folder new UIDs under a new UIDVALIDITY (RFC 3501 section 2.3.1.1)."""
        return dict(self._call("POST", f"/mailboxes/{_segment(address)}/uidvalidity", {"folder": folder}))

    def advance(
        self, address: str, steps: int, *, folder: str = "INBOX", weights: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Let the next steps of a folder's timeline happen; ``weights`` says how likely each kind of event is."""
        return self._timeline("POST", address, {"folder": folder, "steps": steps}, weights)

    def run_timeline(
        self, address: str, *, per_s: float, folder: str = "INBOX", weights: Mapping[str, int] | None = None
    ) -> None:
        """Let a folder's timeline go on by itself, so many steps a second; 0 stops it."""
        self._timeline("PUT", address, {"folder": folder, "per_s": per_s}, weights)

    def _timeline(
        self, method: str, address: str, body: dict[str, Any], weights: Mapping[str, int] | None
    ) -> dict[str, Any]:
        body |= {} if weights is None else {"weights": dict(weights)}
        return dict(self._call(method, f"/mailboxes/{_segment(address)}/timeline", body))

    # -- messages

    def append(
        self,
        address: str,
        raw: bytes,
        folder: str = "INBOX",
        *,
        flags: Iterable[str] = (),
        received_s: int | None = None,
    ) -> dict[str, Any]:
        """Put one message into a folder."""
        query: dict[str, Any] = {"folder": folder, "flag": list(flags)}
        if received_s is not None:
            query["received_s"] = received_s
        return dict(self._call("POST", _path(address, "messages", **query), raw))

    def messages(
        self, address: str, folder: str = "INBOX", *, after_uid: int = 0, digests: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Rows of a folder's messages (uid, message_id, size_bytes, received_s, flags), page by page."""
        more = True
        while more:
            query = {"folder": folder, "after_uid": after_uid, "digests": int(digests)}
            page = self._call("GET", _path(address, "messages", **query))
            yield from page["messages"]
            after_uid, more = page["next"], page["more"]

    def message(self, address: str, uid: int, folder: str = "INBOX") -> bytes:
        """A message's bytes."""
        return self._request("GET", _path(address, f"messages/{uid:d}", folder=folder))

    def set_flags(self, address: str, uid: int, flags: Iterable[str], folder: str = "INBOX") -> dict[str, Any]:
        """Replace a message's flags, as another client of the user would."""
        return dict(self._call("PATCH", _path(address, f"messages/{uid:d}", folder=folder), {"flags": list(flags)}))

    def expunge(self, address: str, uids: int | Iterable[int], folder: str = "INBOX") -> dict[str, Any]:
        """Remove messages for good, as another client of the user would."""
        wanted = [uids] if isinstance(uids, int) else list(uids)
        text = ",".join(str(uid) for uid in wanted)
        return dict(self._call("DELETE", _path(address, "messages", folder=folder, uids=text)))

    # -- faults

    def put_faults(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Replace all faults; their counts begin anew."""
        self._call("PUT", "/faults", list(faults))

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are set."""
        return list(self._call("GET", "/faults")["faults"])

    def fault_counts(self) -> dict[str, dict[str, int]]:
        """How often each fault's point was reached and spoilt."""
        return dict(self._call("GET", "/faults")["counters"])

    def clear_faults(self) -> None:
        """Heal everything."""
        self._call("DELETE", "/faults")

    def put_fault(
        self,
        point: str,
        *,
        fault_id: str | None = None,
        match: Mapping[str, Any] | None = None,
        scope: str | None = None,
        **parts: Any,
    ) -> Fault:
        """Add one fault, or replace the one of this id; the counts of the others go on.

        ``put_fault("smtp.rcpt", reply="451 4.7.1 Later", first=2)``: the keywords of WHEN say when (none: always),
        every other keyword is part of the action.
        """
        when = {name: value for name, value in parts.items() if name in WHEN} or {"always": True}
        action = {name: value for name, value in parts.items() if name not in WHEN}
        body: dict[str, Any] = {"point": point, "when": when, "action": action}
        rest = {"id": fault_id, "match": None if match is None else dict(match), "scope": scope}
        body |= {name: value for name, value in rest.items() if value is not None}
        return Fault(self, str(self._call("POST", "/faults", body)["id"]))

    @contextlib.contextmanager
    def fault(self, point: str, **parts: Any) -> Iterator[Fault]:
        """As ``put_fault``, for the length of a ``with`` block."""
        with self.put_fault(point, **parts) as fault:
            yield fault

    def remove_fault(self, fault_id: str) -> None:
        """Heal one."""
        self._call("DELETE", f"/faults/{_segment(fault_id)}")

    def preset(self, name: str) -> list[Fault]:
        """Add the faults that this name stands for; GET /presets names them all."""
        answer = self._call("POST", f"/presets/{_segment(name)}")
        return [Fault(self, str(fault["id"])) for fault in answer["faults"]]

    def presets(self) -> list[str]:
        """The names of all presets."""
        return [str(preset["name"]) for preset in self._call("GET", "/presets")["presets"]]

    # -- limits and connections

    def limits(self) -> dict[str, Any]:
        """The limits in force; null: none."""
        return dict(self._call("GET", "/limits"))

    def set_limits(self, **limits: int | None) -> dict[str, Any]:
        """Set ``connections`` or ``connections_per_user``; None lifts a limit, what is not named stays."""
        return dict(self._call("PATCH", "/limits", limits))

    def connections(self, user: str | None = None) -> list[dict[str, Any]]:
        """The connections that are open, of this user or all."""
        return list(self._call("GET", _query("/connections", user=user))["connections"])

    def cut(self, connection: int | None = None, *, user: str | None = None) -> int:
        """Cut one connection, or those of a user, or all, as if the cable was; answers how many."""
        path = "/connections" if connection is None else f"/connections/{connection:d}"
        return int(self._call("DELETE", _query(path, user=user))["cut"])

    # -- the ledger

    def ledger(self, after: int = 0, **filters: Any) -> Iterator[dict[str, Any]]:
        """All entries behind a sequence number, oldest first, page by page.

        A filter is ``kind``, ``protocol``, ``connection``, ``user``, ``command``, ``fault_id``, ``point``,
        ``mail_from``, ``rcpt_to``, ``message_id`` or ``since_ns``; each must fit, None fits everything.
        """
        more = True
        while more:
            page = self._call("GET", _query("/ledger", after=after, limit=_PAGE, **filters))
            yield from page["entries"]
            after, more = page["next"], bool(page["entries"])

    def last(self, count: int = 20) -> list[dict[str, Any]]:
        """The newest entries, oldest first."""
        return list(self._call("GET", _query("/ledger", last=count))["entries"])

    def wait_for(
        self, kind: str, *, count: int = 1, timeout_s: float = 10.0, after: int = 0, **filters: Any
    ) -> list[dict[str, Any]]:
        """The first ``count`` entries of this kind behind ``after``, as soon as they are there.

        Raises ControlError when fewer came in time; its message shows what came last.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            query = {"after": after, "kind": kind, "count": count, "limit": count, **filters}
            page = self._call("GET", _query("/ledger", wait_s=f"{max(0.0, min(left_s, _POLL_S)):.3f}", **query))
            entries = list(page["entries"])
            if len(entries) >= count:
                return entries
            if time.monotonic() >= deadline:
                came = "; ".join(describe(entry) for entry in self.last(5)) or "none"
                raise ControlError(
                    f"{len(entries)} of {count} {kind!r} entries came within {timeout_s:g} s; the ledger's last: {came}"
                )

    def news(self, *, after: int, timeout_s: float = 10.0, **filters: Any) -> list[dict[str, Any]]:
        """What comes behind ``after``, as soon as there is anything; empty when nothing came in time."""
        query = {"after": after, "wait_s": f"{min(timeout_s, _POLL_S):.3f}", **filters}
        return list(self._call("GET", _query("/ledger", **query))["entries"])

    def reset(self, *, to_start: bool = False, connections: bool = False) -> None:
        """Forget users, mail, faults, limits and ledger.

        With ``to_start`` the users, mail, faults and limits of the start come back; with ``connections`` every
        connection is cut first.
        """
        self._call("POST", "/reset", {"to_start": to_start, "connections": connections})

    # -- the wire

    def _server(self, name: str) -> Address:
        if not self._servers:
            for each, at in self.index()["servers"].items():
                host = self._host if at["host"] in _ANY_HOST else at["host"]
                self._servers[each] = Address(host, at["port"])
        if name not in self._servers:
            raise ControlError(f"this fakemail serves no {name}: its port is switched off")
        return self._servers[name]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        text = self._request(method, path, body)
        try:
            return json.loads(text) if text else {}
        except ValueError as err:
            raise ControlError(f"{method} {path}: no JSON came back; is this a fakemail's control URL?") from err

    def _request(self, method: str, path: str, body: Any = None) -> bytes:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as err:
            raise ControlError(f"{method} {self.url}{path}: {type(err).__name__}: {err}") from err
        finally:
            connection.close()
        if answer.status >= 400:  # noqa: PLR2004  # RFC 9110 section 15: errors begin here
            raise _refusal(method, path, answer.status, text)
        return text


def _refusal(method: str, path: str, status: int, text: bytes) -> ControlError:
    """The error that an answer describes; one that is no JSON is shown as it is."""
    told: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        told = dict(json.loads(text))
    what = str(told.get("error") or text[:500].decode(errors="replace"))
    message = f"{method} {path}: {status} {what}"
    return ControlError(
        message, status=status, where=str(told.get("where") or ""), allowed=str(told.get("allowed") or "")
    )


def describe(entry: Mapping[str, Any]) -> str:
    """A ledger entry as one line for people: number, connection, kind, then what else it says."""
    told = {name: value for name, value in entry.items() if name not in _UNTOLD and value not in ("", None, [], {})}
    facts = " ".join(f"{name}={_cut(value)}" for name, value in told.items())
    return f"{entry['seq']} {entry['protocol']}#{entry['connection']} {entry['kind']} {facts}".rstrip()


def _cut(value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and " " not in value
    # JSON shows what a terminal would obey.
    text = str(value) if plain else json.dumps(value)
    return text if len(text) <= _FACT_CHARACTERS_MAX else f"{text[:_FACT_CHARACTERS_MAX]}..."


def _segment(text: str) -> str:
    return quote(text, safe="")


def _query(path: str, **query: Any) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _path(address: str, rest: str, **query: Any) -> str:
    return _query(f"/mailboxes/{_segment(address)}/{rest}", **query)
