"""The HTTP API: authenticate, validate, enqueue, answer 202 with a task id; show what became of it, and what was read.

Nothing here talks to a mail server. Callers: __main__ serves ``wsgi``, makes tokens and prints the document.

routing    a row per route: what it takes, what it answers
clients, messages, work   the routes
schemas, answers   what comes in, what goes out
app        Flask around them: authentication, limits, headers, health
auth, limits, cors, problems   who asks, how often, from where, and why not
openapi    the document of all that
"""

from email_service.api.app import create_app, wsgi
from email_service.api.openapi import document
from email_service.tokens import JWT_ALGORITHM, issue_token

__all__ = ["JWT_ALGORITHM", "create_app", "document", "issue_token", "wsgi"]
