"""The service's one tree of errors.

Every error answers two questions: ``transient`` (is a retry worth it?) and ``definite`` (did the effect surely not
happen?). ``policy.decide`` reads the first, the send promise reads the second. The docstring is the message that a
user sees; the constructor's argument adds what was wrong, where, and what would be right. A secret never enters.

    MailServiceError
        ConfigError                 a setting is missing or malformed
        InvalidRequestError         the caller's input is refused (HTTP 4xx)
            FieldsError             some of its fields are not what they must be
            NotFoundError           no such thing in this tenant
            InUseError              unsettled work needs what is to be deleted
            ConflictError           an idempotency key is used again with another body
            HostNotAllowedError     a host that a client may not name
            RateLimitError          the tenant has asked too often
        PermissionDeniedError       the caller does not own what it names
        CredentialError             a sealed credential can't be opened
        BlobError                   a stored attachment is missing or unreadable
        MailServerError             a mail server refused, vanished or misbehaved
            ConnectError            no session could be opened: nothing was sent
            AuthenticationError     the server refused the credential
            ImapError               the IMAP server answered NO, BAD or BYE, or broke off
                UidValidityError    a folder's UIDs name other messages by now
            SmtpError               the SMTP server answered 4xx or 5xx before it took the message
            DeliveryUnknownError    the connection broke between the final dot and its reply
        DatabaseError               PostgreSQL was away
        LeaseHeldError              another execution of the same work is alive
        LeaseLostError              this execution no longer owns its job
        WorkerLostError             an execution ended without a word
        TimeLimitError              the soft time limit was reached
        InternalError               a defect of the service
"""

from __future__ import annotations


class MailServiceError(Exception):
    """The e-mail service could not do what was asked."""

    #: Is a later try worth it?
    transient: bool = False
    #: Did the effect surely not happen?
    definite: bool = True

    def __init__(self, detail: str = "", *, transient: bool | None = None, definite: bool | None = None) -> None:
        summary = (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")
        super().__init__(f"{summary}: {detail}" if detail else f"{summary}.")
        self.detail = detail
        if transient is not None:
            self.transient = transient
        if definite is not None:
            self.definite = definite

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling between a worker's processes: rebuild from the detail, not from the message."""
        return type(self), (self.detail,), self.__dict__

    @property
    def code(self) -> str:
        """The class's name in kebab case without its ending: ``smtp``, ``host-not-allowed``."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


class ConfigError(MailServiceError):
    """A setting is missing or malformed."""


class InvalidRequestError(MailServiceError):
    """The request is not valid."""


class FieldsError(InvalidRequestError):
    """Some fields of the request are not valid."""

    def __init__(self, detail: str = "", *, fields: tuple[dict[str, str], ...] = ()) -> None:
        super().__init__(detail)
        #: For each field where it is (a JSON pointer, a parameter or a header) and what would be right.
        self.fields = fields


class NotFoundError(InvalidRequestError):
    """There is no such thing here."""


class InUseError(InvalidRequestError):
    """What is to be deleted is still needed."""

    transient = True


class ConflictError(InvalidRequestError):
    """The idempotency key was used before with another body."""


class HostNotAllowedError(InvalidRequestError):
    """The host is not on the list of hosts that a client may name."""


class RateLimitError(InvalidRequestError):
    """The tenant has asked too often."""

    transient = True

    def __init__(self, detail: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        #: Seconds until the next request is taken.
        self.retry_after_s = retry_after_s


class PermissionDeniedError(MailServiceError):
    """The caller does not own what it names."""


class CredentialError(MailServiceError):
    """A credential can't be opened."""


class BlobError(MailServiceError):
    """A stored attachment can't be read."""


class MailServerError(MailServiceError):
    """The mail server did not do what was asked."""

    transient = True


class ConnectError(MailServerError):
    """No session with the mail server could be opened."""


class AuthenticationError(MailServerError):
    """The mail server refused the credential."""

    transient = False


class ImapError(MailServerError):
    """The IMAP server refused a command or broke off."""

    def __init__(
        self,
        detail: str = "",
        *,
        refused: bool = False,
        transient: bool | None = None,
        definite: bool | None = None,
    ) -> None:
        super().__init__(detail, transient=transient, definite=definite)
        #: It answered NO or BAD: the session can go on.
        self.refused = refused


class UidValidityError(ImapError):
    """The folder's UIDs name other messages by now; nothing was done."""

    transient = False


class SmtpError(MailServerError):
    """The SMTP server refused the message."""

    def __init__(self, detail: str = "", *, reply_code: int | None = None, transient: bool | None = None) -> None:
        super().__init__(detail, transient=transient)
        #: The server's three digits, None when the connection broke (RFC 5321 section 4.2).
        self.reply_code = reply_code


class DeliveryUnknownError(MailServerError):
    """The connection broke after the message was sent and before its reply."""

    transient = False
    definite = False


class DatabaseError(MailServiceError):
    """The database was away."""

    transient = True


class LeaseHeldError(MailServiceError):
    """Another execution of the same work is alive."""


class LeaseLostError(MailServiceError):
    """This execution no longer owns its job."""


class WorkerLostError(MailServiceError):
    """An execution ended without a word."""

    transient = True
    definite = False


class TimeLimitError(MailServiceError):
    """The soft time limit was reached."""

    transient = True


class InternalError(MailServiceError):
    """The service has a defect; its log tells which."""

    @property
    def code(self) -> str:
        """``internal-error``: a word that says by itself whose fault it is."""
        return "internal-error"
