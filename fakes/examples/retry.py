"""Code as anybody's, to be tested: send a message, and try again when the server says that it is for now."""

import smtplib
from email.message import EmailMessage
from email.utils import make_msgid


def send(host, port, *, to, subject="hello", attempts=3):
    """Send one message; a refusal for now (4xx) or a broken line is tried again, a refusal for good (5xx) is not."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@example.com", to, subject
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content("It works.\n")
    for attempt in range(1, attempts + 1):
        try:
            with smtplib.SMTP(host, port, timeout=10) as client:
                client.send_message(message)
        except smtplib.SMTPRecipientsRefused as err:
            code, _ = err.recipients[to]
            if code >= 500 or attempt == attempts:
                raise
        except (smtplib.SMTPServerDisconnected, ConnectionError):
            if attempt == attempts:
                raise
        else:
            return attempt
    return 0
