"""IMAP commands by the grammar, of every kind, and ways to spoil them.

Owns: drafts (tokens that know how they may be written), commands, mutations of tokens and of bytes, cutting.
Never does: send anything, or know what a server answers.
Called by: the IMAP targets.

A draft is rendered as *pieces*: what a client may send at once. Behind each piece but the last it waits for a
continuation request: a synchronising literal, IDLE's DONE, a line of SASL.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

USERS = {b"ann@example.test": b"canary-password", b"bob@example.test": b"other-password"}
#: Those with mail in them more often than the others.
FOLDERS = (
    *(b"INBOX", b"Archive", b"Many", b"Odd") * 3, b"inbox", b"Sent", b"Archive/2024", b"Empty", b"Trash", b"Drafts",
)  # fmt: skip
STRANGE_FOLDERS = (
    b"No such", b"Entw&APw-rfe", b"&Jjo-", b"&bad", b"a/b/c/d", b"/", b"//", b"x/", b"", b"%", b"*", b"\xc3\xa4",
    b"a" * 255, b"a" * 300, b"INBOX/Sub", b'quo"te', b"back\\slash", b"(paren)", b"NIL", b"{3}", b"new\r\nline",
)  # fmt: skip
FLAGS = (b"\\Seen", b"\\Deleted", b"\\Flagged", b"\\Answered", b"\\Draft", b"$Forwarded", b"keyword", b"\\seen")
STRANGE_FLAGS = (b"\\Recent", b"\\*", b"\\Nonsense", b"\\", b"a" * 500, b"NIL")
PATTERNS = (b"*", b"%", b"INBOX", b"Archive/%", b"*a*a*a*a*a*a*a*a*b", b"%/%/%/%", b"", b"*%*%*%*%*%*%x", b"In%ox")
HUGE = (
    b"0", b"4294967295", b"4294967296", b"18446744073709551615", b"99999999999999999999999", b"-1", b"9" * 400,
    b"9" * 5000,
)  # fmt: skip
DATES = (b"1-Jan-2024", b'"01-Feb-2026"', b"31-Feb-2024", b"1-Jan-0000", b"99-Foo-99999", b"29-Feb-2000", b"1-Jan-9999")
DATE_TIMES = (
    b'"01-Feb-2026 10:00:00 +0000"', b'" 1-Feb-2026 10:00:00 -0130"', b'"31-Feb-2026 10:00:00 +0000"',
    b'"01-Jan-0001 00:00:00 +1400"', b'"31-Dec-9999 23:59:59 -1200"', b'"01-Feb-2026 10:00:00 +9999"',
)  # fmt: skip
MESSAGES = (
    b"From: a@b.test\r\nSubject: one\r\n\r\nBody\r\n",
    b"",
    b"\r\n",
    b"no header at all",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n",
    b"Content-Type: multipart/mixed\r\n\r\n--\r\n--\r\n",
    b"Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\n",
    b"Subject: =?utf-8?q?=ff?=\r\nFrom: <@\r\nTo: a:b,c;\r\nDate: x\r\n\r\n\xff\x00\xfe",
    b"A: " + b"x" * 3000 + b"\r\n\r\n" + b"y" * 3000,
)
#: Of the folders under test, so that QRESYNC is about something; a target fills it.
UIDVALIDITIES: list[int] = []
#: Commands of which a run must have seen one succeed, or it was no test of them.
COMMANDS: dict[str, Callable[[Draft], None]] = {}


@dataclass(kw_only=True)
class Token:
    """A part of a command."""

    data: bytes
    #: raw: as it is; astring: atom, quoted string or literal; string: no atom; literal: a literal of either kind.
    form: str = "raw"


@dataclass(kw_only=True)
class Draft:
    """A command in the making."""

    chance: Random
    tag: bytes
    name: str = ""
    tokens: list[Token] = field(default_factory=list)
    #: Lines that are sent when the server asks: SASL, DONE.
    lines: list[bytes] = field(default_factory=list)

    def raw(self, *data: bytes) -> Draft:
        """Text as it is."""
        self.tokens += [Token(data=each) for each in data]
        return self

    def string(self, data: bytes, form: str = "astring") -> Draft:
        """A string in any of its forms."""
        self.tokens.append(Token(data=data, form=form))
        return self

    def literal(self, data: bytes) -> Draft:
        """A literal of either kind."""
        self.tokens.append(Token(data=data, form="literal"))
        return self

    def listed(self, items: Sequence[bytes]) -> Draft:
        """Words in parentheses."""
        self.raw(b"(")
        for at, item in enumerate(items):
            self.raw(*([b" "] if at else []), item)
        return self.raw(b")")

    def folder(self) -> Draft:
        """A name, mostly of a folder that is there."""
        return self.string(self.chance.choice(FOLDERS if self.chance.random() < 0.85 else STRANGE_FOLDERS))

    def pieces(self) -> list[bytes]:
        """What is sent at once, each behind a continuation request."""
        pieces, current = [], self.tag + b" "
        for token in self.tokens:
            current, done = _written(self.chance, current, token)
            pieces += done
        return [*pieces, current + b"\r\n", *self.lines]


def _written(chance: Random, current: bytes, token: Token) -> tuple[bytes, list[bytes]]:
    if token.form == "raw":
        return current + token.data, []
    forms = ["literal+", "literal"]
    if token.form != "literal" and re.fullmatch(rb"[^\x00-\x1f\x7f-\xff]*", token.data):
        forms += ["quoted"] * 4
    if token.form == "astring" and re.fullmatch(rb"[A-Za-z0-9@.&/_-]+", token.data) and token.data.upper() != b"NIL":
        forms += ["atom"] * 6
    form = chance.choice(forms)
    if form == "atom":
        return current + token.data, []
    if form == "quoted":
        return current + b'"' + re.sub(rb'(["\\])', rb"\\\1", token.data) + b'"', []
    if form == "literal+":
        return current + b"{%d+}\r\n%s" % (len(token.data), token.data), []
    return token.data, [current + b"{%d}\r\n" % len(token.data)]


# --- the commands ---


def command(draft: Draft, name: str | None = None) -> Draft:
    """Fill a draft with a command."""
    draft.name = name or draft.chance.choice(sorted(COMMANDS))
    COMMANDS[draft.name](draft)
    return draft


def _row(*names: str) -> Callable[[Callable[[Draft], None]], Callable[[Draft], None]]:
    def add(make: Callable[[Draft], None]) -> Callable[[Draft], None]:
        for name in names:
            COMMANDS[name] = make
        return make

    return add


@_row("CAPABILITY", "NOOP", "LOGOUT", "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "NAMESPACE")
def _bare(draft: Draft) -> None:
    draft.raw(draft.name.encode())


@_row("IDLE")
def _idle(draft: Draft) -> None:
    draft.raw(b"IDLE")
    draft.lines.append(draft.chance.choice((b"DONE\r\n", b"done\r\n", b"DONE\r\n", b"NONSENSE\r\n", b"\r\n")))


@_row("ID")
def _id(draft: Draft) -> None:
    draft.raw(b"ID ")
    if draft.chance.random() < 0.5:
        draft.raw(b"NIL")
    else:
        draft.raw(b"(").string(b"name", "string").raw(b" ").string(b"fuzz", "string").raw(b")")


@_row("ENABLE")
def _enable(draft: Draft) -> None:
    draft.raw(b"ENABLE ", draft.chance.choice((b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"X-NOTHING CONDSTORE")))


@_row("LOGIN")
def _login(draft: Draft) -> None:
    user, password = draft.chance.choice(sorted(USERS.items()))
    draft.raw(b"LOGIN ").string(user).raw(b" ").string(draft.chance.choice((password,) * 9 + (b"wrong",)))


@_row("AUTHENTICATE")
def _authenticate(draft: Draft) -> None:
    user, password = draft.chance.choice(sorted(USERS.items()))
    plain = base64.b64encode(b"\0".join((b"", user, password)))
    bearer = base64.b64encode(b"user=%s\1auth=Bearer %s\1\1" % (user, draft.chance.choice((password, b"expired"))))
    junk = draft.chance.choice((b"*", b"", b"=", b"!!!!", b"AAAA", b"A" * 4000, base64.b64encode(b"a\0b"), b"\xff\xff"))
    mechanism, answer = draft.chance.choice(
        ((b"PLAIN", plain), (b"XOAUTH2", bearer), (b"PLAIN", junk), (b"XOAUTH2", junk))
    )
    draft.raw(b"AUTHENTICATE ", mechanism)
    if draft.chance.random() < 0.5:
        draft.raw(b" ", answer or b"=")
    else:
        draft.lines.append(answer + b"\r\n")
    # XOAUTH2 tells what went wrong as a challenge, which wants an empty line.
    draft.lines.append(b"\r\n")


@_row("SELECT", "EXAMINE")
def _select(draft: Draft) -> None:
    draft.raw(draft.name.encode(), b" ").folder()
    if draft.chance.random() < 0.25:
        validity = b"%d" % draft.chance.choice((99, *UIDVALIDITIES))
        known = b"1)", b"3 1:40)", b"5 1:20 (1,5,9 1,5,9))", b"4294967296)", b"1 (1 1))"
        draft.raw(
            b" (", draft.chance.choice((b"CONDSTORE", b"QRESYNC (%s " % validity + draft.chance.choice(known))), b")"
        )


@_row("CREATE")
def _create(draft: Draft) -> None:
    draft.raw(b"CREATE ").string(draft.chance.choice((b"New", b"New/Sub", b"New/Sub/", b"INBOX", *STRANGE_FOLDERS)))
    if draft.chance.random() < 0.15:
        draft.raw(b" (USE (\\Archive))")


@_row("DELETE", "SUBSCRIBE", "UNSUBSCRIBE")
def _one_folder(draft: Draft) -> None:
    draft.raw(draft.name.encode(), b" ").folder()


@_row("RENAME")
def _rename(draft: Draft) -> None:
    draft.raw(b"RENAME ").folder().raw(b" ").string(draft.chance.choice((b"Renamed", b"Renamed/Sub", *STRANGE_FOLDERS)))


@_row("LIST", "LSUB")
def _list(draft: Draft) -> None:
    chance, extended = draft.chance, draft.name == "LIST" and draft.chance.random() < 0.4
    draft.raw(draft.name.encode(), b" ")
    if extended and chance.random() < 0.5:
        options = (b"SUBSCRIBED", b"REMOTE", b"SPECIAL-USE", b"SUBSCRIBED RECURSIVEMATCH", b"")
        draft.raw(b"(", chance.choice(options), b") ")
    draft.string(chance.choice((b"", b"", b"Archive/", b"No such"))).raw(b" ")
    if extended and chance.random() < 0.3:
        draft.listed([b'"%s"' % each for each in chance.sample(PATTERNS, 2)])
    else:
        draft.raw(b'"', chance.choice(PATTERNS), b'"')
    if extended:
        returned = b"CHILDREN", b"SUBSCRIBED", b"SPECIAL-USE", b"STATUS (MESSAGES UIDNEXT)", b"STATUS (UNSEEN SIZE)"
        draft.raw(b" RETURN (", b" ".join(chance.sample(returned, chance.randint(0, 2))), b")")


@_row("STATUS")
def _status(draft: Draft) -> None:
    items = b"MESSAGES", b"RECENT", b"UIDNEXT", b"UIDVALIDITY", b"UNSEEN", b"HIGHESTMODSEQ", b"SIZE"
    draft.raw(b"STATUS ").folder().raw(b" ").listed(draft.chance.sample(items, draft.chance.randint(1, 4)))


@_row("APPEND")
def _append(draft: Draft) -> None:
    draft.raw(b"APPEND ").folder().raw(b" ")
    if draft.chance.random() < 0.4:
        draft.listed(_some(draft.chance, FLAGS, STRANGE_FLAGS)).raw(b" ")
    if draft.chance.random() < 0.3:
        draft.raw(draft.chance.choice(DATE_TIMES), b" ")
    draft.literal(draft.chance.choice(MESSAGES))


@_row("FETCH", "UID FETCH")
def _fetch(draft: Draft) -> None:
    chance = draft.chance
    draft.raw(draft.name.encode(), b" ", sequence_set(chance), b" ")
    if chance.random() < 0.2:
        draft.raw(chance.choice((b"ALL", b"FAST", b"FULL")))
    else:
        draft.listed([_item(chance) for _ in range(chance.randint(1, 4))])
    if chance.random() < 0.15:
        draft.raw(b" (CHANGEDSINCE ", chance.choice((b"1", b"5", b"0", b"99999")), b")")


def _item(chance: Random) -> bytes:
    plain = (
        b"FLAGS", b"UID", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY", b"BODYSTRUCTURE", b"MODSEQ",
        b"RFC822.HEADER", b"RFC822.TEXT", b"RFC822",
    )  # fmt: skip
    if chance.random() < 0.6:
        return chance.choice(plain)
    sections = (
        b"", b"HEADER", b"TEXT", b"1", b"1.2", b"2.1.1", b"1.MIME", b"2.HEADER", b"1.TEXT", b"HEADER.FIELDS (Subject)",
        b"HEADER.FIELDS.NOT (From To)", b'HEADER.FIELDS ("Date" X-No)', b"99", b"1.1.1.1.1.1", b"0",
    )  # fmt: skip
    partial = chance.choice((b"", b"", b"", b"<0.10>", b"<5.0>", b"<99999999.5>", b"<0.4294967295>"))
    return b"BODY" + chance.choice((b".PEEK", b".PEEK", b"")) + b"[" + chance.choice(sections) + b"]" + partial


@_row("STORE", "UID STORE")
def _store(draft: Draft) -> None:
    chance = draft.chance
    draft.raw(draft.name.encode(), b" ", sequence_set(chance), b" ")
    if chance.random() < 0.2:
        draft.raw(b"(UNCHANGEDSINCE ", chance.choice((b"1", b"3", b"99999", b"0")), b") ")
    draft.raw(chance.choice((b"", b"+", b"-")), b"FLAGS", chance.choice((b"", b".SILENT")), b" ")
    draft.listed(_some(chance, FLAGS, STRANGE_FLAGS))


@_row("COPY", "UID COPY", "MOVE", "UID MOVE")
def _copy(draft: Draft) -> None:
    draft.raw(draft.name.encode(), b" ", sequence_set(draft.chance), b" ").folder()


@_row("UID EXPUNGE")
def _uid_expunge(draft: Draft) -> None:
    draft.raw(b"UID EXPUNGE ", sequence_set(draft.chance))


@_row("SEARCH", "UID SEARCH")
def _search(draft: Draft) -> None:
    chance = draft.chance
    draft.raw(draft.name.encode(), b" ")
    if chance.random() < 0.3:
        options = b"MIN", b"MAX", b"ALL", b"COUNT", b"SAVE"
        draft.raw(b"RETURN (", b" ".join(chance.sample(options, chance.randint(0, 3))), b") ")
    if chance.random() < 0.2:
        draft.raw(b"CHARSET ", chance.choice((b"UTF-8", b"US-ASCII", b"KOI8-R", b'"utf-8"')), b" ")
    for at in range(chance.randint(1, 3)):
        draft.raw(*([b" "] if at else []))
        _key(draft, depth=chance.randint(0, 4))


def _key(draft: Draft, *, depth: int) -> None:
    chance = draft.chance
    if depth and chance.random() < 0.4:
        shape = chance.choice(("not", "or", "list"))
        draft.raw({"not": b"NOT ", "or": b"OR ", "list": b"("}[shape])
        _key(draft, depth=depth - 1)
        if shape != "not":
            draft.raw(b" ")
            _key(draft, depth=depth - 1)
        draft.raw(*([b")"] if shape == "list" else []))
        return
    kind = chance.randint(0, 5)
    if kind == 0:
        bare = b"ALL", b"SEEN", b"UNSEEN", b"DELETED", b"NEW", b"OLD", b"RECENT", b"FLAGGED", b"UNDRAFT", b"ANSWERED"
        draft.raw(chance.choice(bare))
    elif kind == 1:
        draft.raw(chance.choice((b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT", b"BODY", b"TEXT")), b" ")
        draft.string(chance.choice((b"a", b"", b"\xc3\xa4", b"report", b"\\", b"(", b"\xff")))
    elif kind == 2:
        draft.raw(chance.choice((b"BEFORE", b"ON", b"SINCE", b"SENTBEFORE", b"SENTON", b"SENTSINCE")), b" ")
        draft.raw(chance.choice(DATES))
    elif kind == 3:
        draft.raw(chance.choice((b"LARGER", b"SMALLER", b"MODSEQ", b"OLDER", b"YOUNGER")), b" ")
        draft.raw(chance.choice((b"1", b"1000", b"50000", *HUGE)))
    elif kind == 4:
        draft.raw(chance.choice((b"", b"UID ")), sequence_set(chance))
    else:
        draft.raw(b"HEADER ").string(chance.choice((b"Subject", b"X-None", b"", b":"))).raw(b" ").string(b"a")


def sequence_set(chance: Random) -> bytes:
    """Message numbers, most of which exist."""
    usual = b"1", b"1:*", b"*", b"2:4", b"1,3,5", b"*:1", b"5:1", b"1:3,2:4,*"
    strange = b"0", b"1:", b":", b"", b",", b"1,,2", b"$", b"999999", b"4294967295:4294967296", b"1" * 500
    return chance.choice(usual if chance.random() < 0.85 else strange)


def _some(chance: Random, usual: Sequence[bytes], strange: Sequence[bytes]) -> list[bytes]:
    found = chance.sample(usual, chance.randint(0, 3))
    return [*found, chance.choice(strange)] if chance.random() < 0.1 else found


# --- spoiling ---


def spoil(draft: Draft) -> None:
    """Change some tokens; none gets a line end, so the command stays one command."""
    for _ in range(draft.chance.randint(1, 3)):
        if draft.tokens:
            _TOKEN_MUTATIONS[draft.chance.randrange(len(_TOKEN_MUTATIONS))](
                draft, draft.chance.randrange(len(draft.tokens))
            )


def _drop(draft: Draft, at: int) -> None:
    del draft.tokens[at]


def _double(draft: Draft, at: int) -> None:
    draft.tokens.insert(at, draft.tokens[at])


def _swap(draft: Draft, at: int) -> None:
    other = draft.chance.randrange(len(draft.tokens))
    draft.tokens[at], draft.tokens[other] = draft.tokens[other], draft.tokens[at]


def _replace(draft: Draft, at: int) -> None:
    strange = (
        b"(", b")", b"((((", b"NIL", b'"', b'""', b"{", b"}", b"{5}x", b"\\", b"[", b"]", b"BODY[", b"<", b"*", b"%",
        b"\x00", b"\x7f", b"\xff\xfe", b"  ", b"\t", b"\r", b"+", b"~", b"$", b"=", b"(" * 1500, b"NOT " * 600,
        b"(" * 40 + b")" * 40, b"x" * 70_000, *HUGE,
    )  # fmt: skip
    draft.tokens[at] = Token(data=draft.chance.choice(strange))


def _insert_byte(draft: Draft, at: int) -> None:
    token = draft.tokens[at]
    if b"\n" not in token.data:
        where = draft.chance.randint(0, len(token.data))
        odd = draft.chance.choice((b"\x00", b" ", b"(", b")", b'"', b"\xe4", b"\x1b", b"9", b"\\", b"{", b"}"))
        draft.tokens[at] = Token(data=token.data[:where] + odd + token.data[where:], form=token.form)


def _other_case(draft: Draft, at: int) -> None:
    token = draft.tokens[at]
    if b"\n" not in token.data:
        draft.tokens[at] = Token(data=token.data.swapcase(), form=token.form)


_TOKEN_MUTATIONS: tuple[Callable[[Draft, int], None], ...] = (
    _drop, _double, _swap, _replace, _replace, _insert_byte, _insert_byte, _other_case,
)  # fmt: skip


def framed(pieces: Sequence[bytes], *, lines: int) -> bool:
    """Whether a reader of lines and literals alone finds one command here; the last ``lines`` pieces are answers."""
    rest = list(pieces[: len(pieces) - lines])
    data = rest.pop(0)
    while True:
        end = data.find(b"\n")
        if end < 0:
            return False
        literal = re.search(rb"\{(\d{1,30})(\+?)\}\r?\Z", data[:end])
        data = data[end + 1 :]
        if literal is None:
            return not data and not rest
        if not literal[2]:
            if data or not rest:
                return False
            data = rest.pop(0)
        size = int(literal[1])
        if len(data) < size:
            return False
        data = data[size:]


def scramble(chance: Random, data: bytes) -> bytes:
    """Change bytes anywhere: framing is no longer sure."""
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        other = chance.randint(0, len(data))
        match chance.randint(0, 5):
            case 0:
                data = data[:at] + chance.randbytes(chance.randint(1, 8)) + data[at:]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 30) :]
            case 2:
                data = data[:at] + data[min(at, other) : max(at, other)][:200] + data[at:]
            case 3:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 4:
                data = re.sub(rb"\{\d+", lambda _: b"{" + chance.choice(_SIZES), data, count=chance.randint(1, 2))
            case _:
                ends = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\0\r\n")
                data = data.replace(b"\r\n", chance.choice(ends), chance.randint(1, 3))
    return data


#: Of literals: small ones that swallow what follows, and ones that no server should take.
_SIZES = (b"0", b"1", b"3", b"50", b"400", b"999999999", b"99999999999999999999", b"67108865", b"9" * 60, b"00004")


def cut(chance: Random, data: bytes) -> list[bytes]:
    """The bytes in arrivals: all at once, in some pieces, or byte by byte."""
    style = chance.random()
    if style < 0.4 or len(data) < 2:
        return [data]
    if style > 0.95 and len(data) < 300:
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(1, 5)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]
