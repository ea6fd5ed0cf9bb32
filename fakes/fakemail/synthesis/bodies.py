"""What messages are made of: plain text, alternatives, inline images, attachments, forwarded mail, and the rest.

``Kit`` makes the parts in one variant (language, charset, encoding); STRUCTURES puts them together, a row each.
Never draws. Called by: plans; special and broken add rows of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fakemail.synthesis.attachments import FILE_END, attachment, file_fields, first_line
from fakemail.synthesis.draws import name_hash
from fakemail.synthesis.headers import subjects
from fakemail.synthesis.parts import Attached, Entity, Gap, Plan, boundary, multipart, plan
from fakemail.synthesis.people import Person, people
from fakemail.synthesis.pools import VARIANTS, Pool, Variant

_PREAMBLE: Final = b"This is a multi-part message in MIME format.\r\n\r\n"
#: Of the text of a message that has HTML too: what is plain, what is HTML; and an image beside it.
_PLAIN_SHARE: Final = 96
_HTML_SHARE: Final = 160
_IMAGE_SHARE: Final = 128
_SHORT: Final = 24


@dataclass(frozen=True, kw_only=True)
class Kit:
    """Makes the parts of one structure in one variant."""

    pool: Pool
    at: int
    structure: str

    @property
    def variant(self) -> Variant:
        """How its text is written."""
        return VARIANTS[self.at]

    @property
    def people(self) -> tuple[Person, ...]:
        """Who writes in it."""
        return people(self.variant.words)

    def mark(self, level: int) -> bytes:
        """The boundary of a multipart; each level has its own."""
        return boundary(self.structure, self.at, level)

    def short_subjects(self) -> list[str]:
        """What fits on a line with a quotation mark, in every encoding."""
        return [text for text in self.variant.language.subjects if len(text) <= _SHORT]

    def text(self, *, share: int = 256, reply: bool = False, fields: bytes = b"") -> Entity:
        """A text/plain part."""
        language = self.variant.language
        quoted = [
            language.wrote,
            f"> {language.greeting[0]}",
            ">",
            *(f"> {text}" for text in self.short_subjects()),
            "",
        ]
        before = [*language.greeting, *(quoted if reply else ())]
        return self.written(
            "plain", before, Gap(section=self.pool.text[self.at], share=share), language.closing, fields
        )

    def html(self, *, share: int = 256, reply: bool = False, image: bytes = b"", news: bool = False) -> Entity:
        """A text/html part; ``image`` is the Content-ID that it shows."""
        language = self.variant.language
        before = [
            "<!DOCTYPE html>", "<html>", "<head>",
            f'<meta http-equiv="Content-Type" content="text/html; charset={self.variant.charset}">',
            "<style>", "body { font-family: sans-serif }", "p.lead { font-weight: bold }", "</style>", "</head>",
            '<body bgcolor="#ffffff">', f"<p>{language.greeting[0]}</p>",
        ]  # fmt: skip
        after = [f"<p>{line}</p>" for line in language.closing if line.strip(" -")]
        if image:
            after.append(f'<img src="cid:{image.decode("ascii")}" alt="" width="640">')
        if reply:
            quoted = "".join(f"{text}<br>" for text in self.short_subjects()[:1])
            after += [f"<p>{language.wrote}</p>", '<blockquote type="cite">', quoted, "</blockquote>"]
        if news:
            before.append('<img src="https://news.example/open.gif?id=8f1c" width="1" height="1">')
            after.append('<a href="https://news.example/u/8f1c">Unsubscribe</a>')
        gap = Gap(section=self.pool.html[self.at], share=share)
        return self.written("html", before, gap, [*after, "</body>", "</html>"])

    def written(
        self, subtype: str, before: Sequence[str], gap: Gap, after: Sequence[str], fields: bytes = b""
    ) -> Entity:
        """A text part: what comes before the slice, the slice, what comes after it."""
        body = (self.variant.encode(before, last=False), gap, self.variant.encode(after))
        return Entity(fields=text_fields(subtype, self.variant.charset, self.variant.encoding) + fields, body=body)

    def alternative(self, *, reply: bool = False, image: bytes = b"", news: bool = False) -> Entity:
        """Text and HTML that say the same (RFC 2046 section 5.1.4)."""
        parts = [
            self.text(share=_PLAIN_SHARE, reply=reply),
            self.html(share=_HTML_SHARE, reply=reply, image=image, news=news),
        ]
        return multipart("alternative", parts, mark=self.mark(1))

    def related(self) -> Entity:
        """HTML with an image of its own (RFC 2387)."""
        name = f"image001.{name_hash('image', self.structure, self.at, size=6).hex()}@fakemail.test".encode("ascii")
        image = Entity(
            fields=b'Content-Type: image/png; name="image001.png"\r\nContent-Transfer-Encoding: base64\r\n'
            b"Content-ID: <" + name + b'>\r\nContent-Disposition: inline; filename="image001.png"\r\n',
            body=(first_line("image/png"), Gap(section=self.pool.noise, share=_IMAGE_SHARE), FILE_END),
        )
        kind = b'; type="multipart/alternative"'
        return multipart("related", [self.alternative(image=name), image], mark=self.mark(2), parameters=kind)

    def mixed(self, first: Entity, *others: Entity | Attached) -> Entity:
        """A message and what is attached to it."""
        return multipart("mixed", [first, *others], mark=self.mark(3), preamble=_PREAMBLE if self.at % 2 else b"")

    def file(self, *, share: int = 256) -> Attached:
        """An attachment."""
        return attachment(self.pool.noise, share=share)

    def one_file(self) -> Entity:
        """A message that is a file, as scanners and fax machines send it."""
        body = (first_line("application/pdf"), Gap(section=self.pool.noise, of_attachment=True), FILE_END)
        return Entity(fields=file_fields(self.at % 2), body=body)

    def plan(self, entity: Entity, *, version: bytes = b"MIME-Version: 1.0\r\n") -> Plan:
        """A plan with the usual subjects."""
        return plan(entity, subjects=subjects(self.at), people=self.people, version=version)


def text_fields(subtype: str, charset: str, encoding: str) -> bytes:
    """The header of a text part, in quotes or not."""
    shown = f'"{charset.upper()}"' if len(encoding) % 2 else charset
    return f"Content-Type: text/{subtype}; charset={shown}\r\nContent-Transfer-Encoding: {encoding}\r\n".encode("ascii")


def _plain(kit: Kit) -> Plan:
    entity = kit.text()
    if kit.variant.charset == "us-ascii":
        # Mail as before MIME: text in ASCII needs no word about it (RFC 2045 section 5.2).
        return kit.plan(Entity(fields=b"", body=entity.body), version=b"")
    return kit.plan(entity)


#: Every structure by its name.
Builder = Callable[[Kit], Plan]
STRUCTURES: Final[Mapping[str, Builder]] = {
    "plain": _plain,
    "plain-reply": lambda kit: kit.plan(kit.text(reply=True)),
    "html": lambda kit: kit.plan(kit.html(news=True)),
    "alternative": lambda kit: kit.plan(kit.alternative()),
    "alternative-reply": lambda kit: kit.plan(kit.alternative(reply=True)),
    "alternative-news": lambda kit: kit.plan(kit.alternative(news=True)),
    "related": lambda kit: kit.plan(kit.related()),
    "mixed": lambda kit: kit.plan(kit.mixed(kit.text(), kit.file())),
    "mixed-alternative": lambda kit: kit.plan(kit.mixed(kit.alternative(), kit.file())),
    "mixed-two": lambda kit: kit.plan(kit.mixed(kit.text(), kit.file(share=160), kit.file(share=96))),
    "mixed-related": lambda kit: kit.plan(kit.mixed(kit.related(), kit.file())),
    "file": lambda kit: kit.plan(kit.one_file()),
}
