"""The connection to an IMAP server: sockets, TLS, commands out, replies in.

Rule 1: lines and literals are bounded, so that no server decides how much memory a worker takes. A literal above its
bound is read past, and the session goes on.
Rule 2: one command is in flight at most; its answer is read by who sent it. An answer that nobody came back for is
read past before the next command.
Why not imaplib: it sorts replies by kind and so forgets their order, holds a whole answer in memory, knows no
command in flight, and prints passwords at a debug level.
Called by login, session, changes, reading and moving; they make its errors ours (``refusals.errors``).
"""

from __future__ import annotations

import functools
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, Final, NamedTuple, cast

from email_service.errors import ConnectError, ImapError
from email_service.imap.refusals import BrokenError, RefusedError
from email_service.imap.replies import Piece, Skipped, readable
from email_service.imap.values import ImapEndpoint

#: A message: no provider takes more than 50 MB in.
LITERAL_BYTES_MAX: Final = 64 * 1024 * 1024
#: A SEARCH reply of two million UIDs.
_LINE_BYTES_MAX: Final = 16 * 1024 * 1024
#: Literals of one answer that is not of messages.
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
#: What is read past; above, waiting for its end is worse than a new connection.
_SKIPPED_BYTES_MAX: Final = 1024 * 1024 * 1024
_PIECES_MAX: Final = 1000
#: One system call reads a dozen messages.
_BUFFER_BYTES: Final = 256 * 1024
_HEAD: Final = re.compile(rb"(\S+)(?: (\d+)(?= ))?(?: ([^ \r\n]*))?")
_LITERAL: Final = re.compile(rb"\{(\d{1,19})\}\r?\n\Z")
_CAPABILITY_CODE: Final = re.compile(rb"\[CAPABILITY ([^\]]*)\]", re.IGNORECASE)
_STATES: Final = (b"OK", b"NO", b"BAD")


class Reply(NamedTuple):
    """One reply, with the literals in it."""

    #: ``*``, ``+`` or the tag of a command.
    tag: bytes
    #: The number before the kind, as in ``* 12 EXISTS``.
    number: int | None
    #: In upper case.
    kind: bytes
    #: The lines in full, each with the literal that follows it.
    pieces: list[Piece]

    @property
    def text(self) -> bytes:
        """What follows the kind, on the first line."""
        first = self.pieces[0]
        line = first if isinstance(first, bytes) else first[0]
        head = _HEAD.match(line)
        return line[head.end() if head and self.tag != b"+" else 1 :].strip()


