"""The IMAP state machine (RFC 3501 section 3): which command may come when, and what each answers.

Rule 1: no I/O and no clock; ``feed`` takes bytes, ``events`` gives bytes to write, and what the shell must do.
Rule 2: a command that is malformed, unknown or out of place gets a tagged BAD, and the session goes on.
Rule 3: message numbers change only where RFC 3501 section 7.4.1 allows it: never during FETCH, STORE and SEARCH.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from fakemail.faults import Action
from fakemail.imap_protocol.fetch import flag_list, parse_items, row, sees
from fakemail.imap_protocol.search import Candidate, parse_keys
from fakemail.imap_protocol.syntax import Continue, Cursor, Framer, SyntaxFault, TooLong, chosen, numbers, quoted
from fakemail.mailbox import (
    DELETED,
    SEEN,
    STANDARD_FOLDERS,
    Account,
    Folder,
    MailboxError,
    MailStore,
    NotFoundError,
    canonical,
)

NOT_AUTHENTICATED, AUTHENTICATED, SELECTED, LOGOUT = "not authenticated", "authenticated", "selected", "logout"

#: Command -> the states that it may come in (RFC 3501 section 6).
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("CAPABILITY", "NOOP", "LOGOUT", "ID"), frozenset({NOT_AUTHENTICATED, AUTHENTICATED, SELECTED})),
    **dict.fromkeys(("LOGIN", "AUTHENTICATE"), frozenset({NOT_AUTHENTICATED})),
    **dict.fromkeys(
        ("SELECT", "EXAMINE", "CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE", "LIST", "LSUB", "STATUS", "APPEND",
         "NAMESPACE", "ENABLE", "IDLE"),
        frozenset({AUTHENTICATED, SELECTED}),
    ),
    **dict.fromkeys(
        ("CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH", "STORE", "COPY", "MOVE", "UID"),
        frozenset({SELECTED}),
    ),
}  # fmt: skip
_BEFORE: Final = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE AUTH=PLAIN"
_AFTER: Final = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE NAMESPACE UIDPLUS MOVE UNSELECT IDLE SPECIAL-USE"
_SYSTEM_FLAGS: Final = ("\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen")
_DATE_TIME: Final = re.compile(r"([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_STORE_ITEM: Final = re.compile(r"([+-]?)FLAGS(\.SILENT)?")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Bytes that are written in one go; a longer answer is handed out in pieces, so that memory stays bounded.
CHUNK_BYTES: Final = 131_072


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Wait so long before going on."""

    delay_ms: int


@dataclass(frozen=True, kw_only=True)
class Close:
    """End the connection; ``abrupt`` as if the cable was cut."""

    abrupt: bool = False


@dataclass(frozen=True, kw_only=True)
class Wait:
    """In IDLE: call ``events`` again when mail changes or bytes arrive."""


Event = bytes | Delay | Close | Wait
Note = Callable[..., None]
Decide = Callable[..., Action | None]


