"""What a message shows, each thing found once, when the first rule asks for it.

Rule: every pattern is linear in its text: no repetition within a repetition over the same characters, and what may run
on to an end that never comes is bounded. A test counts the work on hostile texts.
Callers: the rules.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from email_service.message import fields
from email_service.message.mail import ParsedMessage
from email_service.message.texts import Decoder, clean, without_controls

#: As much of a text, and of HTML, is judged. Spam says early what it wants.
TEXT_CHARACTERS: Final = 6_000
HTML_CHARACTERS: Final = 30_000
#: Of what HTML shows, as much is judged beside a text, which says the same as a rule.
_BESIDE_CHARACTERS: Final = 3_000
#: Links and recipients beyond these change nothing.
LINKS_MAX: Final = 100
#: Of a header field, and of a detail that people are shown.
FIELD_CHARACTERS: Final = 4_000
_DETAIL_CHARACTERS: Final = 120
#: Of a link, as much is compared with its host.
_SHOWN_MAX: Final = 300

#: A tag, and the text behind it.
_TAG: Final = re.compile(r"<([^<>]*)>([^<]*)")
_HREF: Final = re.compile(r"""\shref\s{0,9}=\s{0,9}["']?\s{0,9}([^"'\s<>]{1,2000})""")
_HIDING: Final = re.compile(
    r"display\s?:\s?none|visibility\s?:\s?hidden|font-size\s?:\s?[01](?:px|pt)?\s?(?:[;\"'!]|$)|opacity\s?:\s?0\s?(?:[;\"'!]|$)"
)
#: Of these no reader sees what is inside.
_UNSEEN: Final = frozenset({"script", "style", "title"})
_URL: Final = re.compile(r"""https?://[^\s<>"')]{1,2000}""")
_HOST: Final = re.compile(r"https?:/{1,3}([^/?#\s]{1,300})")
_NAMED_HOST: Final = re.compile(r"(?:https?://)?((?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24})(?:[/:?#].{0,300})?", re.DOTALL)
_AUTHENTICATION: Final = re.compile(r"\b(spf|dkim|dmarc)\s{0,5}=\s{0,5}([a-z]{1,20})")
_ADDRESS: Final = re.compile(r"[a-z0-9._%+-]{1,64}@((?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24})")
_SECOND_LEVELS: Final = frozenset({"ac", "co", "com", "edu", "gov", "net", "or", "org"})


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A message as a table row has it."""

    #: (name, value), unfolded, not decoded.
    headers: tuple[tuple[str, str], ...]
    #: Decoded.
    subject: str
    text: str
    html: str | None
    #: (filename, content type) of each attachment, but of no picture within the text.
    files: tuple[tuple[str, str], ...] = ()
    #: When it arrived.
    received: datetime | None = None

    @classmethod
    def of(cls, parsed: ParsedMessage, *, received: datetime | None = None) -> Suspect:
        """A message that was parsed just now."""
        return cls(
            headers=parsed.headers,
            subject=parsed.subject,
            text=parsed.text,
            html=parsed.html,
            files=tuple(
                (part.filename, part.content_type)
                for part in parsed.attachments
                if not (part.inline and part.content_type.startswith("image/"))
            ),
            received=received,
        )


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link, in lower case."""

    target: str
    #: Without port and user.
    host: str
    #: What the reader sees of it; empty in plain text.
    shown: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a reader of HTML gets."""

    shown: str
    #: Letters that the styles hide.
    hidden: int
    links: tuple[Link, ...]


def read_page(html_lower: str) -> Page:
    """Go through the tags once; what is not HTML is text."""
    shown: list[str] = [html_lower.partition("<")[0]]
    links: list[Link] = []
    hidden = 0
    unseen = target = None
    begun = 0
    for tag, text in _TAG.findall(html_lower):
        if unseen is not None:
            if not tag.startswith(unseen):
                continue
            unseen = None
        elif target is not None and tag.startswith("/a"):
            links.append(Link(target=target, host=host_of(target), shown=" ".join(shown[begun:]).strip()[:_SHOWN_MAX]))
            target = None
        elif tag.startswith("a ") and len(links) < LINKS_MAX and (found := _HREF.search(tag)):
            target, begun = html.unescape(found[1]), len(shown)
        elif (name := tag.partition(" ")[0]) in _UNSEEN:
            unseen = f"/{name}"
            continue
        if not text or text.isspace():
            continue
        if "style" in tag and _HIDING.search(tag):
            hidden += len(text.strip())
        else:
            shown.append(text)
    whole = " ".join(shown)
    return Page(shown=html.unescape(whole) if "&" in whole else whole, hidden=hidden, links=tuple(links))


class Facts:
    """Finds what the rules ask for."""

    def __init__(self, mail: Suspect) -> None:
        self.mail = mail
        self.subject = mail.subject[:FIELD_CHARACTERS]
        self.text = mail.text[:TEXT_CHARACTERS]
        #: In lower case.
        self.html = (mail.html or "")[:HTML_CHARACTERS].lower()
        self._fields: dict[str, list[str]] = {}
        for name, value in mail.headers:
            self._fields.setdefault(name.lower(), []).append(value[:FIELD_CHARACTERS])

    def first(self, name: str) -> str:
        """The first field of that name, or an empty string."""
        values = self._fields.get(name)
        return values[0] if values else ""

    def count(self, name: str) -> int:
        """How many fields have that name."""
        return len(self._fields.get(name, ()))

    @cached_property
    def author(self) -> tuple[str, str]:
        """The name that From shows, and its address; both in lower case."""
        value = self.first("from")
        name, bracket, address = value.rpartition("<")
        if not bracket:
            return "", value.partition(" ")[0].lower()
        return Decoder().words(name.strip(' "')).strip(' "').lower(), address.partition(">")[0].strip().lower()

    @cached_property
    def author_domain(self) -> str:
        """What stands behind the author's @."""
        return self.author[1].rpartition("@")[2]

    @cached_property
    def reply_domain(self) -> str:
        """What stands behind the @ of the first address to reply to."""
        found = _ADDRESS.search(self.first("reply-to").lower())
        return found[1] if found else ""

    @cached_property
    def recipients(self) -> int:
        """How many addresses To and Cc name, as far as they are read."""
        return sum(value.count("@") for name in ("to", "cc") for value in self._fields.get(name, ()))

    @cached_property
    def is_list(self) -> bool:
        """Whether it says how to leave the list."""
        return "list-unsubscribe" in self._fields

    @cached_property
    def authentication(self) -> dict[str, str]:
        """What the server that received it found of spf, dkim and dmarc; one signature that is right is enough."""
        found: dict[str, str] = {}
        # Only the topmost field is that server's own: those below came with the message.
        for method, result in _AUTHENTICATION.findall(self.first("authentication-results").lower()):
            if found.get(method) != "pass":
                found[method] = result
        spf = self.first("received-spf").strip().lower().partition(" ")[0]
        if spf:
            found.setdefault("spf", spf)
        return found

    @cached_property
    def sent(self) -> datetime | None:
        """The Date field."""
        return fields.date(self.first("date"))

    @cached_property
    def delivered(self) -> datetime | None:
        """When the server that received it says it did."""
        behind = self.first("received").rpartition(";")[2].strip()
        return fields.date(behind) if behind else None

    @cached_property
    def page(self) -> Page:
        """What the HTML shows, in lower case."""
        return read_page(self.html)

    @cached_property
    def everything(self) -> str:
        """Subject, text and what the HTML shows; in lower case."""
        shown = self.page.shown[: _BESIDE_CHARACTERS if self.text else TEXT_CHARACTERS]
        return f"{self.subject}\n{self.text}\n".lower() + shown

    @cached_property
    def everything_bytes(self) -> bytes:
        """The same in UTF-8, where a search for a kind of letters is one for a byte."""
        return self.everything.encode("utf-8", "replace")

    @cached_property
    def links(self) -> list[Link]:
        """Links of the HTML, then of the text."""
        targets = _URL.findall(self.text)[: LINKS_MAX - len(self.page.links)] if "http" in self.text else []
        return [*self.page.links, *(Link(target=t.lower(), host=host_of(t.lower()), shown="") for t in targets)]

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Hosts that the links lead to."""
        return frozenset(link.host for link in self.links if link.host)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something that tells spam from other mail."""

    name: str
    #: Less than zero speaks for the message.
    points: float
    #: Why it tells.
    why: str
    #: What was seen, or None.
    find: Callable[[Facts], str | None]


def host_of(target: str) -> str:
    """The host that a link leads to; empty if it leads to none."""
    found = _HOST.match(target)
    if found is None:
        return ""
    host = found[1].rpartition("@")[2]
    return host.rpartition(":")[0] if ":" in host and not host.startswith("[") else host.strip(".")


def named_host(shown: str) -> str:
    """The host that a text for people names, if it is the name of one."""
    found = _NAMED_HOST.fullmatch(shown)
    return found[1] if found else ""


def address_domain(text: str) -> str:
    """The domain of the first address in a text in lower case."""
    found = _ADDRESS.search(text)
    return found[1] if found else ""


def organisation(domain: str) -> str:
    """The part of a domain that somebody registered, as far as that can be told without a list of all registries."""
    labels = domain.strip(".").split(".")
    country = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVELS  # noqa: PLR2004  # co.uk
    return ".".join(labels[-3:] if country else labels[-2:])


def short(text: str) -> str:
    """A detail that fits on a line."""
    text = without_controls(clean(text))
    return text if len(text) <= _DETAIL_CHARACTERS else f"{text[: _DETAIL_CHARACTERS - 1]}…"
