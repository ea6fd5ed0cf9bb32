"""SMTP: every verb passes the fault plan, every message taken is in the ledger (RFC 5321).

A port makes a connection for each client:

    handler = Handler(store, ledger, plan, connections, options=SmtpOptions(), certificates=Certificates())
    loop.create_server(lambda: SmtpConnection(handler, loop), host, port)
    loop.create_server(lambda: TlsGate(SmtpConnection(handler, loop), certificates=certificates, loop=loop), ...)

``connections`` and what stands behind it are optional; without certificates STARTTLS is not offered.
aiosmtpd gives the verbs their form, the session, the envelope, HELP and AUTH's mechanisms; ``stream`` replaces its data
path and says why.

reader syntax options trace < stream session handler < conversation < auth < verbs < data < connection
"""

from __future__ import annotations

from fakemail.smtp_server.connection import SmtpConnection
from fakemail.smtp_server.handler import Handler
from fakemail.smtp_server.options import KEYWORDS, SmtpOptionError, SmtpOptions

__all__ = ["KEYWORDS", "Handler", "SmtpConnection", "SmtpOptionError", "SmtpOptions"]
