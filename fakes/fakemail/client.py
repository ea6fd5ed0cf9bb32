"""The control API's client, with the standard library alone: safe under gevent, and importable anywhere."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from fakemail import FakemailError


class ControlError(FakemailError):
    """The control API refused a request, or did not answer."""


class FakeMail:
    """A running fakemail; ``base_url`` is its control URL."""

    def __init__(self, base_url: str, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._timeout_s = timeout_s

    def health(self) -> dict[str, Any]:
        """Answers when it serves."""
        return dict(self._call("GET", "/health"))

    def add_user(self, address: str, password: str) -> None:
        """Make a mailbox that this password opens."""
        self._call("POST", "/users", {"address": address, "password": password})

    def seed(
        self, address: str, *, count: int, seed: int, folder: str = "INBOX", profile: str = "small"
    ) -> dict[str, Any]:
        """Put synthesised mail into a folder; answers what it holds then."""
        body = {"folder": folder, "count": count, "seed": seed, "profile": profile}
        return dict(self._call("POST", f"/mailboxes/{quote(address)}/seed", body))

    def mailbox(self, address: str) -> dict[str, Any]:
        """Folders and messages of a mailbox."""
        return dict(self._call("GET", f"/mailboxes/{quote(address)}"))

    def append(self, address: str, raw: bytes, folder: str = "INBOX") -> dict[str, Any]:
        """Put one message into a folder."""
        return dict(self._call("POST", f"/mailboxes/{quote(address)}/messages?folder={quote(folder)}", raw))

    def put_faults(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Replace all faults; their counts begin anew."""
        self._call("PUT", "/faults", list(faults))

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are set."""
        answer = self._call("GET", "/faults")
        return list(answer["faults"] if isinstance(answer, dict) else answer)

    def clear_faults(self) -> None:
        """Heal everything."""
        self._call("DELETE", "/faults")

    def ledger(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """All entries behind a sequence number, page by page."""
        while True:
            page = self._call("GET", f"/ledger?after={after}&limit=5000")
            if not page["entries"]:
                return
            yield from page["entries"]
            after = page["next"]

    def reset(self) -> None:
        """Forget everything."""
        self._call("POST", "/reset")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as err:
            raise ControlError(f"{method} {path}: {type(err).__name__}: {err}") from err
        finally:
            connection.close()
        if answer.status >= 400:  # noqa: PLR2004  # RFC 9110 section 15: errors begin here
            raise ControlError(f"{method} {path}: {answer.status} {text[:500].decode(errors='replace')}")
        return json.loads(text) if text else {}
