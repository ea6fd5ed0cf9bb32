"""MIME entities with gaps, and plans made of them: what of a message is literal, and where slices of the pools go.

A plan is made once per seed, structure and variant; filling it is all that happens per message. Its literals hold the
boundaries too: they need only differ within a message. Never knows what a structure means.
Called by: bodies, special, broken (they compose), source (it fills).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fakemail.synthesis.draws import name_hash
from fakemail.synthesis.headers import Subject
from fakemail.synthesis.people import Person
from fakemail.synthesis.pools import Section

_WHOLE: Final = 256
#: The first bit of the number a message draws that a gap's place is taken from; gaps of a message take different ones.
_PLACE_BIT: Final = 84
_PLACE_BITS: Final = 9
_CHOICES: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Where a slice of a pool goes."""

    section: Section
    #: Of the bytes that are drawn for a message's text, or for an attachment, in 1/256.
    share: int = _WHOLE
    of_attachment: bool = False
    #: Sixteen heads to choose from, if what precedes the slice is not the same in all messages of the plan.
    heads: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """A header and a body (RFC 2045 section 2.4)."""

    #: With line ends, without the empty line.
    fields: bytes
    body: tuple[bytes | Gap, ...]

    @property
    def pieces(self) -> tuple[bytes | Gap, ...]:
        """All of it."""
        return (self.fields + b"\r\n", *self.body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attached:
    """An entity whose header is one of sixteen."""

    pieces: tuple[bytes | Gap, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A gap ready to be filled, and what follows it."""

    view: memoryview
    starts: Sequence[int]
    lines: int
    section_bytes: int
    #: Lines per 65,536 bytes that are wanted.
    rate: int
    of_attachment: bool
    shift: int
    heads: tuple[bytes, ...]
    then: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything after the fields that tell one message from another."""

    #: MIME-Version to the empty line.
    head: bytes
    opening: bytes
    cuts: tuple[Cut, ...]
    #: Of all that is literal in the body.
    literal_bytes: int
    #: Sixteen things that are written about.
    subjects: tuple[Subject, ...]
    #: Who writes in this language.
    people: tuple[Person, ...]
    #: (place in the header, bytes to put there) of what is broken.
    overrides: tuple[tuple[int, bytes], ...]
    has_attachment: bool

    def fill(self, out: list[bytes | memoryview], bits: int, text_bytes: int, attachment_bytes: int) -> None:
        """Append the body, nothing of it copied yet."""
        out.append(self.opening)
        for cut in self.cuts:
            if cut.heads:
                out.append(cut.heads[bits >> cut.shift & 15])
            count = ((attachment_bytes if cut.of_attachment else text_bytes) * cut.rate >> 16) + 1
            first, lines, starts, view = bits >> cut.shift, cut.lines, cut.starts, cut.view
            if count < lines:
                first %= lines - count
                out.append(view[starts[first] : starts[first + count]])
            else:
                # More than there is: the section from some line on, over and over.
                first %= lines
                rounds, rest = divmod(first + count, lines)
                out.append(view[starts[first] :])
                out.extend([view] * (rounds - 1))
                out.append(view[: starts[rest]])
            out.append(cut.then)

    def size(self, bits: int, text_bytes: int, attachment_bytes: int) -> int:
        """Bytes that ``fill`` appends."""
        total = self.literal_bytes
        for cut in self.cuts:
            if cut.heads:
                total += len(cut.heads[bits >> cut.shift & 15])
            count = ((attachment_bytes if cut.of_attachment else text_bytes) * cut.rate >> 16) + 1
            first, lines, starts = bits >> cut.shift, cut.lines, cut.starts
            if count < lines:
                first %= lines - count
                total += starts[first + count] - starts[first]
            else:
                first %= lines
                rounds, rest = divmod(first + count, lines)
                total += rounds * cut.section_bytes - starts[first] + starts[rest]
        return total


def multipart(
    subtype: str,
    parts: Iterable[Entity | Attached],
    *,
    mark: bytes,
    parameters: bytes = b"",
    preamble: bytes = b"",
    fields: bytes = b"",
) -> Entity:
    """Parts between delimiters (RFC 2046 section 5.1.1)."""
    body: list[bytes | Gap] = [preamble]
    for part in parts:
        body += [b"--" + mark + b"\r\n", *part.pieces, b"\r\n"]
    body.append(b"--" + mark + b"--\r\n")
    kind = b"Content-Type: multipart/" + subtype.encode("ascii") + parameters + b';\r\n\tboundary="' + mark + b'"\r\n'
    return Entity(fields=kind + fields, body=tuple(body))


def boundary(*name: object) -> bytes:
    """A delimiter as one of the usual mailers makes it; it can't occur in what is cut from the pools."""
    digest = name_hash("boundary", *name, size=20).hex()
    upper = digest.upper()
    styles = (
        f"000000000000{digest[:16]}",
        f"----=_NextPart_000_{upper[:4]}_01DA{upper[4:8]}.{upper[8:16]}",
        f"Apple-Mail=_{upper[:8]}-{upper[8:12]}-4{upper[12:15]}-A{upper[15:18]}-{upper[18:30]}",
        f"------------{digest[:24]}",
        f"==============={int(digest[:15], 16):019}==",
        # All that RFC 2046 section 5.1.1 allows.
        f"=_'()+,-./:=? {digest[:12]}",
    )
    return styles[int(digest[-2:], 16) % len(styles)].encode("ascii")


def plan(
    entity: Entity,
    *,
    subjects: tuple[Subject, ...],
    people: tuple[Person, ...],
    overrides: tuple[tuple[int, bytes], ...] = (),
    version: bytes = b"MIME-Version: 1.0\r\n",
) -> Plan:
    """Put together what is literal, and make the gaps ready."""
    opening, cuts, pending = b"", list[Cut](), None
    for piece in (*entity.body, None):
        if isinstance(piece, bytes):
            opening += piece
            continue
        if pending is None:
            first = opening
        else:
            cuts.append(_cut(pending, at=len(cuts), then=opening))
        pending, opening = piece, b""
    head = version + entity.fields + b"\r\n"
    return Plan(
        head=head,
        opening=first,
        cuts=tuple(cuts),
        literal_bytes=len(first) + sum(len(cut.then) for cut in cuts),
        subjects=subjects,
        people=people,
        overrides=overrides,
        has_attachment=any(b"\nContent-Disposition: attachment" in text for text in _literals(head, first, cuts)),
    )


def _literals(head: bytes, opening: bytes, cuts: Iterable[Cut]) -> Iterable[bytes]:
    yield b"\n" + head
    yield opening
    for cut in cuts:
        yield cut.then
        yield b"\n" + cut.heads[0] if cut.heads else b""


def _cut(gap: Gap, *, at: int, then: bytes) -> Cut:
    section = gap.section
    size = section.starts[section.lines]
    return Cut(
        view=section.view,
        starts=section.starts,
        lines=section.lines,
        section_bytes=size,
        rate=(gap.share * section.lines << 8) // size,
        of_attachment=gap.of_attachment,
        shift=_PLACE_BIT + at * _PLACE_BITS,
        heads=gap.heads,
        then=then,
    )
