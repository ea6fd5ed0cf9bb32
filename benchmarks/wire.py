"""A raw IMAP client that costs next to nothing: what is measured through it is the server.

Owns: one socket, a tight ``recv_into`` loop that counts bytes until the tagged OK, and loading mail by APPEND.
Never does: parse what it counts.
Called by: the benches, for fakemail and its neighbours alike.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

#: One buffer for all; what one ``recv`` can bring.
_ROOM: Final = 1 << 20
#: Enough to hold a tagged reply's line.
_TAIL: Final = 512
_LITERAL: Final = re.compile(rb"\{(\d+)\}\r\n")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came until the tagged OK."""

    bytes_read: int
    #: The first bytes of it.
    head: bytes
    #: From the first byte sent to the first byte back.
    first_s: float
    #: From the first byte sent to the tagged OK.
    whole_s: float
    #: Line ends; counted on demand.
    lines: int


class RawClient:
    """One connection."""

    def __init__(self, address: tuple[str, int], *, user: str, password: str, timeout_s: float = 60.0) -> None:
        self.sock = socket.create_connection(address, timeout=timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._room = bytearray(_ROOM)
        self._count = 0
        self._greeting()
        self.run(f"LOGIN {user} {password}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _greeting(self) -> None:
        seen = b""
        while not seen.endswith(b"\r\n"):
            seen += self._received(self.sock.recv(4096))

    @staticmethod
    def _received(data: bytes) -> bytes:
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def run(self, command: str, *, count_lines: bool = False) -> Answer:
        """Send a command, count its answer; raises RuntimeError for a tagged NO or BAD."""
        self._count += 1
        tag = b"Qx%06dz" % self._count
        began = time.perf_counter()
        self.sock.sendall(tag + b" " + command.encode() + b"\r\n")
        return self._until(tag, began, count_lines=count_lines)

    def _until(self, tag: bytes, began: float, *, count_lines: bool) -> Answer:
        view, room, receive = memoryview(self._room), self._room, self.sock.recv_into
        total, lines, first, head, tail = 0, 0, 0.0, b"", b""
        while True:
            got = receive(view)
            if not total:
                first, head = time.perf_counter() - began, bytes(view[: min(got, 64)])
            if not got:
                raise ConnectionError(f"the server closed the connection after {total} bytes")
            total += got
            if count_lines:
                lines += room.count(b"\n", 0, got)
            tail = bytes(view[max(0, got - _TAIL) : got]) if got >= _TAIL else (tail + bytes(view[:got]))[-_TAIL:]
            if tail.endswith(b"\r\n") and (at := tail.rfind(tag)) >= 0:
                if not tail.startswith(b" OK", at + len(tag)):
                    raise RuntimeError(tail[at:].decode(errors="replace"))
                whole = time.perf_counter() - began
                return Answer(bytes_read=total, head=head, first_s=first, whole_s=whole, lines=lines)

    def read(self, command: str) -> bytes:
        """Send a command and keep its answer."""
        self._count += 1
        tag = b"Qx%06dz" % self._count
        self.sock.sendall(tag + b" " + command.encode() + b"\r\n")
        kept = bytearray()
        while not (kept.endswith(b"\r\n") and kept.rfind(tag, max(0, len(kept) - _TAIL)) >= 0):
            kept += self._received(self.sock.recv(_ROOM))
        return bytes(kept)

    def messages(self) -> list[bytes]:
        """All messages of the selected folder."""
        answer, at, found = self.read("UID FETCH 1:* (BODY.PEEK[])"), 0, []
        while match := _LITERAL.search(answer, at):
            at = match.end() + int(match[1])
            found.append(answer[match.end() : at])
        return found

    def append(self, folder: str, messages: Sequence[bytes]) -> None:
        """Put messages into a folder, one APPEND each, with a synchronising literal: every server takes that."""
        for raw in messages:
            self._count += 1
            tag = b"Qx%06dz" % self._count
            self.sock.sendall(b"%s APPEND %s {%d}\r\n" % (tag, folder.encode(), len(raw)))
            self._line_with(b"+")
            self.sock.sendall(raw + b"\r\n")
            self._line_with(tag + b" OK")

    def _line_with(self, start: bytes) -> None:
        """Read whole lines until one begins so; what the server tells besides is passed over."""
        data = b""
        while not (data.endswith(b"\r\n") and any(line.startswith(start) for line in data.split(b"\r\n"))):
            data += self._received(self.sock.recv(65_536))
            if b" NO " in data or b" BAD " in data:
                raise RuntimeError(data.decode(errors="replace"))
