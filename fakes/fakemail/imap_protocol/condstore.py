"""ENABLE, and what switches CONDSTORE and QRESYNC on (RFC 5161, RFC 7162 section 3.1).

Called by: table, the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fakemail.imap_protocol.context import Answer, Context, Ok, Request

#: What ENABLE knows, and what each brings along.
_ENABLES: Final = {"CONDSTORE": ("CONDSTORE",), "QRESYNC": ("CONDSTORE", "QRESYNC")}


def switch_on(context: Context, name: str) -> Iterator[bytes]:
    """From here on every FETCH has its MODSEQ; with a folder selected its highest is told (section 3.1)."""
    if name in context.enabled:
        return
    first = "CONDSTORE" not in context.enabled
    context.enabled.update(_ENABLES[name])
    if first and context.view is not None:
        yield b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % context.view.folder.highestmodseq


def enable(context: Context, request: Request) -> Answer:
    """RFC 5161 section 3.1: what is not known is left out of the answer."""
    cursor = request.cursor
    wanted = []
    cursor.space()
    while True:
        wanted.append(cursor.word())
        if cursor.done:
            break
        cursor.space()
    known = [name for name in dict.fromkeys(wanted) if name in _ENABLES and context.has(name)]
    new = [name for name in known if name not in context.enabled]
    yield ("* ENABLED" + "".join(f" {name}" for name in new) + "\r\n").encode()
    for name in new:
        yield from switch_on(context, name)
    return Ok(text="ENABLE completed")
