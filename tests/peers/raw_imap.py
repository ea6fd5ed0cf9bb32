"""An IMAP client that hides nothing: it sends the bytes it is given and shows the lines that came.

Owns: one connection, its deadline and its transcript.
Never: fills in, reorders or forgives anything; what is unexpected raises with the whole conversation.
Called by: the contract suite.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Self

from imap_values import fetched, values

#: How long a server may think about a command, also on a busy machine.
DEADLINE_S = 6.0
#: Linux: a server that writes an answer in pieces waits up to 40 ms for our acknowledgement of the first.
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)
_LITERAL = re.compile(rb"\{(\d+)\}\Z")
_LITERAL_SENT = re.compile(rb"\{\d+\}\r\n")


class RawImapError(Exception):
    """The conversation can't go on.

    RawImapError
    ├── UnansweredError    nothing came within the deadline
    └── ClosedError        the server closed the connection
    """


class UnansweredError(RawImapError):
    """Nothing came within the deadline."""


class ClosedError(RawImapError):
    """The server closed the connection."""


class Codes(dict[bytes, bytes]):
    """Response codes by name; to miss one is a failure of the server, not of the test."""

    def __missing__(self, name: bytes) -> bytes:
        raise AssertionError(f"no [{name.decode()}] among {sorted(self)}")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came between a command and its tagged line."""

    #: OK, NO or BAD.
    status: str
    #: Behind the status, with the response code.
    text: bytes
    #: Untagged responses, without ``* `` and the line's end, literals in their place.
    untagged: tuple[bytes, ...]
    #: The conversation so far, for a failure's message.
    transcript: str

    @property
    def code(self) -> bytes:
        """The response code of the tagged line, without brackets (RFC 3501 section 7.1)."""
        found = re.match(rb"\[([^\]]*)\]", self.text)
        return found[1] if found else b""

    @property
    def codes(self) -> Codes:
        """Response codes of untagged and tagged lines by their name."""
        found = Codes()
        for line in (*self.untagged, b"OK " + self.text):
            if match := re.match(rb"(?:OK|NO|BAD|BYE|PREAUTH) \[([A-Za-z-]+) ?([^\]]*)\] ?", line):
                found[match[1].upper()] = match[2]
        return found

    def named(self, name: bytes) -> list[list[Any]]:
        """The values of each untagged response of this name: ``LIST``, ``SEARCH``, ``STATUS``."""
        return [values(line[len(name) + 1 :]) for line in self.untagged if re.match(name + rb"(?: |\Z)", line)]

    def numbered(self, name: bytes) -> list[int]:
        """The numbers of ``* n EXISTS``, ``* n EXPUNGE`` in the order they came."""
        found = (re.fullmatch(rb"(\d+) " + name, line) for line in self.untagged)
        return [int(match[1]) for match in found if match]

    def fetches(self) -> list[tuple[int, dict[bytes, Any]]]:
        """The rows of FETCH: message number and items by name."""
        found = (re.match(rb"(\d+) FETCH ", line) for line in self.untagged)
        return [(int(m[1]), fetched(m.string[m.end() :])) for m in found if m]

    def row(self) -> dict[bytes, Any]:
        """The items of the only row."""
        rows = self.fetches()
        assert len(rows) == 1, f"{len(rows)} rows\n{self.transcript}"
        return rows[0][1]

    def by_uid(self) -> dict[int, dict[bytes, Any]]:
        """The rows of UID FETCH by UID."""
        return {int(items[b"UID"]): items for _, items in self.fetches()}

    def ok(self) -> Reply:
        """Itself, if it is OK."""
        return self.must("OK")

    def no(self) -> Reply:
        """Itself, if it is NO."""
        return self.must("NO")

    def bad(self) -> Reply:
        """Itself, if it is BAD."""
        return self.must("BAD")

    def must(self, *statuses: str) -> Reply:
        """Itself, if it is one of these."""
        assert self.status in statuses, f"{self.status}, not {' or '.join(statuses)}\n{self.transcript}"
        return self


