"""A client's socket, with good manners and bad ones.

Owns: sending, hearing until it is enough, going away in every way.
Never does: know a protocol.
Called by: the targets with a socket.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from fuzz_campaign import HangError
from fuzz_process import ANSWER_S, await_true

#: A client hears no longer answer out.
ANSWER_BYTES_MAX = 4_000_000
_RST = struct.pack("ii", 1, 0)


class SocketWire:
    """One connection."""

    def __init__(self, address, *, pause_s=0.0):
        self._sock = socket.create_connection(address, timeout=ANSWER_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pause_s = pause_s
        self._said = bytearray()
        self.closed = False

    def send(self, data, meanwhile=None):
        self._send(data)
        if meanwhile is not None:
            meanwhile()

    def _send(self, data):
        if self._pause_s:
            time.sleep(self._pause_s)
        try:
            self._sock.sendall(data)
        except ConnectionError:
            # What it said before is still to be read.
            self._read()

    def hear(self, enough):
        deadline = time.monotonic() + ANSWER_S
        # A question that is true of anything asks for what has come by now.
        hurry = enough(b"")
        while not self.closed and not (not hurry and enough(bytes(self._said))):
            self._sock.settimeout(0.05 if hurry else max(0.01, deadline - time.monotonic()))
            try:
                self._read()
            except TimeoutError:
                if hurry:
                    break
                raise HangError(f"nothing more in {ANSWER_S} s behind {bytes(self._said[-300:])!r}") from None
            if len(self._said) > ANSWER_BYTES_MAX or (hurry and self._said.endswith(b"\r\n")):
                break
        self._sock.settimeout(ANSWER_S)
        said = bytes(self._said)
        self._said.clear()
        return said

    def _read(self):
        try:
            data = self._sock.recv(1 << 18)
        except ConnectionError:
            data = b""
        self._said += data
        self.closed = self.closed or not data

    def leave(self):
        self.closed = True
        self._sock.close()

    # --- bad manners ---

    def vanish(self, how):
        """Go away in the middle: with a reset, or by closing."""
        if how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self.leave()

    def half_close(self):
        """Say no more, and hear it out: a server that is told the end must end too."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        read = 0
        while not self.closed and read < 8 * ANSWER_BYTES_MAX:
            try:
                self._read()
            except TimeoutError:
                raise HangError("the client's end was not answered by the server's") from None
            read += len(self._said)
            self._said.clear()
        self._sock.close()


def settled(server):
    """The number of descriptors once no connection is left."""
    last = [server.descriptors()]

    def same():
        last.append(server.descriptors())
        return len(last) > 20 and len(set(last[-20:])) == 1

    assert await_true(same)
    return last[-1]
