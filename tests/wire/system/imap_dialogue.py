"""Pieces of IMAP dialogues for ``ScriptedServer``, and a client that speaks with it."""

from email_service import imap
from email_service.imap import SyncToken
from email_service.vault import Secret

CANARY = "canary-9f3c"
CAPABILITY = ("C: * CAPABILITY", "S: * CAPABILITY IMAP4rev1 AUTH=PLAIN", "S: TAG OK done")
GREETING = ("S: * OK ready", *CAPABILITY)
#: What the server can do for a user comes with its welcome, or is asked for.
WELCOME = ("S: TAG OK [CAPABILITY IMAP4rev1] welcome",)
LOGIN = (*GREETING, f'C: * LOGIN "ann" "{CANARY}"', *WELCOME)
LOGOUT = ("C: * LOGOUT", "S: * BYE see you", "S: TAG OK done")


def folder(uidvalidity=7, *more, name="INBOX"):
    """The dialogue that opens a folder."""
    return (
        f'C: * EXAMINE "{name}"',
        "S: * FLAGS (\\Seen)",
        "S: * 2 EXISTS",
        f"S: * OK [UIDVALIDITY {uidvalidity}] UIDs are valid",
        *more,
        "S: TAG OK [READ-ONLY] open",
    )


def flags(uid_set, *replies):
    """The dialogue that asks for flags."""
    return (f"C: * UID FETCH {uid_set} (UID FLAGS)", *replies, "S: TAG OK done")


def search(first, found):
    return (f"C: * UID SEARCH UID {first}:[*]", f"S: * SEARCH{found}", "S: TAG OK done")


def sizes(uid_set, **by_uid):
    replies = (f"S: * 1 FETCH (UID {uid[1:]} RFC822.SIZE {size})" for uid, size in by_uid.items())
    return (f"C: * UID FETCH {uid_set} (UID RFC822.SIZE)", *replies, "S: TAG OK done")


def body(uid, raw, *, flags="\\Seen", date="17-Jul-1996 02:44:25 -0700", sequence=1):
    head = f'* {sequence} FETCH (UID {uid} FLAGS ({flags}) INTERNALDATE "{date}" BODY[] {{{len(raw)}}}\r\n'
    return head.encode() + raw + b")\r\n"


def fetch(uid_set, *bodies):
    return (f"C: * UID FETCH {uid_set} (UID FLAGS INTERNALDATE BODY.PEEK[])", *bodies, "S: TAG OK done")


def welcome(*capabilities):
    """A login to a server that can more."""
    return (*LOGIN[:-1], f"S: TAG OK [CAPABILITY IMAP4rev1 {' '.join(capabilities)}] welcome")


def endpoint_of(server, *, encryption="none", password=CANARY, **more):
    return imap.ImapEndpoint(
        **{"host": server.host, "port": server.port, "encryption": encryption, "username": "ann"} | more,
        password=Secret(password),
    )


def opened(server, *, timeout_s=5.0, tls=None, message_bytes_max=1_000_000, **options):
    return imap.open_session(endpoint_of(server, **options), timeout_s, tls=tls, message_bytes_max=message_bytes_max)


class Rows:
    """What is known of a folder; which parts of it were asked for."""

    def __init__(self, **flags):
        self.flags = {int(uid[1:]): tuple(words) for uid, words in flags.items()}
        self.asked = []

    def __call__(self, first, last):
        self.asked.append((first, last))
        return {uid: flags for uid, flags in self.flags.items() if first <= uid <= last}


def changes(server, token=None, known=None, *, batch=100, name="INBOX", **options):
    with opened(server, **options) as mailbox:
        return list(mailbox.changes_since(name, token, known or Rows(), batch=batch))


def token(last_uid, uidvalidity=7, highestmodseq=None, **more):
    return SyncToken(uidvalidity=uidvalidity, last_uid=last_uid, highestmodseq=highestmodseq, **more)
