"""Fake IMAP and SMTP servers for tests: deterministic mail, faults as data, a ledger of all that happened.

FakemailError
    FaultError          a fault description that can't be understood (faults)
    MailboxError        mail or a folder that can't be had (mailbox)
        NotFoundError   no such user or folder
        ConflictError   it exists already, or can't be removed
    ConfigError         a configuration file or an option that can't be used (__main__)
    ControlError        the control refused a request, or couldn't be reached (client)
"""


class FakemailError(Exception):
    """Root of every error that fakemail raises on purpose."""
