"""What a configuration file says. Pure data. Called by: reading (makes it), start and ``__main__`` (act on it)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fakemail import FakemailError
from fakemail.faults import Fault
from fakemail.timeline import Weights


class ConfigError(FakemailError):
    """A configuration file can't be used."""


@dataclass(frozen=True, kw_only=True)
class Seeding:
    """Synthesised mail of a folder."""

    #: Messages.
    count: int
    #: None: the seed of all.
    seed: int | None = None
    #: A key of ``synthesis.PROFILES``.
    profile: str = "small"
    #: Up to so many UIDs are missing between runs of a few.
    gaps: int = 0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What happens to a folder by itself."""

    #: Events that have happened before the first client comes.
    steps: int = 0
    #: Events that go on happening; 0: none.
    per_s: float = 0
    #: How likely each kind of event is.
    weights: Weights = field(default_factory=Weights)
    #: Of the mail that arrives.
    profile: str = "small"


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """A folder and what is in it."""

    #: Decoded, as the control says it.
    name: str
    seeding: Seeding | None = None
    #: A Maildir or an mbox file.
    load: Path | None = None
    timeline: Timeline | None = None
    #: File and line, for errors that come later.
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class UserConfig:
    """A user."""

    address: str
    password: str = field(repr=False)
    #: What XOAUTH2 accepts; None: the password.
    token: str | None = field(default=None, repr=False)
    folders: tuple[FolderConfig, ...] = ()
    #: File and line, for errors that come later.
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What a client may ask for; None leaves it to the servers."""

    #: At once, in all.
    connections: int | None = None
    #: At once, of one user and protocol.
    connections_per_user: int | None = None
    #: Of an IMAP command without its literals.
    line_bytes: int | None = None
    #: Of all literals of an IMAP command.
    literal_bytes: int | None = None
    #: Of a message that SMTP takes (RFC 1870).
    message_bytes: int | None = None
    #: IMAP clients that say nothing for so long are logged out (RFC 3501 section 5.4).
    idle_timeout_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What a server can."""

    #: Capabilities or EHLO keywords that it doesn't have.
    without: frozenset[str] = frozenset()
    #: Passwords are refused before TLS.
    require_tls: bool = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that a file says."""

    #: Of mail and chance; None leaves it to the command line.
    seed: int | None = None
    users: tuple[UserConfig, ...] = ()
    #: In order: the file's own, then those of its presets.
    faults: tuple[Fault, ...] = ()
    limits: LimitsConfig = LimitsConfig()
    imap: ServerConfig = ServerConfig()
    smtp: ServerConfig = ServerConfig()

    @property
    def running(self) -> tuple[tuple[str, str, Timeline], ...]:
        """Address, folder and timeline of each that goes on by itself: for whoever has a clock."""
        every = ((user.address, folder.name, folder.timeline) for user in self.users for folder in user.folders)
        return tuple((address, name, line) for address, name, line in every if line is not None and line.per_s)
