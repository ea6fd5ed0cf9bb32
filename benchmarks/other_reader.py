"""Another client, as a process of its own: ``other_reader.py HOST PORT USER PASSWORD BYTES_S``.

Asks for everything again and again and reads it at a speed; 0 is as fast as it can. Says ``reading`` once the first
answer comes, and ends with its standard input. Run by the bench of latency.
"""

from __future__ import annotations

import os
import select
import socket
import sys

SIPS_S = 10


def main(host, port, user, password, bytes_s):
    sip, pause_s = int(bytes_s) // SIPS_S, 1 / SIPS_S
    with socket.socket() as sock:
        if sip:
            # Before it connects: a small window is told in the handshake.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.connect((host, int(port)))
        sock.sendall(f"a LOGIN {user} {password}\r\nb SELECT INBOX\r\n".encode())
        seen = b""
        while b"b OK" not in seen:
            seen += sock.recv(65_536)
        asked = b"c UID FETCH 1:* (FLAGS BODY.PEEK[])\r\n"
        sock.sendall(asked)
        room = bytearray(sip or 1 << 20)
        sock.recv_into(room)
        print("reading", flush=True)  # noqa: T201  # the bench waits for it
        while not select.select([sys.stdin], [], [], pause_s if sip else 0)[0]:
            got = sock.recv_into(room)
            if not sip and room.rfind(b"c OK", max(0, got - 200), got) >= 0:
                sock.sendall(asked)


if __name__ == "__main__":
    main(*sys.argv[1:])
    # No ceremony: the server sees a client that goes away in the middle.
    os._exit(0)
