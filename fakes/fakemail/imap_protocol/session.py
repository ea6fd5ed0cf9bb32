"""The IMAP state machine without I/O (RFC 3501 section 3): bytes in, events out.

Owns: dispatch, tagged answers, news, faults at commands. Called by: imap_server.

Rule 1: no I/O and no clock; ``feed`` takes bytes, ``events`` gives bytes to write, and what the shell must do.
Rule 2: a command that is malformed, unknown or out of place gets a tagged BAD, and the session goes on.
Rule 3: message numbers change only where RFC 3501 section 7.4.1 allows it: never during FETCH, STORE and SEARCH.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Final

from fakemail.faults import Action
from fakemail.imap_protocol.context import (
    LOGOUT,
    NOT_AUTHENTICATED,
    Answer,
    Context,
    Decide,
    ImapOptions,
    Note,
    Ok,
    Refused,
    Request,
)
from fakemail.imap_protocol.events import Close, Event, Gather, Line, Pace, Stall, StartTls, Wait
from fakemail.imap_protocol.faulty import Answered, spoilt
from fakemail.imap_protocol.offer import announced
from fakemail.imap_protocol.syntax import (
    LITERAL_BYTES_MAX_BEFORE_LOGIN,
    Continue,
    Cursor,
    Framer,
    SyntaxFault,
    TooLong,
)
from fakemail.imap_protocol.table import COMMANDS, UID_COMMANDS
from fakemail.mailbox import MailboxError, MailStore, NotFoundError
from fakemail.timeline import Weights

#: What a client's parser may trip over in text that is meant for people.
_UNPLAIN: Final = re.compile(r'["(){}\[\]\\%*\x00-\x1f\x7f]|[^\x00-\x7f]')
_TAG: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
_TAG_BYTES_MAX: Final = 1000
#: Message numbers may not change during these (RFC 3501 section 7.4.1, RFC 5256 section 3).
_STEADY: Final = frozenset({"FETCH", "STORE", "SEARCH", "SORT", "THREAD"})


class ImapSession:
    """One connection's protocol."""

    def __init__(
        self,
        store: MailStore,
        *,
        note: Note,
        decide: Decide,
        active: Callable[[str], bool] = lambda _: True,
        options: ImapOptions | None = None,
        wake: Callable[[], None] = lambda: None,
        tls: bool = False,
        gathers: bool = False,
    ) -> None:
        """``gathers``: the shell can write pieces one behind the other; else it gets them put together."""
        options = options or ImapOptions()
        self._context = Context(
            mail=store, options=options, note=note, decide=self._decide, active=active, wake=wake, tls=tls
        )
        self._ask = decide
        limit = min(options.literal_bytes_max, LITERAL_BYTES_MAX_BEFORE_LOGIN)
        self._framer = Framer(
            line_bytes_max=options.line_bytes_max,
            literal_bytes_max=limit,
            literal_plus="LITERAL+" not in options.without,
        )
        self._paced, self._gathers = False, gathers
        self._running = self._run()

    def _decide(self, point: str, **context: object) -> Action | None:
        return self._ask(point, **{"user": self.user} | context)

    @property
    def state(self) -> str:
        """Where the connection is in RFC 3501 section 3."""
        return self._context.state

    @property
    def user(self) -> str:
        """Who is logged in; empty before."""
        return self._context.user

    @property
    def held_bytes(self) -> int:
        """What has arrived and was not looked at yet."""
        return self._framer.held_bytes

    def greeting(self) -> bytes:
        """RFC 3501 section 7.1.1."""
        return f"* OK [CAPABILITY {announced(self._context)}] fakemail is ready\r\n".encode()

    def feed(self, data: bytes) -> None:
        """More bytes from the client."""
        self._framer.feed(data)

    def tls_started(self) -> None:
        """The handshake is done: what came before it in the clear is not trusted (RFC 3501 section 6.2.1)."""
        self._framer.clear()
        self._context.tls = True

    def close(self) -> None:
        """The connection is gone."""
        self._context.leave()
        self._context.state = LOGOUT
        self._running.close()

    def events(self) -> Iterator[Event]:
        """What follows from all that has arrived, up to where more must arrive."""
        for event in self._running:
            if isinstance(event, Wait):
                return
            if isinstance(event, Close):
                # Whatever the core was about to say, nobody hears it any more.
                self.close()
                yield event
                return
            if isinstance(event, Stall):
                self._running.close()
            yield b"".join(event.parts) if isinstance(event, Gather) and not self._gathers else event

    def _run(self) -> Generator[Event, None, None]:
        context = self._context
        while context.state != LOGOUT:
            if context.view is not None and context.view.folder.closed:
                yield from self._expelled(context.view.folder.closed)
            command = self._framer.command()
            if command is None:
                yield Wait()
            elif isinstance(command, Continue):
                yield b"+ go ahead\r\n"
            elif isinstance(command, TooLong):
                yield command.tag + f" BAD {command.why}\r\n".encode()
            else:
                yield from self._dispatch(command)

    def _expelled(self, reason: str) -> Iterator[Event]:
        """The selected folder is no more what it was: message numbers mean nothing (RFC 2180 section 3.3)."""
        yield f"* BYE {_plain(reason)}\r\n".encode()
        yield Close()

    # --- one command ---

    def _dispatch(self, command: bytes) -> Iterator[Event]:
        context, tag = self._context, b"*"
        cursor = Cursor(command, saved=context.has("SEARCHRES"))
        context.facts = {}
        if self._paced:
            # The pace was the last command's.
            self._paced = False
            yield Pace(bytes_per_s=None)
        called, result = "", "BAD"
        try:
            tag = self._tag(cursor)
            name, by_uid = self._name(cursor)
            request = Request(tag=tag, name=name, cursor=cursor, by_uid=by_uid)
            called = f"UID {name}" if by_uid else name
            action = self._context.decide("imap.command", command=(name, called), folder=self._context.folder_name)
            yield from self._before(action, tag)
            done = yield from self._answer(self._handler(request))
            result = "OK"
            yield from self._succeed(request, done, called)
        except Answered:
            result = "fault"
        except SyntaxFault as err:
            yield tag + f" BAD {_plain(str(err))}\r\n".encode()
        except (Refused, MailboxError) as err:
            result = "NO"
            yield from self._refuse(tag, called, err)
        finally:
            if called:
                self._note_served(called, result)
        if context.state != NOT_AUTHENTICATED:
            self._framer.literal_bytes_max = context.options.literal_bytes_max

    def _refuse(self, tag: bytes, called: str, err: Refused | MailboxError) -> Iterator[Event]:
        yield from self._changes(expunges=called not in _STEADY)
        code = err.code if isinstance(err, Refused) else "NONEXISTENT" if isinstance(err, NotFoundError) else "CANNOT"
        yield tag + f" NO {f'[{code}] ' if code else ''}{_plain(str(err))}\r\n".encode()

    def _note_served(self, name: str, result: str) -> None:
        context = self._context
        context.note(
            "served", user=context.user, command=name, result=result, **{"folder": context.folder_name} | context.facts
        )

    @staticmethod
    def _tag(cursor: Cursor) -> bytes:
        """RFC 3501 section 9: a tag holds no '+'."""
        match = _TAG.match(cursor.data, cursor.at)
        if match is None or len(match[0]) > _TAG_BYTES_MAX or cursor.data[match.end() : match.end() + 1] != b" ":
            raise SyntaxFault("a tag, a space and a command expected")
        cursor.at = match.end() + 1
        return match[0]

    @staticmethod
    def _name(cursor: Cursor) -> tuple[str, bool]:
        """The command, and whether it came behind UID (section 6.4.8)."""
        name = cursor.word()
        if name != "UID":
            return name, False
        cursor.space()
        name = cursor.word()
        if name not in UID_COMMANDS:
            raise SyntaxFault(f"unknown command UID {name}")
        return name, True

    def _handler(self, request: Request) -> Answer:
        context, row = self._context, COMMANDS.get(request.name)
        capability = UID_COMMANDS[request.name] if request.by_uid else row and row.capability
        if row is None or (capability and not context.has(capability)):
            raise SyntaxFault(f"unknown command {request.name}")
        if context.state not in row.states:
            raise SyntaxFault(f"{request.name} is not allowed in the state {context.state}")
        return row.run(context, request)

    def _answer(self, answer: Answer) -> Generator[Event, None, Ok]:
        """Pass on what a handler yields, and hand it the lines that it waits for."""
        try:
            event = next(answer)
            while True:
                if isinstance(event, Line):
                    line = yield from self._line(idle=event.idle)
                    event = answer.send(line)
                    continue
                yield event
                event = next(answer)
        except StopIteration as stop:
            done: Ok = stop.value
            return done

    def _line(self, *, idle: bool) -> Generator[Event, None, bytes]:
        while True:
            view = self._context.view
            if idle and view is not None and view.folder.closed:
                yield from self._expelled(view.folder.closed)
            line = self._framer.line()
            if isinstance(line, TooLong):
                raise SyntaxFault(line.why)
            if line is not None:
                return line
            if idle:
                yield from self._changes(expunges=True)
            yield Wait()

    def _succeed(self, request: Request, done: Ok, called: str) -> Iterator[Event]:
        names = (request.name, called)
        yield from spoilt(
            self._context.decide("imap.reply", command=names, folder=self._context.folder_name), request.tag
        )
        yield from self._changes(expunges=done.expunges)
        code = f"[{done.code}] " if done.code else ""
        view = self._context.view
        if done.highest and view is not None and "CONDSTORE" in self._context.enabled:
            code = f"[HIGHESTMODSEQ {view.synchronised}] "
        yield request.tag + f" OK {code}{done.text}\r\n".encode()
        if done.then is not None:
            yield done.then
            if isinstance(done.then, StartTls):
                # The shell calls tls_started before it asks for more.
                yield Wait()

    def _changes(self, *, expunges: bool) -> Iterator[Event]:
        """What has changed in the selected folder since this client was last told."""
        view = self._context.view
        if view is not None:
            yield from view.news(expunges=expunges, enabled=self._context.enabled)

    # --- faults ---

    def _before(self, action: Action | None, tag: bytes) -> Iterator[Event]:
        """What a fault does before or instead of the command."""
        if action is not None:
            self._paced = action.bytes_per_s is not None
            if action.mailbox is not None:
                self._elsewhere(action.mailbox)
        yield from spoilt(action, tag)

    def _elsewhere(self, what: str) -> None:
        """Another client, or the server itself, changes the selected folder at this very moment."""
        context = self._context
        if context.view is None:
            return
        folder = context.view.folder
        if what == "reset-uidvalidity":
            context.mail.reset_uidvalidity(context.me, folder.name)
            return
        weights = Weights(**{kind: int(kind == what) for kind in ("arrive", "flags", "expunge", "reset")})
        context.mail.advance(context.me, folder.name, 1, weights=weights)


def _plain(text: str) -> str:
    """Text for people that no parser of responses trips over."""
    return _UNPLAIN.sub("'", text) or "no"
