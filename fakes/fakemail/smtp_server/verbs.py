"""The verbs of one SMTP connection (RFC 5321 section 4.1 and its extensions), but for those that bring a message.

Owns: the order of verbs, and what each answers. Never does: lines and refusals (conversation), challenges (auth),
grammar (syntax), mail and users (handler). Called by: connection, through their names.

Every reply of ours has an enhanced code (RFC 2034), except those to which it is forbidden: 220, 334, 354, and the 250
to EHLO and HELO.
"""

from __future__ import annotations

import time

from fakemail.faults import Action
from fakemail.smtp_server.auth import MECHANISMS, Login
from fakemail.smtp_server.conversation import described
from fakemail.smtp_server.options import KEYWORDS
from fakemail.smtp_server.syntax import (
    RefusedError,
    domain_of,
    parse_mail_parameters,
    parse_path,
    parse_recipient_parameters,
)


class Verbs(Login):
    """All verbs but DATA and BDAT."""

    @property
    def offers_tls(self) -> bool:
        """Whether STARTTLS is known here."""
        return "STARTTLS" in self.fakes.keywords

    # --- who is there ---

    @described("HELO hostname")
    async def smtp_HELO(self, arg: str) -> None:  # noqa: N802  # aiosmtpd finds verbs by name
        """Section 4.1.1.1."""
        await self._hello("HELO", arg)
        self.session.extended_smtp, self.offered = False, frozenset()
        self.put(f"250 {self.hostname}\r\n".encode())

    @described("EHLO hostname")
    async def smtp_EHLO(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.1: the greeting's answer lists what is offered."""
        action = await self._hello("EHLO", arg)
        withheld = frozenset() if action is None else frozenset(action.strip)
        self.session.extended_smtp, self.offered = True, self._available() - withheld
        words = {"SIZE": f"SIZE {self.fakes.options.size_bytes_max}", "AUTH": f"AUTH {' '.join(MECHANISMS)}"}
        lines = [self.hostname, *(words.get(name, name) for name in KEYWORDS if name in self.offered)]
        rows = [f"250-{line}\r\n" for line in lines[:-1]]
        self.put(f"{''.join(rows)}250 {lines[-1]}\r\n".encode())

    async def _hello(self, verb: str, arg: str) -> Action | None:
        if not arg:
            raise RefusedError(f"501 5.5.4 Syntax: {verb} hostname")
        action = await self.meet("smtp.ehlo")
        # Section 4.1.4: it is a RSET as well.
        self._set_rset_state()
        self.session.host_name = arg
        return action

    def _available(self) -> frozenset[str]:
        """What may be offered at this moment."""
        if self.tls:
            return self.fakes.keywords - {"STARTTLS"}
        return self.fakes.keywords - ({"AUTH"} if self.fakes.options.tls_required else frozenset())

    @described("AUTH mechanism", extended=" [initial-response]")
    async def smtp_AUTH(self, arg: str) -> None:  # noqa: N802
        """RFC 4954 section 4."""
        if "AUTH" not in self._available():
            raise RefusedError("502 5.5.1 AUTH is not offered")
        self._need_hello("EHLO")
        if not self.session.extended_smtp:
            raise RefusedError("503 5.5.1 Send EHLO first")
        if self.session.authenticated:
            raise RefusedError("503 5.5.1 Already authenticated")
        if self.envelope.mail_from is not None:
            raise RefusedError("503 5.5.1 A message is under way")
        if not arg:
            raise RefusedError("501 5.5.4 Syntax: AUTH mechanism [initial-response]")
        user = await self.exchange(arg)
        if user is None:
            return
        self.count_as(user)
        self.session.authenticated, self.session.auth_data = True, user
        self.put(b"235 2.7.0 Authentication successful\r\n")

    async def check(self, mechanism: str, user: str, secret: str) -> bool:
        """Whether the user may come in, unless a fault knows better."""
        # Who tries to log in is the user that a fault at this point speaks of.
        action = await self.meet("smtp.auth", user=user, mechanism=mechanism)
        expired = action is not None and action.expired_token
        success = not expired and self.fakes.login(mechanism, user, secret)
        self.note("login", user=user, mechanism=mechanism, success=success)
        return success

    @described("STARTTLS", when="offers_tls")
    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        """RFC 3207 section 4."""
        if arg:
            raise RefusedError("501 5.5.4 Syntax: STARTTLS")
        if self.tls:
            raise RefusedError("503 5.5.1 TLS is active already")
        if not self.offers_tls:
            raise RefusedError("502 5.5.1 STARTTLS is not offered")
        await self.meet("smtp.starttls")
        self.put(b"220 2.0.0 Ready to start TLS\r\n")
        self.encrypt()

    # --- the envelope ---

    @described("MAIL FROM:<address>", extended=" [parameters]")
    async def smtp_MAIL(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.2."""
        self._need_hello()
        if self.envelope.mail_from is not None:
            raise RefusedError("503 5.5.1 A message is under way")
        sender, rest = parse_path(arg, "FROM:")
        parameters = parse_mail_parameters(rest, self.offered)
        if parameters.size_bytes > self.fakes.options.size_bytes_max:
            raise RefusedError("552 5.3.4 Message too big")
        if not parameters.smtputf8 and not sender.isascii():
            raise RefusedError("553 5.6.7 A sender beyond ASCII needs SMTPUTF8")
        await self.meet("smtp.mail", sender=sender)
        transaction = self.envelope
        transaction.mail_from, transaction.parameters = sender, parameters
        transaction.smtp_utf8, transaction.began_ns = parameters.smtputf8, time.monotonic_ns()
        self.put(b"250 2.1.0 Sender OK\r\n")

    @described("RCPT TO:<address>", extended=" [parameters]")
    async def smtp_RCPT(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.3."""
        transaction = self.envelope
        if transaction.mail_from is None:
            raise RefusedError("503 5.5.1 Send MAIL first")
        if transaction.chunks is not None:
            raise RefusedError("503 5.5.1 The message has begun")
        # Unless it is taken in the end.
        transaction.refused = True
        recipient, rest = parse_path(arg, "TO:")
        self.recipient = recipient
        parameters = parse_recipient_parameters(rest, self.offered)
        self._may_receive(recipient)
        await self.meet("smtp.rcpt", recipient=recipient)
        transaction.rcpt_tos.append(recipient)
        if rest:
            transaction.recipient_parameters = {**transaction.recipient_parameters, recipient: parameters}
        self.put(b"250 2.1.5 Recipient OK\r\n")

    def _may_receive(self, recipient: str) -> None:
        if not recipient.isascii() and not self.envelope.smtp_utf8:
            raise RefusedError("553 5.6.7 A recipient beyond ASCII needs SMTPUTF8")
        options = self.fakes.options
        if len(self.envelope.rcpt_tos) >= options.recipients_max:
            raise RefusedError("452 4.5.3 Too many recipients")
        if domain_of(recipient) in options.refused_domains:
            raise RefusedError("550 5.7.1 Mail for this domain is not taken here")

    # --- the rest ---

    @described("RSET")
    async def smtp_RSET(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.5."""
        if arg:
            raise RefusedError("501 5.5.4 Syntax: RSET")
        self._set_rset_state()
        self.put(b"250 2.0.0 OK\r\n")

    @described("NOOP [text]")
    async def smtp_NOOP(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.9."""
        del arg
        self.put(b"250 2.0.0 OK\r\n")

    @described("VRFY address")
    async def smtp_VRFY(self, arg: str) -> None:  # noqa: N802
        """Section 7.3: who is a user here is nobody's business."""
        if not arg:
            raise RefusedError("501 5.5.4 Syntax: VRFY address")
        self.put(b"252 2.5.2 Cannot VRFY user, but will take mail and try\r\n")

    async def smtp_EXPN(self, arg: str) -> None:  # noqa: N802
        """Section 4.2.4: known, and not implemented."""
        del arg
        raise RefusedError("502 5.5.1 EXPN is not implemented")

    @described("HELP [command]")
    async def smtp_HELP(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.8: aiosmtpd's texts, with the code of the RFC."""
        methods = self._smtp_methods
        method = methods.get(arg.upper())
        if arg and (method is None or not self._syntax_available(method)):
            raise RefusedError("504 5.5.4 No help for that")
        if method is None:
            names = sorted(name for name, each in methods.items() if self._syntax_available(each))
            self.put(f"214 2.0.0 Commands: {' '.join(names)}\r\n".encode())
            return
        said = vars(method)
        extended = said["__smtp_syntax_extended__"] if self.session.extended_smtp else ""
        self.put(f"214 2.0.0 Syntax: {said['__smtp_syntax__']}{extended}\r\n".encode())

    @described("QUIT")
    async def smtp_QUIT(self, arg: str) -> None:  # noqa: N802
        """Section 4.1.1.10."""
        if arg:
            raise RefusedError("501 5.5.4 Syntax: QUIT")
        await self.meet("smtp.quit")
        self.put(b"221 2.0.0 Bye\r\n")
        self.close("quit")

    def _need_hello(self, verb: str = "HELO or EHLO") -> None:
        if not self.session.host_name:
            raise RefusedError(f"503 5.5.1 Send {verb} first")
