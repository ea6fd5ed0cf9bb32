"""The IMAP contract: what a client may rely on, as cases that any server can be asked.

Owns: the cases, by area, and what each peer is known to lack.
Never: knows a server: a case gets a box with a fresh user, and says what the RFC says.
Called by: test_imap_contract and matrix.
"""

from contract import changing, fetching, mailboxes, malformed, modseq, news, searching, selecting, session, structure

__all__ = [
    "changing",
    "fetching",
    "mailboxes",
    "malformed",
    "modseq",
    "news",
    "searching",
    "selecting",
    "session",
    "structure",
]
