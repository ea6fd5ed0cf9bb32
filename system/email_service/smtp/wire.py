"""Bytes to and from one server: commands out, replies in, both within bounds of time and size.

Not ``smtplib``: that can't pipeline, connect to a checked address and verify another name, or bound an endless reply.
Rule 1: a wait ends in time, however slowly the bytes drip. Rule 2: whatever breaks is an ``OSError``; what it means is
for the callers to say: session and transaction.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from typing import Final

from email_service.smtp.replies import Reply

#: RFC 5321 section 4.5.3.1.5 has 512; servers with long words exist.
_LINE_BYTES_MAX: Final = 8192
#: Of one reply with all its lines.
_REPLY_BYTES_MAX: Final = 65_536
#: What must go out within one timeout: the pace of a slow line is measured, not its length.
_SEND_BYTES: Final = 65_536
_LINE: Final = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)


class NotSmtpError(ConnectionError):
    """What came can't be a reply."""


class Wire:
    """A connection; ``timeout_s`` bounds each wait."""

    def __init__(self, connected: socket.socket, *, timeout_s: float) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._buffer = bytearray()
        self.timeout_s = timeout_s

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Go on under TLS, with a server that proves to be ``host``.

        Raises:
            NotSmtpError: it spoke before TLS began: somebody on the way puts words into its mouth.
        """
        if self._buffer:
            raise NotSmtpError("it said more in clear text than it was asked")
        self._socket.settimeout(self.timeout_s)
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def send(self, data: bytes) -> None:
        """Write all of it."""
        self._socket.settimeout(self.timeout_s)
        if len(data) <= _SEND_BYTES:
            self._socket.sendall(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), _SEND_BYTES):
            self._socket.sendall(view[start : start + _SEND_BYTES])

    def reply(self, timeout_s: float | None = None) -> Reply:
        """Read one reply.

        Raises:
            NotSmtpError: it is none, or has no end.
        """
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        lines: list[str] = []
        left_bytes = _REPLY_BYTES_MAX
        while True:
            line = self._line(deadline)
            left_bytes -= len(line)
            found = _LINE.fullmatch(line)
            if found is None or left_bytes < 0:
                raise NotSmtpError("the reply can't be read" if left_bytes >= 0 else "the reply has no end")
            lines.append((found[3] or b"").decode("utf-8", "replace"))
            if found[2] != b"-":
                return Reply(code=int(found[1]), lines=tuple(lines))

    @property
    def silent(self) -> bool:
        """Whether nothing came that was not asked for; a server that speaks or closes out of turn is leaving.

        Read and not only looked at: under TLS a socket is readable also when nothing was said (RFC 8446 section 4.6).
        """
        if self._buffer:
            return False
        self._socket.settimeout(0)
        try:
            self._buffer += self._socket.recv(_LINE_BYTES_MAX)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    @property
    def own_address(self) -> str:
        """Our side of the connection."""
        return str(self._socket.getsockname()[0])

    def close(self) -> None:
        """Let go, without a word."""
        self._socket.close()

    def _line(self, deadline: float) -> bytes:
        """One line without its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LINE_BYTES_MAX:
                raise NotSmtpError("the line has no end")
            self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _receive(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left_s)
        received = self._socket.recv(_LINE_BYTES_MAX)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        self._buffer += received
