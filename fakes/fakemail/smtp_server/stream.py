"""The data path of one SMTP connection, in place of aiosmtpd's: bytes in, verbs run, replies out.

Owns: the socket's side of a connection, the order in which things happen on it, its end. Never does: verbs, faults,
mail. Called by: asyncio; verbs builds on it.

Why not aiosmtpd's own (1.4.6): it reads a message line by line (46 microseconds a kilobyte), starts a task and makes a
StreamReader for each connection, writes each reply by itself, and its constructor inspects every member of the class.
Here a verb is still a coroutine, but the connection itself drives it: it runs to its end at once, unless it awaits what
the client or a clock has yet to bring. No task exists, whether a client is idle, slow or stalled.

Rule 1: all that has arrived is served, and then answered in one write (RFC 2920 section 3.2).
Rule 2: what a verb waits for is kept here, so that the end of the connection ends the verb.
Rule 3: a client that doesn't read its replies isn't read from.
"""

from __future__ import annotations

import asyncio
import ssl
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

from aiosmtpd.smtp import SMTP

from fakemail.smtp_server.reader import BadLine, Reader
from fakemail.sockets import no_delay, quick

#: Of the buffer into which all connections of a server read: as much as asyncio would ask for.
READ_BYTES: Final = 256 * 1024
#: A client that is made to wait may send so much before it is no longer read from.
_PENDING_BYTES_MAX: Final = 4 * READ_BYTES
#: A slow read happens in so many steps a second.
_STEPS_PER_S: Final = 20

#: Answers what a verb waits for once it is there, else None.
Source = Callable[[], Any]
Work = Coroutine[Source, Any, None]


@types.coroutine
def until(source: Source) -> Generator[Source, Any, Any]:
    """Await this in a verb: what the source answers, as soon as it answers something."""
    return (yield source)


