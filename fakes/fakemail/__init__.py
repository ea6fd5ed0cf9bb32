"""Fake IMAP and SMTP servers for tests: deterministic mail, faults as data, a ledger of all that happened.

FakemailError
    UsageError          the command line can't be understood (command_line)
    ConfigError         a configuration file can't be used (config)
    ServingError        a port can't be had (serving)
    FaultError          a fault description can't be understood (faults)
    MailboxError        mail or a folder that can't be had (mailbox)
        NotFoundError   no such user or folder
        ConflictError   it exists already, or can't be removed
    MailFileError       a Maildir or an mbox file can't be read (files)
    CertificateError    there is no such certificate (tls)
    SmtpOptionError     an option of the SMTP server can't be used (smtp_server)
    RefusedError        an SMTP command is answered with 4xx or 5xx (smtp_server)
    RequestError        a request to the control can't be carried out (control)
        TooLongError    its body is too long
    ControlError        the control refused a request, or couldn't be reached (client)
"""


class FakemailError(Exception):
    """Root of every error that fakemail raises on purpose."""
