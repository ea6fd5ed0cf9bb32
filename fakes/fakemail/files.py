"""Mail from files: a Maildir with its folders, or an mbox, as messages that a folder can hold.

Owns: reading them, one message in memory at a time, and what their names and headers say of flags and dates.
Never does: writing, locking (load what nobody writes to), deciding where the mail goes.
Called by: whoever fills folders at start: config, control, the pytest plugin.

Rule 1: what is wrong with the path is said at the call, not at the first message.
Rule 2: line ends become CRLF (RFC 5322 section 2.1); nothing else of a Maildir's message is changed. Of an mbox's, what
the format put there is taken away: the quoting of ``>From``, and the fields that keep flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate
from pathlib import Path
from typing import BinaryIO, Final

from fakemail import FakemailError

#: https://cr.yp.to/proto/maildir.html; P(assed) is Dovecot's way to keep $Forwarded.
_MAILDIR_FLAGS: Final[Mapping[str, str]] = {
    "D": "\\Draft", "F": "\\Flagged", "P": "$Forwarded", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted",
}  # fmt: skip
#: Status and X-Status, as c-client, mutt and Dovecot write them; O(ld) is no flag of IMAP's.
_MBOX_FLAGS: Final[Mapping[str, str]] = {
    "A": "\\Answered", "D": "\\Deleted", "F": "\\Flagged", "R": "\\Seen", "T": "\\Draft",
}  # fmt: skip
#: Fields that an mbox keeps a folder's state in: they are the folder's, and leave with it.
_STATE_FIELDS: Final = frozenset({"status", "x-status", "x-keywords", "x-uid", "x-imap", "x-imapbase"})
#: c-client's first message holds no mail but the folder's own data.
_PSEUDO_FIELD: Final = "x-imap"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_QUOTED_FROM: Final = re.compile(rb">+From ")
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_KEYWORDS_FILE: Final = "dovecot-keywords"


class MailFileError(FakemailError):
    """Mail can't be loaded from a path."""

    def __init__(self, path: Path, problem: str, wanted: str) -> None:
        super().__init__(f"{path}: {problem}; {wanted}")
        self.path = path
        self.problem = problem
        #: What would be right.
        self.wanted = wanted


@dataclass(frozen=True, kw_only=True)
class LoadedMail:
    """A message as a file held it."""

    #: With CRLF line ends.
    raw: bytes = field(repr=False)
    flags: frozenset[str]
    #: Epoch seconds.
    received_s: int
    #: Levels are divided by a slash.
    folder: str


# --- Maildir ----------------------------------------------------------------------------------------------------------


def load_maildir(path: Path) -> Iterator[LoadedMail]:
    """The messages of a Maildir and its Maildir++ folders: INBOX first, each folder by the time in its file names.

    What lies in ``new`` is not seen. Dovecot's keyword letters are read if ``dovecot-keywords`` is there. A message was
    received at its file's modification time.

    Raises:
        MailFileError: there is no such Maildir, or it can't be read.
    """
    wanted = "a Maildir is a directory with cur and new in it"
    try:
        if not path.is_dir():
            raise MailFileError(path, "is not a directory" if path.exists() else "does not exist", wanted)
        folders = dict(_maildir_folders(path))
    except OSError as err:
        raise _unreadable(path, err) from err
    if not folders:
        raise MailFileError(path, "has neither cur nor new", wanted)
    return (mail for name, folder in folders.items() for mail in _maildir_folder(name, folder))


def _maildir_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """(name, directory); ``.Work.Old`` is Work/Old (https://www.courier-mta.org/imap/README.maildirquota.html)."""
    if _is_maildir(root):
        yield "INBOX", root
    for each in sorted(root.iterdir()):
        if each.name.startswith(".") and each.name.strip(".") and _is_maildir(each):
            yield each.name[1:].replace(".", "/"), each


def _is_maildir(path: Path) -> bool:
    return (path / "cur").is_dir() or (path / "new").is_dir()


def _maildir_folder(name: str, folder: Path) -> Iterator[LoadedMail]:
    try:
        keywords = _keywords(folder / _KEYWORDS_FILE)
        files = [each for part in ("cur", "new") for each in _mail_files(folder / part)]
        for file in sorted(files, key=_delivery):
            yield LoadedMail(
                raw=_crlf(file.read_bytes()),
                flags=_maildir_flags(file, keywords),
                received_s=int(file.stat().st_mtime),
                folder=name,
            )
    except OSError as err:
        raise _unreadable(folder, err) from err


def _mail_files(part: Path) -> Iterator[Path]:
    if part.is_dir():
        yield from (each for each in part.iterdir() if not each.name.startswith(".") and each.is_file())


def _delivery(file: Path) -> tuple[int, str]:
    """A file's name begins with the second of its delivery; one that does not comes first."""
    seconds = re.match(r"\d{1,18}", file.name, re.ASCII)
    return int(seconds[0]) if seconds else 0, file.name


def _maildir_flags(file: Path, keywords: Mapping[str, str]) -> frozenset[str]:
    # Sizes (S=, W=) stand before the colon; letters in new mean nothing.
    _, experimental, letters = file.name.rpartition(":2,")
    if not experimental or file.parent.name == "new":
        return frozenset()
    names = {**_MAILDIR_FLAGS, **keywords}
    return frozenset(names[letter] for letter in letters.partition(",")[0] if letter in names)