class RawImap:
    """A connection; ``with`` closes it."""

    def __init__(self, host: str, port: int, *, tls: bool = False, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._socket = socket.create_connection((host, port), timeout=deadline_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._lines: list[str] = []
        self._count = 0
        if tls:
            self.start_tls()
        self.greeting = self.response()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def transcript(self) -> str:
        """What was said so far, one line each."""
        return "\n".join(self._lines)

    def close(self) -> None:
        """Cut the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def start_tls(self) -> None:
        """TLS from here on; the contract is about the protocol: who the server is, the clients' tests ask."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            self._socket = context.wrap_socket(self._socket)
        except (ConnectionError, ssl.SSLError) as err:
            raise ClosedError(f"no handshake: {err}") from err

    # --- sending ---

    def write(self, data: bytes) -> None:
        """These bytes and no others."""
        self._lines += [f"C: {_shown(line)}" for line in data.removesuffix(b"\r\n").split(b"\r\n")]
        self._socket.sendall(data)

    def tag(self) -> bytes:
        """A tag that was not used yet."""
        self._count += 1
        return b"a%03d" % self._count

    def send(self, command: str | bytes) -> bytes:
        """A command with a tag and a line's end; synchronising literals wait for their ``+``. Answers the tag."""
        tag = self.tag()
        data = command if isinstance(command, bytes) else command.encode()
        rest = tag + b" " + data + b"\r\n"
        while found := _LITERAL_SENT.search(rest):
            head, size = rest[: found.end()], int(found[0][1:-3])
            self.write(head)
            self.continued(tag)
            # Behind a literal goes the rest of the line; a further literal's head may be within the literal.
            literal, rest = rest[found.end() : found.end() + size], rest[found.end() + size :]
            self.write(literal)
        self.write(rest)
        return tag

    def command(self, command: str | bytes) -> Reply:
        """A command and all that is said until its tagged line."""
        return self.finish(self.send(command))

    def ok(self, command: str | bytes) -> Reply:
        """A command that must succeed."""
        return self.command(command).ok()

    def no(self, command: str | bytes) -> Reply:
        """A command that must be refused."""
        return self.command(command).no()

    def bad(self, command: str | bytes) -> Reply:
        """A command that must be called wrong."""
        return self.command(command).bad()

    # --- receiving ---

    def response(self) -> bytes:
        """One response, whole: a line and, where it has literals, what belongs to it; without the last CRLF."""
        end = time.monotonic() + self._deadline_s
        whole = b""
        while True:
            line = self._line(end)
            whole += line
            if (found := _LITERAL.search(line)) is None:
                self._lines.append(f"S: {_shown(whole)}")
                return whole
            whole += b"\r\n" + self._exactly(int(found[1]), end)

    def finish(self, tag: bytes) -> Reply:
        """All untagged responses, and the tagged one."""
        untagged = []
        while True:
            response = self.response()
            if response.startswith(b"* "):
                untagged.append(response[2:])
            elif response.startswith(tag + b" "):
                status, _, text = response[len(tag) + 1 :].partition(b" ")
                return Reply(
                    status=status.decode("ascii", "replace"),
                    text=text,
                    untagged=tuple(untagged),
                    transcript=self.transcript,
                )
            else:
                raise RawImapError(f"neither untagged nor {tag.decode()}: {_shown(response)}\n{self.transcript}")

    def continued(self, tag: bytes = b"") -> bytes:
        """The text of the ``+`` that must come next."""
        response = self.response()
        while response.startswith(b"* "):
            response = self.response()
        if not response.startswith(b"+"):
            raise RawImapError(f"no continuation for {tag.decode()}: {_shown(response)}\n{self.transcript}")
        return response[1:].lstrip(b" ")

    def news(self, *wanted: bytes) -> list[bytes]:
        """Untagged responses, without ``* ``, until each of these expressions has been met by one."""
        open_, seen = list(wanted), []
        while open_:
            response = self.response().removeprefix(b"* ")
            seen.append(response)
            open_ = [pattern for pattern in open_ if not re.match(pattern, response)]
        return seen

    def closed(self) -> bool:
        """Whether the server closes the connection, which it is given the deadline for."""
        end = time.monotonic() + self._deadline_s
        try:
            while True:
                self._more(end)
        except ClosedError:
            return True
        except UnansweredError:
            return False

    def _line(self, end: float) -> bytes:
        while b"\r\n" not in self._received:
            self._more(end)
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _exactly(self, size: int, end: float) -> bytes:
        while len(self._received) < size:
            self._more(end)
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _more(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise UnansweredError(f"nothing within {self._deadline_s:g} s\n{self.transcript}")
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(65_536)
        except TimeoutError as err:
            raise UnansweredError(f"nothing within {self._deadline_s:g} s\n{self.transcript}") from err
        except (ConnectionError, ssl.SSLError) as err:
            raise ClosedError(f"{err}\n{self.transcript}") from err
        if not data:
            raise ClosedError(f"closed by the server\n{self.transcript}")
        if _QUICK_ACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        self._received += data


def _shown(data: bytes) -> str:
    """A line for people: control characters as escapes, the middle of what is long left out."""
    text = data.decode("ascii", "backslashreplace").replace("\r", "\\r").replace("\n", "\\n")
    return text if len(text) <= 400 else f"{text[:300]} ...({len(text) - 380} more)... {text[-80:]}"
