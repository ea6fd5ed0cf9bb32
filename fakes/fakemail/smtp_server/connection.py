"""SmtpConnection: the conversation with all its verbs, as a port makes one for each client.

Never does: anything that its parts don't do. Called by: the factory of a port.
"""

from __future__ import annotations

from fakemail.smtp_server.data import Data


class SmtpConnection(Data):
    """One client; ``SmtpConnection(handler, loop)`` is all that a port needs.

    Behind a TlsGate it speaks TLS from the first byte; it knows a transport that is encrypted already as well.
    """


# aiosmtpd's rule of names: what is called smtp_X is the verb X.
SmtpConnection._smtp_methods = {  # noqa: SLF001  # its own table, which can be made only now
    name.removeprefix("smtp_"): getattr(SmtpConnection, name)
    for name in dir(SmtpConnection)
    if name.startswith("smtp_")
}