class ImapSession:
    """One connection's protocol."""

    def __init__(self, store: MailStore, *, note: Note, decide: Decide) -> None:
        self.state = NOT_AUTHENTICATED
        self._mail = store
        self._note = note
        self._decide = decide
        self._framer = Framer()
        self._account: Account | None = None
        self._folder: Folder | None = None
        self._read_only = False
        #: What this client has been told: UIDs by message number, and the folder's version then.
        self._uids: list[int] = []
        self._version = 0
        #: Messages may have gone of which it could not be told yet.
        self._expunges_due = False
        self._idle_tag: bytes | None = None
        self._auth_tag: bytes | None = None
        #: What a fault wants done before the command that follows.
        self._pending: Sequence[Event] = ()

    @property
    def user(self) -> str:
        """Who is logged in; empty before."""
        return self._account.address if self._account else ""

    def greeting(self) -> bytes:
        """RFC 3501 section 7.1.1."""
        return f"* OK [CAPABILITY {_BEFORE}] fakemail is ready\r\n".encode()

    def feed(self, data: bytes) -> None:
        """More bytes from the client."""
        self._framer.feed(data)

    def events(self) -> Iterator[Event]:
        """What follows from all that has arrived."""
        while self.state != LOGOUT:
            if awaiting := self._idle_tag or self._auth_tag:
                line = self._framer.line()
                if line is None:
                    yield from self._idle_news()
                    return
                yield from self._too_long(line, awaiting) if isinstance(line, TooLong) else self._resume(line)
                continue
            command = self._framer.command()
            if command is None:
                return
            yield from self._dispatch(command)

    # --- dispatch ---

    def _dispatch(self, command: bytes | Continue | TooLong) -> Iterator[Event]:
        if isinstance(command, Continue):
            yield b"+ go ahead\r\n"
            return
        if isinstance(command, TooLong):
            yield from self._too_long(command, command.tag)
            return
        cursor, tag = Cursor(command), b"*"
        try:
            tag = _tag(cursor)
            name = cursor.word()
            names = _names(name, cursor)
            if spoilt := self._faulty(tag, names):
                yield from spoilt
                return
            yield from self._run(tag, name, cursor, called=names[-1])
        except SyntaxFault as err:
            yield tag + f" BAD {err}\r\n".encode("ascii", errors="replace")
        except NotFoundError as err:
            yield tag + f" NO [NONEXISTENT] {err}\r\n".encode("ascii", errors="replace")
        except MailboxError as err:
            yield tag + f" NO [CANNOT] {err}\r\n".encode("ascii", errors="replace")

    def _too_long(self, what: TooLong, tag: bytes) -> Iterator[Event]:
        """The end of a client that knows no limits: it can't be kept in step."""
        self.state = LOGOUT
        yield tag + f" BAD the {what.what} is too long\r\n".encode()
        yield Close()

    def _resume(self, line: bytes) -> Iterator[Event]:
        """The line that a command asked for has come."""
        if self._idle_tag is not None:
            yield from self._idle_ends(line)
            return
        tag, self._auth_tag = self._auth_tag or b"*", None
        yield self._plain(tag, line)

    def _idle_news(self) -> Iterator[Event]:
        if self._idle_tag is not None:
            yield from self._changes(expunges=True)
            yield Wait()

    def _faulty(self, tag: bytes, names: tuple[str, ...]) -> list[Event]:
        """What a fault does instead of the command; a mere delay comes before it."""
        action = self._decide("imap.command", command=names, user=self.user)
        if action is None:
            return []
        events: list[Event] = [Delay(delay_ms=action.delay_ms)] if action.delay_ms else []
        if action.drop:
            self.state = LOGOUT
            return [*events, Close(abrupt=True)]
        if action.reply is None:
            # The command runs after the wait; the shell sleeps on the first event.
            self._pending = events
            return []
        if action.reply.startswith("BYE"):
            self.state = LOGOUT
            return [*events, f"* {action.reply}\r\n".encode(), Close()]
        return [*events, tag + b" " + action.reply.encode() + b"\r\n"]

    def _run(self, tag: bytes, name: str, cursor: Cursor, *, called: str) -> Iterator[Event]:
        yield from self._pending
        self._pending = ()
        if name not in TRANSITIONS:
            raise SyntaxFault(f"unknown command {name}")
        if self.state not in TRANSITIONS[name]:
            raise SyntaxFault(f"{name} is not allowed in the state {self.state!r}")
        handler: Callable[[bytes, Cursor], Iterator[Event]] = getattr(self, f"_{name.lower()}")
        # Before it runs: after LOGOUT nothing runs any more.
        self._note("served", command=called)
        yield from handler(tag, cursor)

    def _ok(self, tag: bytes, text: str, *, expunges: bool = True) -> Iterator[Event]:
        yield from self._changes(expunges=expunges)
        yield tag + f" OK {text}\r\n".encode()

    def _changes(self, *, expunges: bool) -> Iterator[Event]:
        """What has changed since this client was last told (RFC 3501 sections 5.2 and 7.4.1)."""
        folder = self._folder
        if folder is None or (folder.version == self._version and not (expunges and self._expunges_due)):
            return
        out: list[bytes] = []
        known = set(self._uids)
        if expunges:
            out += self._gone(folder)
        new = [uid for uid in folder.uids if uid not in known]
        if new:
            self._uids += new
            out.append(b"* %d EXISTS\r\n" % len(self._uids))
        places = {uid: i for i, uid in enumerate(self._uids, 1)}
        for uid in folder.flagged_since(self._version):
            if uid in places and uid not in new:
                out.append(b"* %d FETCH (UID %d FLAGS %s)\r\n" % (places[uid], uid, flag_list(folder.flags(uid))))
        self._version, self._expunges_due = folder.version, not expunges
        if out:
            yield b"".join(out)

    def _gone(self, folder: Folder) -> list[bytes]:
        """EXPUNGE for each message that is no more, highest number first, so that the others keep theirs."""
        present = set(folder.uids)
        gone = [position for position, uid in enumerate(self._uids) if uid not in present]
        for position in reversed(gone):
            del self._uids[position]
        return [b"* %d EXPUNGE\r\n" % (position + 1) for position in reversed(gone)]

    # --- any state (RFC 3501 section 6.1) ---

    def _capability(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.1.1."""
        cursor.end()
        names = _BEFORE if self.state == NOT_AUTHENTICATED else _AFTER
        yield f"* CAPABILITY {names}\r\n".encode()
        yield from self._ok(tag, "CAPABILITY done")

    def _noop(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.1.2."""
        cursor.end()
        yield from self._ok(tag, "NOOP done")

    _check = _noop

    def _logout(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.1.3."""
        cursor.end()
        self.state, self._folder = LOGOUT, None
        yield b"* BYE fakemail says goodbye\r\n" + tag + b" OK LOGOUT done\r\n"
        yield Close()

    def _id(self, tag: bytes, _cursor: Cursor) -> Iterator[Event]:
        """RFC 2971 section 3.1."""
        yield b'* ID ("name" "fakemail")\r\n'
        yield from self._ok(tag, "ID done")

    # --- not authenticated (section 6.2) ---

    def _login(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.2.3."""
        cursor.space()
        user = cursor.text()
        cursor.space()
        password = cursor.text()
        cursor.end()
        yield self._enter(tag, user, password)

    def _authenticate(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.2.2; initial response by RFC 4959."""
        cursor.space()
        mechanism = cursor.word()
        if mechanism != "PLAIN":
            yield tag + b" NO only AUTH=PLAIN is offered\r\n"
        elif cursor.done:
            self._auth_tag = tag
            yield b"+ \r\n"
        else:
            cursor.space()
            yield self._plain(tag, cursor.data[cursor.at :])

    def _plain(self, tag: bytes, encoded: bytes) -> bytes:
        """RFC 4616 section 2."""
        if encoded == b"*":
            return tag + b" BAD AUTHENTICATE was cancelled\r\n"
        try:
            _, user, password = base64.b64decode(encoded, validate=True).decode().split("\0")
        except (binascii.Error, ValueError):
            return tag + b" BAD base64 of authzid NUL authcid NUL password expected\r\n"
        return self._enter(tag, user, password)

    def _enter(self, tag: bytes, user: str, password: str) -> bytes:
        account = self._mail.login(user, password)
        self._note("login", user=user.lower(), success=account is not None)
        if account is None:
            return tag + b" NO [AUTHENTICATIONFAILED] wrong user or password\r\n"
        self._account, self.state = account, AUTHENTICATED
        return tag + f" OK [CAPABILITY {_AFTER}] logged in\r\n".encode()

    # --- authenticated (section 6.3) ---

    @property
    def _me(self) -> Account:
        assert self._account is not None  # noqa: S101  # TRANSITIONS says so
        return self._account

    @property
    def _here(self) -> Folder:
        assert self._folder is not None  # noqa: S101  # as above
        return self._folder

    def _select(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.1."""
        yield from self._open(tag, cursor, read_only=False)

    def _examine(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.2."""
        yield from self._open(tag, cursor, read_only=True)

    def _open(self, tag: bytes, cursor: Cursor, *, read_only: bool) -> Iterator[Event]:
        cursor.space()
        name = cursor.text()
        cursor.end()
        # A failed SELECT leaves nothing selected.
        self.state, self._folder = AUTHENTICATED, None
        folder = self._me.folder(name)
        self._folder, self._read_only, self.state = folder, read_only, SELECTED
        self._uids, self._version, self._expunges_due = list(folder.uids), folder.version, False
        flags = " ".join(_SYSTEM_FLAGS)
        kept = "" if read_only else flags + " \\*"
        unseen = next((i for i, uid in enumerate(self._uids, 1) if SEEN not in folder.flags(uid)), None)
        lines = [
            f"* FLAGS ({flags})",
            f"* {len(self._uids)} EXISTS",
            "* 0 RECENT",
            *([f"* OK [UNSEEN {unseen}] first unseen message"] if unseen else []),
            f"* OK [UIDVALIDITY {folder.uidvalidity}] UIDs are valid",
            f"* OK [UIDNEXT {folder.uidnext}] next UID",
            f"* OK [PERMANENTFLAGS ({kept})] flags that are kept",
        ]
        yield "".join(f"{line}\r\n" for line in lines).encode()
        mode = "READ-ONLY" if read_only else "READ-WRITE"
        yield tag + f" OK [{mode}] {'EXAMINE' if read_only else 'SELECT'} done\r\n".encode()

    def _create(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.3: a trailing separator is no part of the name."""
        cursor.space()
        name = cursor.text()
        cursor.end()
        self._mail.create(self._me, name.rstrip("/"))
        yield from self._ok(tag, "CREATE done")

    def _delete(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.4."""
        cursor.space()
        name = cursor.text()
        cursor.end()
        self._mail.delete(self._me, name)
        yield from self._ok(tag, "DELETE done")

    def _subscribe(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.6."""
        cursor.space()
        name = cursor.text()
        cursor.end()
        self._me.subscribed.add(self._me.folder(name).name)
        yield from self._ok(tag, "SUBSCRIBE done")

    def _unsubscribe(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.7."""
        cursor.space()
        name = cursor.text()
        cursor.end()
        self._me.subscribed.discard(canonical(name))
        yield from self._ok(tag, "UNSUBSCRIBE done")

    def _list(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.8; options by RFC 6154 section 3."""
        yield from self._names(tag, cursor, "LIST", sorted(self._me.folders))

    def _lsub(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.9."""
        yield from self._names(tag, cursor, "LSUB", sorted(self._me.subscribed & self._me.folders.keys()))

    def _names(self, tag: bytes, cursor: Cursor, word: str, names: Sequence[str]) -> Iterator[Event]:
        cursor.space()
        special = word == "LIST" and _special_use(cursor)
        if special:
            cursor.space()
        reference = cursor.astring().decode("utf-8", errors="replace")
        cursor.space()
        pattern = reference + cursor.list_mailbox().decode("utf-8", errors="replace")
        if word == "LIST" and cursor.take(b" RETURN ") and not _special_use(cursor):
            raise SyntaxFault("options expected after RETURN")
        cursor.end()
        if pattern == reference == "":
            yield f'* {word} (\\Noselect) "/" ""\r\n'.encode()
        wanted = re.compile("".join({"*": ".*", "%": "[^/]*"}.get(c, re.escape(c)) for c in pattern))
        for name in names:
            # INBOX is INBOX in any case (section 5.1).
            fits = wanted.fullmatch(name) or (name == "INBOX" and pattern.upper() == name)
            if fits and (STANDARD_FOLDERS.get(name) or not special):
                yield self._name_line(word, name, names)
        yield from self._ok(tag, f"{word} done")

    @staticmethod
    def _name_line(word: str, name: str, names: Sequence[str]) -> bytes:
        children = any(other.startswith(f"{name}/") for other in names)
        flags = ["\\HasChildren" if children else "\\HasNoChildren", STANDARD_FOLDERS.get(name)]
        return f'* {word} ({" ".join(filter(None, flags))}) "/" '.encode() + quoted(name) + b"\r\n"

    def _status(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.10."""
        cursor.space()
        folder = self._me.folder(cursor.text())
        cursor.space()
        cursor.need(b"(")
        values = []
        while not cursor.take(b")"):
            name = cursor.word()
            values.append(f"{name} {self._status_value(folder, name)}")
            cursor.take(b" ")
        cursor.end()
        yield b"* STATUS " + quoted(folder.name) + f" ({' '.join(values)})\r\n".encode()
        yield from self._ok(tag, "STATUS done")

    @staticmethod
    def _status_value(folder: Folder, name: str) -> int:
        match name:
            case "MESSAGES":
                return len(folder.uids)
            case "UIDNEXT":
                return folder.uidnext
            case "UIDVALIDITY":
                return folder.uidvalidity
            case "UNSEEN":
                return sum(SEEN not in folder.flags(uid) for uid in folder.uids)
            case "RECENT":
                return 0
        raise SyntaxFault(f"unknown STATUS item {name}")

    def _append(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.3.11; APPENDUID by RFC 4315 section 3."""
        cursor.space()
        name = cursor.text()
        cursor.space()
        flags = [_flag(flag) for flag in cursor.flags()] if cursor.peek() == b"(" else []
        cursor.take(b" ")
        received = _date_time(cursor.string().decode("ascii", errors="replace")) if cursor.peek() == b'"' else None
        cursor.take(b" ")
        raw = cursor.string()
        cursor.end()
        try:
            folder = self._me.folder(name)
        except NotFoundError:
            yield tag + b" NO [TRYCREATE] there is no such folder\r\n"
            return
        uid = self._mail.store(folder, raw, flags=flags, received=received)
        yield from self._ok(tag, f"[APPENDUID {folder.uidvalidity} {uid}] APPEND done")

    def _namespace(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 2342 section 5."""
        cursor.end()
        yield b'* NAMESPACE (("" "/")) NIL NIL\r\n'
        yield from self._ok(tag, "NAMESPACE done")

    def _enable(self, tag: bytes, _cursor: Cursor) -> Iterator[Event]:
        """RFC 5161 section 3.1: what is not known is left out of the answer."""
        yield b"* ENABLED\r\n"
        yield from self._ok(tag, "ENABLE done")

    def _idle(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 2177 section 3."""
        cursor.end()
        self._idle_tag = tag
        yield b"+ idling\r\n"

    def _idle_ends(self, line: bytes) -> Iterator[Event]:
        tag, self._idle_tag = self._idle_tag or b"*", None
        if line.upper() != b"DONE":
            yield tag + b" BAD DONE expected\r\n"
            return
        yield from self._ok(tag, "IDLE done")

    # --- selected (section 6.4) ---

    def _close(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.4.2: expunges without saying so."""
        cursor.end()
        if not self._read_only:
            self._here.expunge(uid for uid in self._uids if DELETED in self._here.flags(uid))
        yield from self._leave(tag, "CLOSE")

    def _unselect(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3691 section 2."""
        cursor.end()
        yield from self._leave(tag, "UNSELECT")

    def _leave(self, tag: bytes, word: str) -> Iterator[Event]:
        self.state, self._folder, self._uids = AUTHENTICATED, None, []
        yield tag + f" OK {word} done\r\n".encode()

    def _expunge(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.4.3."""
        cursor.end()
        yield from self._remove(tag, self._uids)

    def _remove(self, tag: bytes, uids: Sequence[int]) -> Iterator[Event]:
        if self._read_only:
            yield tag + b" NO the folder is read-only\r\n"
            return
        self._here.expunge([uid for uid in uids if DELETED in self._here.flags(uid)])
        yield from self._ok(tag, "EXPUNGE done")

    def _uid(self, tag: bytes, cursor: Cursor) -> Iterator[Event]:
        """RFC 3501 section 6.4.8; UID EXPUNGE by RFC 4315 section 2.1."""
        cursor.space()
        word = cursor.word()
        if word == "EXPUNGE":
            cursor.space()
            uids = chosen(self._uids, cursor.sequence_set())
            cursor.end()
            yield from self._remove(tag, uids)
            return
        if word not in {"FETCH", "STORE", "SEARCH", "COPY", "MOVE"}:
            raise SyntaxFault(f"unknown command UID {word}")
        handler: Callable[..., Iterator[Event]] = getattr(self, f"_{word.lower()}")
        yield from handler(tag, cursor, by_uid=True)

    def _chosen(self, cursor: Cursor, *, by_uid: bool) -> list[tuple[int, int]]:
        """(number, UID) of the messages that the set at the cursor names."""
        text = cursor.sequence_set()
        if by_uid:
            wanted = set(chosen(self._uids, text))
            return [(i, uid) for i, uid in enumerate(self._uids, 1) if uid in wanted]
        return [(i, self._uids[i - 1]) for i in numbers(text, len(self._uids))]

    def _mark(self, uid: int, flags: frozenset[str]) -> None:
        """Change flags by this client's own command, whose answer tells it: the news need not repeat it."""
        told = self._here.version == self._version
        self._here.set_flags(uid, flags)
        if told:
            self._version = self._here.version

    def _search(self, tag: bytes, cursor: Cursor, *, by_uid: bool = False) -> Iterator[Event]:
        """RFC 3501 section 6.4.4."""
        cursor.space()
        if cursor.data[cursor.at : cursor.at + 8].upper() == b"CHARSET ":
            cursor.at += 8
            charset = cursor.text().upper()
            if charset not in {"US-ASCII", "UTF-8"}:
                yield tag + b" NO [BADCHARSET (US-ASCII UTF-8)] unknown character set\r\n"
                return
            cursor.space()
        key = parse_keys(cursor, self._uids)
        cursor.end()
        found = []
        for number, uid in enumerate(self._uids, 1):
            mail = self._here.mail(uid)
            if mail is not None and key(Candidate(number=number, uid=uid, folder=self._here, mail=mail)):
                found.append(uid if by_uid else number)
        yield ("* SEARCH" + "".join(f" {n}" for n in found) + "\r\n").encode()
        yield from self._ok(tag, "SEARCH done", expunges=by_uid)

    def _fetch(self, tag: bytes, cursor: Cursor, *, by_uid: bool = False) -> Iterator[Event]:
        """RFC 3501 section 6.4.5."""
        cursor.space()
        messages = self._chosen(cursor, by_uid=by_uid)
        cursor.space()
        items = parse_items(cursor.data[cursor.at :])
        names = {item.name for item in items}
        if by_uid and "UID" not in names:
            items = [*parse_items(b"UID"), *items]
        marks = sees(items) and not self._read_only
        chunk = bytearray()
        for number, uid in messages:
            mail = self._here.mail(uid)
            if mail is None:
                continue
            if marks and SEEN not in self._here.flags(uid):
                self._mark(uid, self._here.flags(uid) | {SEEN})
                shown = items if "FLAGS" in names else [*items, *parse_items(b"FLAGS")]
            else:
                shown = items
            chunk += row(number, uid, self._here, mail, shown)
            if len(chunk) >= CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        if chunk:
            yield bytes(chunk)
        yield from self._ok(tag, "FETCH done", expunges=by_uid)

    def _store(self, tag: bytes, cursor: Cursor, *, by_uid: bool = False) -> Iterator[Event]:
        """RFC 3501 section 6.4.6."""
        cursor.space()
        messages = self._chosen(cursor, by_uid=by_uid)
        cursor.space()
        match = _STORE_ITEM.fullmatch(cursor.word())
        if match is None:
            raise SyntaxFault("FLAGS, +FLAGS or -FLAGS expected, with or without .SILENT")
        cursor.space()
        given = frozenset(_flag(flag) for flag in cursor.flags())
        cursor.end()
        if self._read_only:
            yield tag + b" NO the folder is read-only\r\n"
            return
        out = []
        for number, uid in messages:
            before = self._here.flags(uid)
            after = {"+": before | given, "-": before - given, "": given}[match[1]]
            self._mark(uid, after)
            if not match[2]:
                label = b"UID %d " % uid if by_uid else b""
                out.append(b"* %d FETCH (%sFLAGS %s)\r\n" % (number, label, flag_list(self._here.flags(uid))))
        if out:
            yield b"".join(out)
        yield from self._ok(tag, "STORE done", expunges=by_uid)

    def _copy(self, tag: bytes, cursor: Cursor, *, by_uid: bool = False) -> Iterator[Event]:
        """RFC 3501 section 6.4.7; COPYUID by RFC 4315 section 3."""
        yield from self._transfer(tag, cursor, "COPY", by_uid=by_uid)

    def _move(self, tag: bytes, cursor: Cursor, *, by_uid: bool = False) -> Iterator[Event]:
        """RFC 6851 section 3.1: the COPYUID comes untagged, before the EXPUNGEs."""
        yield from self._transfer(tag, cursor, "MOVE", by_uid=by_uid)

    def _transfer(self, tag: bytes, cursor: Cursor, word: str, *, by_uid: bool) -> Iterator[Event]:
        cursor.space()
        messages = self._chosen(cursor, by_uid=by_uid)
        cursor.space()
        name = cursor.text()
        cursor.end()
        if word == "MOVE" and self._read_only:
            yield tag + b" NO the folder is read-only\r\n"
            return
        try:
            target = self._me.folder(name)
        except NotFoundError:
            yield tag + b" NO [TRYCREATE] there is no such folder\r\n"
            return
        pairs = []
        for _, uid in messages:
            mail = self._here.mail(uid)
            if mail is not None:
                new = self._mail.store(target, mail.raw, flags=self._here.flags(uid), received=mail.received)
                pairs.append((uid, new))
        code = ""
        if pairs:
            old, made = (",".join(str(p[i]) for p in pairs) for i in (0, 1))
            code = f"[COPYUID {target.uidvalidity} {old} {made}] "
        if word == "MOVE":
            yield f"* OK {code}moved\r\n".encode()
            self._here.expunge([uid for uid, _ in pairs])
            code = ""
        yield from self._ok(tag, f"{code}{word} done")


def _flag(text: str) -> str:
    """A system flag in the spelling of RFC 3501 section 2.3.2; a keyword as it is."""
    known = {flag.lower(): flag for flag in _SYSTEM_FLAGS}
    if text.startswith("\\") and text.lower() not in known:
        raise SyntaxFault(f"{text} is no flag that a client may set")
    return known.get(text.lower(), text)


def _names(name: str, cursor: Cursor) -> tuple[str, ...]:
    """What a fault may call the command, the fullest last: FETCH and UID FETCH are both right for the latter."""
    word = re.match(rb" ([A-Za-z]+)", cursor.data[cursor.at : cursor.at + 32])
    if name != "UID" or word is None:
        return (name,)
    inner = word[1].decode("ascii").upper()
    return (inner, f"UID {inner}")


def _special_use(cursor: Cursor) -> bool:
    """Step over ``(SPECIAL-USE)``; False where no options are."""
    if not cursor.take(b"("):
        return False
    if cursor.word() != "SPECIAL-USE":
        raise SyntaxFault("the only option is SPECIAL-USE")
    cursor.need(b")")
    return True


def _tag(cursor: Cursor) -> bytes:
    """RFC 3501 section 9: a tag holds no '+'."""
    tag = cursor.atom()
    if b"+" in tag:
        raise SyntaxFault("a tag must not hold '+'")
    cursor.space()
    return tag


def _date_time(text: str) -> datetime:
    """RFC 3501 section 9, date-time."""
    match = _DATE_TIME.fullmatch(text)
    if match is None or match[2].title() not in _MONTHS:
        raise SyntaxFault('date-time expected, such as "01-Feb-2026 10:00:00 +0000"')
    offset = timedelta(hours=int(match[8]), minutes=int(match[9])) * (1 if match[7] == "+" else -1)
    day, year, month = int(match[1]), int(match[3]), _MONTHS.index(match[2].title()) + 1
    try:
        return datetime(year, month, day, int(match[4]), int(match[5]), int(match[6]), tzinfo=timezone(offset))
    except ValueError as err:
        raise SyntaxFault(f"there is no {text}") from err