class Wire:
    """A connection that says commands and reads replies; the first is the greeting."""

    def __init__(
        self,
        endpoint: ImapEndpoint,
        timeout_s: float,
        tls: ssl.SSLContext | None,
        *,
        literal_bytes_max: int = LITERAL_BYTES_MAX,
    ) -> None:
        #: Upper case; as of before the login until ``ask_capabilities`` is called again.
        self.capabilities: frozenset[bytes] = frozenset()
        #: The server knows us already (RFC 3501 section 7.1.4).
        self.is_authenticated = False
        self.literal_bytes_max = literal_bytes_max
        self._tls = tls
        self._host = endpoint.host
        self._count = 0
        self._flying: bytes | None = None
        self._leaving = False
        self._room_bytes = ANSWER_BYTES_MAX
        self._socket = _connected(endpoint, timeout_s)
        try:
            self._begin(endpoint.encryption)
        except BaseException:
            self.close()
            raise

    def send(self, *words: bytes) -> bytes:
        """Say a command; its tag goes to ``answer``."""
        if self._flying is not None:
            for _ in self.answer(self._flying, literals_bytes_max=0, refusals=False):
                pass
        self._count += 1
        self._flying = b"A%d" % self._count
        self._socket.sendall(self._flying + b" " + b" ".join(words) + b"\r\n")
        return self._flying

    def send_line(self, line: bytes) -> None:
        """Say what a continuation asked for."""
        self._socket.sendall(line + b"\r\n")

    def answer(
        self, tag: bytes, *, literals_bytes_max: int = ANSWER_BYTES_MAX, refusals: bool = True
    ) -> Iterator[Reply]:
        """The replies to a command, the tagged one last, each as it comes in.

        Literals beyond ``literals_bytes_max`` in all are ``Skipped``.

        Raises:
            RefusedError: the tagged reply is NO or BAD.
            BrokenError: BYE, the end, or what is no reply.
        """
        if tag != self._flying:
            raise AssertionError("another command was said before this answer was read")
        self._room_bytes = literals_bytes_max
        while (reply := self._read()).tag != tag:
            if reply.tag not in {b"*", b"+"}:
                raise BrokenError("the server answers what was not asked")
            yield reply
        self._flying = None
        if reply.kind not in _STATES:
            raise BrokenError("the server ends its answer with what is no reply")
        if refusals and reply.kind != b"OK":
            raise RefusedError(reply.kind, reply.text)
        yield reply

    def run(self, *words: bytes) -> list[Reply]:
        """Say a command and read its whole answer: few replies, such as those to CREATE."""
        return list(self.answer(self.send(*words)))

    def ask_capabilities(self) -> None:
        """What the server can, now."""
        self.note_capabilities(self.run(b"CAPABILITY"))

    def note_capabilities(self, replies: list[Reply]) -> bool:
        """Take capabilities from replies or from their response codes; False if they tell none."""
        told = [words for words in map(_capabilities_in, replies) if words is not None]
        if told:
            self.capabilities = told[-1]
        return bool(told)

    def leave(self, timeout_s: float) -> None:
        """Say LOGOUT, unless an answer is still to come: then the connection is just closed."""
        if self._flying is None:
            self._leaving = True
            self._socket.settimeout(timeout_s)
            self.run(b"LOGOUT")

    def close(self) -> None:
        """Close, in whatever state."""
        # A reset by the other side shows up here again; there is nothing left to lose. A thread that waits for a reply
        # holds the reader until the connection ends; TLS's own farewell would take its state from under that thread.
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with suppress(OSError):
            if hasattr(self, "_reader"):
                self._reader.close()
        with suppress(OSError):
            self._socket.close()

    def _begin(self, encryption: str) -> None:
        if encryption == "tls":
            self._encrypt()
        self._reader = self._buffered()
        greeting = self._read()
        if greeting.tag != b"*" or greeting.kind not in {b"OK", b"PREAUTH"}:
            raise BrokenError("this is no IMAP server")
        self.is_authenticated = greeting.kind == b"PREAUTH"
        if encryption == "starttls":
            self._start_tls()
        elif self.note_capabilities([greeting]):
            return
        self.ask_capabilities()

    def _start_tls(self) -> None:
        if self.is_authenticated:
            # RFC 9051 section 11.1: an attacker's greeting would keep the session in clear.
            raise ConnectError("the server begins with PREAUTH, where STARTTLS is not allowed", transient=False)
        # Asked for, not read off the greeting: many tell it only then.
        self.ask_capabilities()
        if b"STARTTLS" not in self.capabilities:
            # An attacker can strip the offer: never go on in clear.
            raise ConnectError("the server does not offer STARTTLS, which this client demands", transient=False)
        self.run(b"STARTTLS")
        # What came with the reply came in clear and may be forged: the reader is dropped with its buffer.
        self._reader.close()
        self._encrypt()
        self._reader = self._buffered()

    def _encrypt(self) -> None:
        self._socket = (self._tls or _trust()).wrap_socket(self._socket, server_hostname=self._host)

    def _buffered(self) -> BinaryIO:
        return cast("BinaryIO", self._socket.makefile("rb", buffering=_BUFFER_BYTES))

    def _read(self) -> Reply:
        line = self._line()
        head = _HEAD.match(line)
        if head is None:
            raise BrokenError("the server says what is no reply")
        tag, number, kind = head.groups()
        reply = Reply(tag, None if number is None else int(number), (kind or b"").upper(), [])
        # A text for people may end as a literal begins.
        while reply.kind not in _STATES and line.endswith((b"}\r\n", b"}\n")) and (found := _LITERAL.search(line)):
            if len(reply.pieces) >= _PIECES_MAX:
                raise ImapError(f"a reply of more than {_PIECES_MAX} literals", transient=False)
            reply.pieces.append((line, self._literal(int(found[1]))))
            line = self._line()
        reply.pieces.append(line)
        if reply.kind == b"BYE" and tag == b"*" and not self._leaving:
            raise BrokenError(f"the server says BYE: {readable(reply.text)}")
        return reply

    def _line(self) -> bytes:
        line = self._reader.readline(_LINE_BYTES_MAX + 1)
        if len(line) > _LINE_BYTES_MAX:
            raise ImapError(f"a line of more than {_LINE_BYTES_MAX} bytes", transient=False)
        if not line.endswith(b"\n"):
            raise BrokenError("the connection ended")
        return line

    def _literal(self, size_bytes: int) -> bytes | Skipped:
        if size_bytes > min(self.literal_bytes_max, self._room_bytes):
            return self._skip(size_bytes)
        self._room_bytes -= size_bytes
        data = self._reader.read(size_bytes)
        if len(data) < size_bytes:
            raise BrokenError("the connection ended within a literal")
        return data

    def _skip(self, size_bytes: int) -> Skipped:
        if size_bytes > _SKIPPED_BYTES_MAX:
            raise ImapError(f"a literal of {size_bytes} bytes", transient=False)
        left_bytes = size_bytes
        while left_bytes:
            data = self._reader.read(min(left_bytes, _BUFFER_BYTES))
            if not data:
                raise BrokenError("the connection ended within a literal")
            left_bytes -= len(data)
        return Skipped(size_bytes)


def _capabilities_in(reply: Reply) -> frozenset[bytes] | None:
    if reply.kind == b"CAPABILITY":
        return frozenset(reply.text.upper().split())
    found = _CAPABILITY_CODE.match(reply.text) if reply.kind in {*_STATES, b"PREAUTH"} else None
    return None if found is None else frozenset(found[1].upper().split())


def _connected(endpoint: ImapEndpoint, timeout_s: float) -> socket.socket:
    """A connection to the first address that takes one."""
    *others, last = endpoint.addresses or (endpoint.host,)
    for address in others:
        with suppress(OSError):
            return _connection(address, endpoint.port, timeout_s)
    return _connection(last, endpoint.port, timeout_s)


def _connection(address: str, port: int, timeout_s: float) -> socket.socket:
    connection = socket.create_connection((address, port), timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@functools.cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, read once a process: it takes tens of milliseconds."""
    return ssl.create_default_context()
