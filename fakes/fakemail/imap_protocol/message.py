"""One message as a command looks at it: made, taken apart and spoilt at most once, and only as far as it is asked for.

Never does: changes. Called by: fetch, search_keys, sorting, threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fakemail.folder import Folder
from fakemail.imap_protocol.events import Piece
from fakemail.mime import Part, header_block, parse_mime


class Message:
    """A message of the selected folder; ``garble`` spoils its bytes, by a fault."""

    __slots__ = ("_garble", "_header", "_part", "_raw", "folder", "number", "uid")

    def __init__(self, folder: Folder, number: int, uid: int, garble: Callable[[bytes], bytes] | None = None) -> None:
        self.folder, self.number, self.uid = folder, number, uid
        self._garble = garble
        self._raw: bytes | None = None
        self._header: bytes | None = None
        self._part: Part | None = None

    @property
    def raw(self) -> bytes:
        """All its bytes."""
        if self._raw is None:
            raw = self.folder.raw(self.uid)
            self._raw = raw if self._garble is None else self._garble(raw)
        return self._raw

    @property
    def pieces(self) -> tuple[Sequence[Piece], int]:
        """All its bytes in the pieces they are made of, which need not be put together, and its size."""
        if self._raw is None and self._garble is None:
            return self.folder.raw_pieces(self.uid)
        return (self.raw,), len(self.raw)

    @property
    def header(self) -> bytes:
        """Its header block with the empty line."""
        if self._header is None:
            whole = self._raw is not None or self._garble is not None
            self._header = header_block(self.raw) if whole else self.folder.header(self.uid)
        return self._header

    @property
    def part(self) -> Part:
        """Its MIME structure."""
        if self._part is None:
            self._part = parse_mime(self.raw)
        return self._part

    @property
    def size(self) -> int:
        """Its size in bytes; of synthesised mail without making it."""
        return self.folder.size(self.uid) if self._raw is None and self._garble is None else len(self.raw)
