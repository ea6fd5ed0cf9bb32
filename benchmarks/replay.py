"""Answers made beforehand for one fixed dialogue: ``replay.py HOST PORT PICKLE``; the pickle is ours, of this minute.

Owns: the bytes of a FETCH of each hundred messages, sent in one write. Never does: IMAP beyond that dialogue.
Run by neighbours, to show the speed that a client can't exceed.
"""

from __future__ import annotations

import pickle
import re
import socket
import sys
import threading
from pathlib import Path

BATCH = 100


def serve(client, batches, count):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"* OK [CAPABILITY IMAP4rev1] prepared\r\n")
    answers = {
        b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\n",
        b"EXAMINE": b"* %d EXISTS\r\n" % count,
        b"SEARCH": b"* SEARCH " + b" ".join(b"%d" % uid for uid in range(1, count + 1)) + b"\r\n",
    }
    for line in client.makefile("rb"):
        tag, *words = line.split()
        word = words[1] if words[0] == b"UID" else words[0]
        if word == b"FETCH":
            client.sendall(batches[int(re.match(rb"\d+", words[2])[0])])
        client.sendall(answers.get(word, b"") + tag + b" OK done\r\n")


def main(host, port, path):
    messages = pickle.loads(Path(path).read_bytes())  # noqa: S301  # written by neighbours a moment ago
    rows = [
        b"* %d FETCH (UID %d FLAGS () BODY[] {%d}\r\n%s)\r\n" % (uid, uid, len(raw), raw)
        for uid, raw in enumerate(messages, 1)
    ]
    batches = {first + 1: b"".join(rows[first : first + BATCH]) for first in range(0, len(rows), BATCH)}
    listener = socket.create_server((host, int(port)))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, batches, len(rows)), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
