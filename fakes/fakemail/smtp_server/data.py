"""DATA and BDAT: how a message comes in, and what may happen to it on the way (RFC 5321 section 4.1.1.4, RFC 3030).

Owns: the message's way from the reader to the handler, and the faults on it. Never does: its bytes (reader), what
becomes of it (handler). Called by: connection, which inherits it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from fakemail.faults import Action
from fakemail.smtp_server.conversation import described
from fakemail.smtp_server.reader import Oversize
from fakemail.smtp_server.stream import Source, until
from fakemail.smtp_server.syntax import RefusedError
from fakemail.smtp_server.verbs import Verbs

_BDAT: Final = re.compile(r"([0-9]{1,19})(?: +(LAST))?", re.IGNORECASE)
_TOO_BIG: Final = "552 5.3.4 Message too big"
_REACHED: Final = object()


class Data(Verbs):
    """The verbs that bring a message."""

    @property
    def offers_chunking(self) -> bool:
        """Whether BDAT is known here."""
        return "CHUNKING" in self.fakes.keywords

    @described("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802  # aiosmtpd finds verbs by name
        """Section 4.1.1.4."""
        if arg:
            raise RefusedError("501 5.5.4 Syntax: DATA")
        self._need_recipients()
        if self.envelope.chunks is not None:
            raise RefusedError("503 5.5.1 The message has begun with BDAT")
        await self._before_message()
        self.put(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        self.reader.start_message(limit=self.fakes.options.size_bytes_max)
        raw = await self._arrival(self.reader.message)
        await self._take(raw)

    @described("BDAT size [LAST]", when="offers_chunking")
    async def smtp_BDAT(self, arg: str) -> None:  # noqa: N802
        """RFC 3030 section 2: the octets follow the command, so they are read before it is refused."""
        if not self.offers_chunking:
            raise RefusedError("502 5.5.1 BDAT is not offered")
        match = _BDAT.fullmatch(arg)
        if match is None:
            # Where the octets would end, nobody knows.
            raise RefusedError("501 5.5.4 Syntax: BDAT size [LAST]", close=True)
        transaction = self.envelope
        refusal = await self._before_chunk()
        room = 0 if refusal else self.fakes.options.size_bytes_max - transaction.chunk_bytes
        self.reader.start_chunk(int(match[1]), limit=room)
        last = match[2] is not None
        piece = await self._arrival(self.reader.chunk, last=last)
        if refusal is not None:
            raise refusal
        await self._add(piece, size=int(match[1]), last=last)

    async def _before_chunk(self) -> RefusedError | None:
        """What speaks against the chunk, if anything."""
        try:
            self._need_recipients()
            if self.envelope.chunks is None:
                await self._before_message()
                self.envelope.chunks = []
        except RefusedError as err:
            return err
        return None

    async def _add(self, piece: bytes | Oversize, *, size: int, last: bool) -> None:
        transaction = self.envelope
        assert transaction.chunks is not None  # noqa: S101  # or it would have been refused
        if isinstance(piece, Oversize):
            self._set_rset_state()
            raise RefusedError(_TOO_BIG)
        transaction.chunks.append(piece)
        transaction.chunk_bytes += len(piece)
        if last:
            await self._take(b"".join(transaction.chunks))
        else:
            self.put(f"250 2.0.0 {size} octets received\r\n".encode())

    def _need_recipients(self) -> None:
        transaction = self.envelope
        if transaction.mail_from is None:
            raise RefusedError("503 5.5.1 Send MAIL first")
        if not transaction.rcpt_tos:
            # Section 3.3: a client that pipelines sends DATA before it knows.
            refused = "554 5.5.1 No valid recipients"
            raise RefusedError(refused if transaction.refused else "503 5.5.1 Send RCPT first")

    async def _before_message(self) -> None:
        await self.meet("smtp.data")
        self.envelope.body_fault = self.decide("smtp.body")

    async def _arrival(self, source: Source, *, last: bool = True) -> Any:
        """The message or the chunk, when it has come; a fault may be slow to read it, or stop half-way."""
        fault = self.envelope.body_fault
        if fault is None:
            return await until(source)
        self.pace_bytes_per_s = fault.bytes_per_s or 0
        value: Any = _REACHED
        if fault.drop or fault.stall or fault.delay_ms:
            value = await until(lambda: self._reached(source, fault))
            # A message that is shorter than the fault lets pass doesn't escape it.
            if value is _REACHED or last:
                await self.suffer(replace(fault, reply=None))
        if value is _REACHED:
            value = await until(source)
        self.pace_bytes_per_s = 0
        return value

    def _reached(self, source: Source, fault: Action) -> Any:
        """What has come if it is all; or that so much has come as the fault lets pass."""
        value = source()
        come = self.envelope.chunk_bytes + self.reader.body_bytes
        if come and come >= (fault.after_bytes or 0):
            return _REACHED if value is None else value
        return value

    async def _take(self, raw: bytes | Oversize) -> None:
        """The message has arrived: it is the server's now, or it is too big."""
        transaction = self.envelope
        if isinstance(raw, Oversize):
            self._set_rset_state()
            raise RefusedError(_TOO_BIG)
        if (fault := transaction.body_fault) is not None and fault.reply is not None:
            # Read, and not kept.
            self._set_rset_state()
            raise RefusedError(fault.reply, close=fault.close)
        action = self.decide("smtp.accepted")
        replied = action is None or not (action.drop or action.stall)
        self.fakes.take(self.number, self.session, transaction, raw, replied=replied)
        self.taken()
        self._set_rset_state()
        if action is not None:
            await self.suffer(action)
        self.put(b"250 2.0.0 OK, taken\r\n")
