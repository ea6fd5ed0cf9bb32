"""``deliver``: one message to its recipients, over a session that is kept or a new one. Called by service."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from email_service.errors import DeliveryUnknownError, InvalidRequestError, MailServerError, SmtpError
from email_service.smtp.connections import Connections
from email_service.smtp.endpoint import SmtpEndpoint
from email_service.smtp.session import Session, open_session
from email_service.smtp.transaction import FINAL_REPLY_TIMEOUT_S, Mail, Receipt, StaleSessionError, transact

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


def deliver(
    endpoint: SmtpEndpoint,
    *,
    mail_from: str,
    recipients: Sequence[str],
    data: bytes,
    before_data: Callable[[tuple[str, ...]], None],
    timeout_s: float,
    ascii_data: Callable[[], bytes] | None = None,
    final_reply_timeout_s: float = FINAL_REPLY_TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
    connections: Connections | None = None,
) -> Receipt:
    """Send the message to whom the server accepts; if that is nobody, send nothing.

    ``timeout_s`` bounds each wait, ``before_data`` gets the accepted recipients, ``tls`` replaces the system's trust,
    ``ascii_data`` makes the message for a server without SMTPUTF8 that can't take the addresses in ``data``'s header.

    Raises:
        ConnectError: no session, or no encryption where it is demanded.
        AuthenticationError: the account was refused; transient on a 4xx.
        SmtpError: the message was refused or not sent; surely not delivered.
        DeliveryUnknownError: the final dot was written, and its reply is not known. After anything else that is raised,
            ``before_data``'s own errors and time limits among it, the server surely does not have the message.
    """
    if _CONTROL.search("".join((mail_from, *recipients))):
        raise InvalidRequestError("an envelope address holds a space or a control character")
    mail = Mail(mail_from=mail_from, recipients=tuple(recipients), data=data, ascii_data=ascii_data)
    connections = connections or Connections(idle_s=0)

    def over(session: Session) -> Receipt:
        with _held(session):
            receipt = transact(session, mail, before_data, final_reply_timeout_s=final_reply_timeout_s)
            if receipt.reply_code is None:
                session.quit()
            else:
                connections.give(session, tls)
            return receipt

    kept = connections.take(endpoint, tls)
    if kept is not None:
        try:
            return over(kept)
        except StaleSessionError:
            # Nothing was said of the message yet: a new session is no second try.
            kept.close()
    return over(open_session(endpoint, timeout_s=timeout_s, tls=tls))


@contextmanager
def _held(session: Session) -> Iterator[None]:
    """Nobody keeps a session after an error, nor takes an error behind the final dot for a definite one."""
    try:
        yield
    except SmtpError as err:
        if err.reply_code is not None:
            session.quit()
        session.close()
        raise
    except Exception as err:
        session.close()
        if session.dot_written and not isinstance(err, MailServerError):
            raise DeliveryUnknownError(f"interrupted behind the final dot ({type(err).__name__})") from err
        raise
