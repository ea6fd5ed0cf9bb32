"""What a command may see and change: the connection's state, and the forms of its answer.

Owns: the states, options, the answer's forms. Never does: I/O. Called by: session (makes it), every command.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from fakemail.faults import Action
from fakemail.folder import Folder
from fakemail.imap_protocol import mutf7
from fakemail.imap_protocol.events import Event
from fakemail.imap_protocol.syntax import LINE_BYTES_MAX, LITERAL_BYTES_MAX, Cursor
from fakemail.imap_protocol.view import View
from fakemail.mailbox import Account, MailStore, NotFoundError, canonical

#: The states of RFC 3501 section 3.
NOT_AUTHENTICATED, AUTHENTICATED, SELECTED, LOGOUT = "not authenticated", "authenticated", "selected", "logout"

Note = Callable[..., None]
Decide = Callable[..., Action | None]


@dataclass(frozen=True, kw_only=True)
class ImapOptions:
    """How a server behaves towards every client."""

    #: Capabilities that are not offered, and whose commands don't exist.
    without: frozenset[str] = frozenset()
    #: A TLS handshake can be begun by STARTTLS.
    starttls: bool = False
    #: Passwords are refused before TLS (LOGINDISABLED).
    require_tls: bool = False
    line_bytes_max: int = LINE_BYTES_MAX
    #: All literals of one command together.
    literal_bytes_max: int = LITERAL_BYTES_MAX


@dataclass(frozen=True, kw_only=True)
class Ok:
    """A command has succeeded."""

    #: For people; never empty.
    text: str
    #: Response code without brackets (RFC 3501 section 7.1).
    code: str = ""
    #: Message numbers may change before the tagged answer (section 7.4.1).
    expunges: bool = True
    #: With CONDSTORE on the code is HIGHESTMODSEQ: how far the client is now (RFC 7162 sections 3.2.7 and 3.2.8).
    highest: bool = False
    #: Done behind the tagged answer.
    then: Event | None = None


class Refused(Exception):  # noqa: N818  # not one for users of fakemail: it becomes a NO
    """The command is understood and can't be done."""

    def __init__(self, text: str, *, code: str = "") -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command as it came."""

    tag: bytes
    #: Upper case.
    name: str
    cursor: Cursor
    #: It was a UID command: messages are named by UID and their answers say the UID.
    by_uid: bool = False


@dataclass(kw_only=True)
class Context:
    """One connection."""

    mail: MailStore
    options: ImapOptions
    #: An entry for the ledger: note(kind, **facts).
    note: Note
    #: Asks the fault plan: decide(point, **context).
    decide: Decide
    #: Whether any fault waits at a point: a cheap question before a long loop.
    active: Callable[[str], bool]
    #: Called when the selected folder has news.
    wake: Callable[[], None]
    tls: bool = False
    state: str = NOT_AUTHENTICATED
    account: Account | None = None
    view: View | None = None
    #: CONDSTORE and QRESYNC, once they are on (RFC 7162 section 3.1).
    enabled: set[str] = field(default_factory=set)
    #: Facts for the ledger's entry of the command at work.
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """Who is logged in; empty before."""
        return self.account.address if self.account else ""

    @property
    def folder_name(self) -> str:
        """What is selected; empty if nothing is."""
        return self.view.folder.name if self.view else ""

    def has(self, capability: str) -> bool:
        """Whether a capability is offered by this server."""
        return capability not in self.options.without

    @property
    def me(self) -> Account:
        """Who is logged in."""
        assert self.account is not None  # noqa: S101  # the table of commands says so
        return self.account

    @property
    def here(self) -> View:
        """What is selected."""
        assert self.view is not None  # noqa: S101  # as above
        return self.view

    def leave(self) -> None:
        """Let go of the selected folder."""
        if self.view is not None:
            self.view.leave()
            self.view = None
        if self.state == SELECTED:
            self.state = AUTHENTICATED

    def left(self) -> Iterator[bytes]:
        """Let go of the selected folder and say so (RFC 7162 section 3.2.11)."""
        self.leave()
        if self.has("CONDSTORE"):
            yield b"* OK [CLOSED] The previous folder is not selected any more\r\n"

    def writable(self) -> View:
        """What is selected, if it may be changed."""
        if self.here.read_only:
            raise Refused("the folder was opened read-only", code="READ-ONLY")
        return self.here

    def folder(self, name: str) -> Folder:
        """The folder of this name; NotFoundError if there is none."""
        if canonical(name) in self.me.placeholders:
            raise NotFoundError(f"{name} holds no mail, only other folders")
        return self.me.folder(name)


#: Yields events, may receive lines, returns its success.
Answer = Generator[Event, bytes, Ok]
Handler = Callable[[Context, Request], Answer]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A row of the transition table."""

    #: States that it may come in.
    states: frozenset[str]
    run: Handler
    #: Switched off together with this capability.
    capability: str | None = None
    #: Where it is defined.
    section: str


def mailbox_name(cursor: Cursor) -> str:
    """A folder's name at the cursor, decoded."""
    return decoded_name(cursor.text())


def decoded_name(text: str) -> str:
    """A folder's name as it was meant (RFC 3501 section 5.1.3)."""
    try:
        return mutf7.decode(text)
    except ValueError as err:
        raise Refused(str(err), code="CANNOT") from err


def codes(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Untagged OK responses with their codes and human text."""
    return "".join(f"* OK [{code}] {text}\r\n" for code, text in pairs).encode()
