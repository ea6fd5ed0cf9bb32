"""The commands of any state (RFC 3501 section 6.1), ID and STARTTLS. Called by: table."""

from __future__ import annotations

from fakemail.imap_protocol.context import LOGOUT, Answer, Context, Ok, Request
from fakemail.imap_protocol.events import Close, StartTls
from fakemail.imap_protocol.offer import announced
from fakemail.imap_protocol.syntax import SyntaxFault

#: RFC 2971 section 3.3.
_ID_FIELDS_MAX = 30


def capability(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.1.1."""
    request.cursor.end()
    yield f"* CAPABILITY {announced(context)}\r\n".encode()
    return Ok(text="CAPABILITY completed")


def noop(context: Context, request: Request) -> Answer:
    """RFC 3501 sections 6.1.2 and 6.4.1."""
    del context
    request.cursor.end()
    yield from ()
    return Ok(text=f"{request.name} completed")


def logout(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.1.3."""
    request.cursor.end()
    context.leave()
    context.state = LOGOUT
    yield b"* BYE fakemail says goodbye\r\n"
    return Ok(text="LOGOUT completed", then=Close())


def id_(context: Context, request: Request) -> Answer:
    """RFC 2971 section 3.1: who the client says it is goes into the ledger."""
    cursor = request.cursor
    cursor.space()
    fields: dict[str, str | None] = {}
    if not cursor.take_word(b"NIL"):
        cursor.need(b"(")
        # aioimaplib puts spaces inside the parentheses, and servers let them pass.
        cursor.take(b" ")
        while not cursor.take(b")"):
            name = cursor.string().decode("utf-8", errors="replace")
            cursor.space()
            value = cursor.nstring()
            fields[name] = None if value is None else value.decode("utf-8", errors="replace")
            if not cursor.take(b" ") and cursor.peek() != b")":
                raise SyntaxFault("a space or the end of the list expected")
            if len(fields) > _ID_FIELDS_MAX:
                raise SyntaxFault("more than 30 fields")
    cursor.end()
    context.facts["client"] = fields
    yield b'* ID ("name" "fakemail")\r\n'
    return Ok(text="ID completed")


def starttls(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.2.1."""
    request.cursor.end()
    if context.tls:
        raise SyntaxFault("TLS is on already")
    if not context.options.starttls:
        raise SyntaxFault("TLS is not offered")
    yield from ()
    return Ok(text="Begin TLS", then=StartTls())