class Stream(SMTP, asyncio.BufferedProtocol):  # type: ignore[misc]  # aiosmtpd ships no types
    """One connection. A subclass says what is done with a line, and hears of the end.

    BufferedProtocol, because a transport that hands out bytes allocates 256 kB for every read: that alone took
    a third of the time.
    """

    def __init__(self, *, loop: asyncio.AbstractEventLoop, buffer: memoryview, idle_s: float) -> None:
        # aiosmtpd's constructor is left out on purpose, see above; what its verbs read is set by the subclass.
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.reader = Reader()
        #: Why the connection ends, as soon as we know.
        self.reason = ""
        #: A body is read at this pace; 0 is as fast as it comes.
        self.pace_bytes_per_s = 0
        #: Said, and not yet written; ``put`` says more.
        self.replies: list[bytes] = []
        self.put: Callable[[bytes], None] = self.replies.append
        self._buffer = buffer
        self._work: Work | None = None
        self._source: Source = _nothing
        self._running = False
        self._closing = False
        self._deaf = False
        #: Why the client isn't read from at the moment.
        self._held: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._idle_s = idle_s
        self._heard_at = 0.0

    # --- what a subclass does ---

    def serve(self, line: bytes | BadLine) -> Work:
        """What is done with a line."""
        raise NotImplementedError

    def timed_out(self) -> None:
        """The client has been silent for too long."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """A verb has failed by a mistake of ours."""
        raise NotImplementedError

    def ended(self, reason: str) -> None:
        """The connection is over."""
        raise NotImplementedError

    # --- asyncio's side ---

    def start(self, transport: asyncio.Transport, work: Work | None = None) -> None:
        """Begin on this transport, with this work: on a new connection, or again when it has become encrypted."""
        self.transport = transport
        no_delay(transport)
        self._heard_at = self.loop.time()
        self._set_timer("idle", self._idle_s, self._look_if_idle)
        if work is not None:
            self._work = work
            self._drive(None)
            self._run()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: shared by all connections, since each takes its bytes out at once."""
        del sizehint
        if self.pace_bytes_per_s:
            return self._buffer[: max(1, self.pace_bytes_per_s // _STEPS_PER_S)]
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes out and go on."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Serve what has come (the gate to TLS calls it too)."""
        if self._closing or self._deaf:
            return
        self._heard_at = self.loop.time()
        self.reader.feed(data)
        if self.pace_bytes_per_s:
            # At this pace they arrive only later, and the next ones after that.
            self.hold("pace")
            self._set_timer("pace", len(data) / self.pace_bytes_per_s, self._arrive)
            return
        # TLS may deliver more while it is being closed from within.
        if not self._running and not self._run() and self.transport is not None:
            # A reply would have carried the acknowledgement.
            quick(self.transport)

    def eof_received(self) -> bool:
        """The client has no more to say: close, when all that was said to it is written."""
        self.reason = self.reason or "closed by the client"
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, and so is what waited."""
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        if self._work is not None:
            self._work.close()
            self._work = None
        # It may hold what holds us; then only the garbage collector would find it.
        self._source = _nothing
        self.ended(self.reason or _told(error))
        self.transport = None

    def pause_writing(self) -> None:
        """The client doesn't read."""
        self.hold("unread replies")

    def resume_writing(self) -> None:
        """It has caught up."""
        self.release("unread replies")

    # --- the verbs' side ---

    def flush(self) -> bool:
        """Write what there is; whether there was anything."""
        if not self.replies or self.transport is None or self.transport.is_closing():
            return False
        self.transport.write(self.replies[0] if len(self.replies) == 1 else b"".join(self.replies))
        self.replies.clear()
        return True

    def close(self, reason: str) -> None:
        """Say no more than what is already said."""
        self.reason = self.reason or reason
        self.flush()
        self._closing = True
        if self.transport is not None:
            self.transport.close()

    def cut(self, reason: str) -> None:
        """End the connection as if the cable was cut: what is not written yet, never is."""
        self.reason = self.reason or reason
        self._closing = True
        self.replies.clear()
        if self.transport is not None:
            self.transport.abort()

    def hold(self, why: str) -> None:
        """Read nothing until it is released."""
        self._held.add(why)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def release(self, why: str) -> None:
        """Read again, unless something else forbids it."""
        self._held.discard(why)
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    async def pause(self, seconds: float) -> None:
        """Let the client wait."""
        self._set_timer("pause", seconds, self._resume)
        await until(_nothing)

    async def stall(self) -> None:
        """Let the client wait for ever: the verb goes no further, the line stays open, nobody listens."""
        self._deaf = True
        self.reader.clear()
        await until(_nothing)

    def rest(self) -> None:
        """Forget what was received and stop the clock: the gate to TLS has the connection now."""
        self.reader.clear()
        self._held.clear()
        self._timers.pop("idle").cancel()

    # --- running ---

    def _run(self) -> bool:
        """Go on until the client has to do something, then write all that there is to say; whether there was."""
        self._running = True
        while not self._closing:
            value = self.reader.line() if self._work is None else self._source()
            if value is None:
                break
            if self._work is None:
                self._work = self.serve(value)
                value = None
            self._drive(value)
        self._running = False
        wrote = self.flush()
        if self._work is not None or self._held:
            self._mind_the_pending()
        return wrote

    def _drive(self, value: Any) -> None:
        """Let the verb go on with what it has waited for, up to its next wish or its end."""
        assert self._work is not None  # noqa: S101  # somebody waits
        try:
            self._source = self._work.send(value)
        except StopIteration:
            self._work = None
        except Exception as err:  # noqa: BLE001  # whatever it is, the client shall not wait for it
            self._work = None
            self.failed(err)

    def _arrive(self) -> None:
        self.release("pace")
        self._run()

    def _resume(self) -> None:
        self._drive(None)
        self._run()

    def _mind_the_pending(self) -> None:
        """Whoever is made to wait and goes on sending is stopped in time."""
        if self.reader.pending_bytes > _PENDING_BYTES_MAX:
            self.hold("too early")
        elif "too early" in self._held:
            self.release("too early")

    def _set_timer(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self.loop.call_later(seconds, call)

    def _look_if_idle(self) -> None:
        """One timer a connection, not one a command."""
        # Whom we keep waiting is not idle.
        waited = self._work is not None and self._source is _nothing
        left = self._idle_s if waited else self._heard_at + self._idle_s - self.loop.time()
        if left > 0:
            self._set_timer("idle", left, self._look_if_idle)
            return
        if self.transport is not None and self.transport.is_closing():
            # It doesn't even read what there was to say.
            self.cut("timeout")
            return
        self.timed_out()
        self._set_timer("idle", self._idle_s, self._look_if_idle)


def _nothing() -> None:
    """The source of a verb that only a timer, or nobody, wakes up."""


def _told(error: Exception | None) -> str:
    """Why a connection ended that no verb, no fault and no goodbye of the client has ended."""
    if error is None:
        return "closed by the server"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset by the client"
    return f"{type(error).__name__}: {error}"