def _keywords(file: Path) -> dict[str, str]:
    """Lines such as ``0 $Label1``: a is the first (Dovecot's Maildir format)."""
    if not file.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return {chr(ord("a") + int(pair[0])): pair[1].strip() for pair in lines if len(pair) == 2 and _is_letter(pair[0])}  # noqa: PLR2004 a pair


def _is_letter(number: str) -> bool:
    return number.isascii() and number.isdecimal() and int(number) < 26  # noqa: PLR2004 letters of the alphabet


# --- mbox -------------------------------------------------------------------------------------------------------------


def load_mbox(path: Path, *, folder: str = "INBOX") -> Iterator[LoadedMail]:
    """The messages of an mbox file, in its order, read as mboxrd: one ``>`` is taken from ``>From`` and ``>>From``.

    A message begins at a line ``From `` that is the first or follows an empty one (RFC 4155 appendix A); it was
    received when that line says, in UTC, or when the file was last changed. Status, X-Status and X-Keywords become
    flags; they and X-UID, X-IMAP and X-IMAPbase are removed. Content-Length is not trusted, and kept.

    Raises:
        MailFileError: there is no such file, it can't be read, or it is no mbox.
    """
    wanted = "an mbox is a file that begins with a line 'From address date', and may be empty"
    try:
        if not path.is_file():
            problem = "is a directory" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
            raise MailFileError(path, problem, wanted)
        changed_s = int(path.stat().st_mtime)
        with path.open("rb") as file:
            begins = next((line for line in file if line.strip()), b"From ")
    except OSError as err:
        raise _unreadable(path, err) from err
    if not begins.startswith(b"From "):
        raise MailFileError(path, f"begins with {begins[:40]!r}", wanted)
    return _mbox(path, folder, changed_s)


def _mbox(path: Path, folder: str, changed_s: int) -> Iterator[LoadedMail]:
    try:
        with path.open("rb") as file:
            for at, (from_line, lines) in enumerate(_mbox_messages(file)):
                header, body = _header_and_body(lines)
                kept, state = _without_state(header)
                if at == 0 and _PSEUDO_FIELD in state:
                    continue
                raw = _crlf(b"".join(kept) + b"".join(body))
                received_s = _from_line_s(from_line)
                yield LoadedMail(
                    raw=raw,
                    flags=_mbox_flags(state),
                    received_s=changed_s if received_s is None else received_s,
                    folder=folder,
                )
    except OSError as err:
        raise _unreadable(path, err) from err


def _mbox_messages(file: BinaryIO) -> Iterator[tuple[bytes, list[bytes]]]:
    """(the line "From ...", the lines of the message); the empty line before the next "From " is the format's."""
    from_line, lines, after_empty = b"", list[bytes](), True
    for line in file:
        if after_empty and line.startswith(b"From "):
            if from_line:
                yield from_line, _without_last_empty(lines)
            from_line, lines, after_empty = line, [], False
            continue
        after_empty = line in (b"\n", b"\r\n")
        if from_line:
            lines.append(line[1:] if _QUOTED_FROM.match(line) else line)
    if from_line:
        yield from_line, _without_last_empty(lines)


def _without_last_empty(lines: list[bytes]) -> list[bytes]:
    # The one that ends the header is the message's own.
    is_format = (
        len(lines) > 1 and lines[-1] in (b"\n", b"\r\n") and any(line in (b"\n", b"\r\n") for line in lines[:-1])
    )
    return lines[:-1] if is_format else lines


def _header_and_body(lines: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The fields, each with its folded lines; the rest, with the empty line."""
    fields = list[bytes]()
    for at, line in enumerate(lines):
        if line in (b"\n", b"\r\n"):
            return fields, lines[at:]
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        else:
            fields.append(line)
    return fields, []


def _without_state(fields: Iterable[bytes]) -> tuple[list[bytes], dict[str, str]]:
    """(the fields that are the message's, the values of those that are the folder's)."""
    kept, state = list[bytes](), dict[str, str]()
    for each in fields:
        found = _FIELD.match(each)
        name = found[1].decode("ascii").lower() if found else ""
        if found and name in _STATE_FIELDS:
            state[name] = found[2].decode("latin-1").strip()
        else:
            kept.append(each)
    return kept, state


def _mbox_flags(state: Mapping[str, str]) -> frozenset[str]:
    letters = state.get("status", "") + state.get("x-status", "")
    flags = {_MBOX_FLAGS[letter] for letter in letters if letter in _MBOX_FLAGS}
    return frozenset(flags | set(state.get("x-keywords", "").split()))


def _from_line_s(line: bytes) -> int | None:
    """``From ann@example.org Mon Jan  1 00:00:00 2024``: epoch seconds; None if there is no such date."""
    words = line.decode("latin-1").split(maxsplit=2)
    parsed = parsedate(words[2]) if len(words) == 3 else None  # noqa: PLR2004 the word, the address, the date
    try:
        return int(datetime(*parsed[:6], tzinfo=UTC).timestamp()) if parsed else None
    except (ValueError, OverflowError):
        return None


# --- both -------------------------------------------------------------------------------------------------------------


def _crlf(raw: bytes) -> bytes:
    return _BARE_LF.sub(b"\r\n", raw)


def _unreadable(path: Path, err: OSError) -> MailFileError:
    problem = f"can't be read: {err.strerror or err}"
    return MailFileError(path, problem, "it has to be readable, and nobody may write to it meanwhile")
