"""Sessions that a process keeps between messages, so that the next one to the same account needs no new login.

Rule 1: a session is kept only after the server has taken a message in it, and for ``idle_s`` seconds: then it is ended.
Rule 2: it is used again only for the same account with the same secret, under the same trust, at an address that is
still permitted, and while the server has said nothing. RSET would cost the round trip that keeping it spares: what is
found dead at MAIL is opened anew by delivery.
Rule 3: what a fork inherits is never spoken to. Made once a process; called by delivery.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from email_service.smtp.endpoint import SmtpEndpoint
from email_service.smtp.session import Session

#: Servers limit the messages of a session: Postfix, Exim and Exchange begin to refuse at a hundred or more.
MESSAGES_MAX: Final = 100
#: Kept at once; the one that was used longest ago makes room.
SESSIONS_MAX: Final = 16


@dataclass(frozen=True, kw_only=True)
class _Kept:
    session: Session
    tls: ssl.SSLContext | None
    #: By the clock.
    until_s: float


class Connections:
    """One process's idle sessions; safe in threads."""

    def __init__(
        self, *, idle_s: float, messages_max: int = MESSAGES_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._idle_s = idle_s
        self._messages_max = messages_max
        self._clock = clock
        self._kept: list[_Kept] = []
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._closing: threading.Thread | None = None

    def take(self, endpoint: SmtpEndpoint, tls: ssl.SSLContext | None) -> Session | None:
        """A session that is ready for MAIL and now the caller's; None where there is none."""
        while (kept := self._pop(endpoint, tls)) is not None:
            permitted = not endpoint.addresses or kept.session.address in endpoint.addresses
            if permitted and kept.until_s > self._clock() and kept.session.wire.silent:
                return kept.session
            kept.session.close()
        return None

    def give(self, session: Session, tls: ssl.SSLContext | None) -> None:
        """Keep a session, or end it where it can't be of use any more."""
        if self._idle_s <= 0 or session.messages >= self._messages_max:
            session.quit()
            return
        with self._own():
            self._kept.append(_Kept(session=session, tls=tls, until_s=self._clock() + self._idle_s))
            surplus = self._kept.pop(0) if len(self._kept) > SESSIONS_MAX else None
            self._start_closing()
        if surplus is not None:
            surplus.session.quit()

    def close(self) -> None:
        """End all of them: the process is about to end."""
        with self._own():
            kept, self._kept = self._kept, []
            self._changed.notify()
        for each in kept:
            each.session.quit()

    def _pop(self, endpoint: SmtpEndpoint, tls: ssl.SSLContext | None) -> _Kept | None:
        with self._own():
            if not self._kept:
                return None
            fingerprint = endpoint.fingerprint()
            # The newest first: the others may then grow old.
            for place in reversed(range(len(self._kept))):
                if self._kept[place].session.fingerprint == fingerprint and self._kept[place].tls is tls:
                    return self._kept.pop(place)
        return None

    def _own(self) -> threading.Condition:
        """The lock. In a child all is the parent's: sessions, the thread that ends them, a lock that it holds."""
        if os.getpid() != self._pid:
            self._pid, self._kept, self._changed, self._closing = os.getpid(), [], threading.Condition(), None
        return self._changed

    # --- ending what has been idle for long enough ---

    def _start_closing(self) -> None:
        if self._closing is None:
            self._closing = threading.Thread(target=self._end_idle, name="smtp-idle", daemon=True)
            self._closing.start()

    def _end_idle(self) -> None:
        """End each session when its time is over; the thread ends with the last one."""
        while True:
            with self._own():
                if not self._kept:
                    self._closing = None
                    return
                left_s = self._kept[0].until_s - self._clock()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                old = self._kept.pop(0)
            old.session.quit()
