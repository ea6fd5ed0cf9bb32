"""Rules about what a message says, where its links lead, and what it brings along.

Callers: ``score``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from email_service.message.spam import phrases
from email_service.message.spam.facts import Facts, Rule, named_host, organisation, short
from email_service.message.spam.headers import lookalike

#: HTML that shows fewer letters than this shows pictures.
_SHOWN_LITTLE: Final = 60
#: Newsletters hide a line for the inbox's preview; nobody hides a letter.
_HIDDEN_MANY: Final = 400
_FANCY_MANY: Final = 5
_WORDS_MIXED: Final = 2
_ZERO_WIDTHS: Final = 3

_SHORTENERS: Final = frozenset(
    [
        "bit.ly",
        "tinyurl.com",
        "t.co",
        "goo.gl",
        "ow.ly",
        "is.gd",
        "buff.ly",
        "rebrand.ly",
        "cutt.ly",
        "rb.gy",
        "shorturl.at",
        "tiny.cc",
        "v.gd",
        "s.id",
        "t.ly",
        "bl.ink",
        "lnkd.in",
        "adf.ly",
        "clck.ru",
        "qrco.de",
    ]
)
_PROGRAMS: Final = frozenset(
    [
        "ade",
        "adp",
        "apk",
        "app",
        "appx",
        "bat",
        "cab",
        "chm",
        "cmd",
        "com",
        "cpl",
        "dll",
        "exe",
        "gadget",
        "hta",
        "img",
        "inf",
        "ins",
        "iso",
        "jar",
        "js",
        "jse",
        "lnk",
        "msc",
        "msi",
        "msp",
        "pif",
        "ps1",
        "reg",
        "scf",
        "scr",
        "sct",
        "vb",
        "vbe",
        "vbs",
        "vhd",
        "wsc",
        "wsf",
        "wsh",
        "xll",
    ]
)
_MACROS: Final = frozenset(["docm", "dotm", "xlsm", "xlsb", "xltm", "pptm", "potm", "ppam", "ppsm", "sldm", "one"])
_PAGES: Final = frozenset(["htm", "html", "shtml", "xhtml", "mht", "mhtml", "svg", "xht"])
_ARCHIVES: Final = frozenset(["7z", "ace", "arj", "gz", "lzh", "rar", "zip"])
_DOCUMENTS: Final = frozenset(
    [
        "csv",
        "doc",
        "docx",
        "gif",
        "jpeg",
        "jpg",
        "mp3",
        "mp4",
        "odt",
        "pdf",
        "png",
        "ppt",
        "pptx",
        "rtf",
        "txt",
        "xls",
        "xlsx",
    ]
)

_NUMBERS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|\d{8,10}|0x[0-9a-f]{6,8}|\[[0-9a-f:.]{2,45}\]")
_BETWEEN: Final = re.compile("[a-z\u0400-\u04ff][\u200b\u200c\u200d\u2060\ufeff]+[a-z\u0400-\u04ff]")
_MIXED: Final = re.compile("[a-z][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][a-z]")
#: Full-width letters are not among them: Japanese writes with them.
_FANCY: Final = re.compile("[\U0001d400-\U0001d7ff\U0001f130-\U0001f189]")
_ZERO_WIDTH: Final = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")
#: UTF-8 to alphabets: a Latin letter is L, what begins a Greek or Cyrillic one (U+0380 to U+04FF) C, the rest of a
#: character nothing.
_ALPHABETS: Final = bytes(
    ord("L") if chr(c).isascii() and chr(c).isalpha() else ord("C") if c in range(0xCE, 0xD4) else ord(" ")
    for c in range(256)
)
_REST: Final = bytes(range(0x80, 0xC0))
_OVERRIDES: Final = re.compile("[\u202d\u202e]")
_PASSWORD: Final = re.compile(
    r"(?:password|passwort|kennwort|mot de passe|contraseña|пароль)\s{0,3}(?:is|ist|est|es)?\s{0,3}[:=]"
)
_PASSWORD_FIELD: Final = re.compile(r"<input\s[^<>]*?type\s?=\s?[\"']?password")


def _kinds(facts: Facts) -> dict[str, list[str]]:
    # Once for the rules that ask, kept with the facts of this message.
    found: dict[str, list[str]] | None = facts.__dict__.get("phrases")
    if found is None:
        found = facts.__dict__["phrases"] = phrases.found_in(facts.everything_bytes)
    return found


def _says(kind: str, least: int) -> Callable[[Facts], str | None]:
    def find(facts: Facts) -> str | None:
        found = _kinds(facts).get(kind, [])
        return short(", ".join(found)) if len(found) >= least else None

    return find


def _presses(facts: Facts) -> str | None:
    kinds = [kind for kind in ("money", "account", "threats", "letters") if kind in _kinds(facts)]
    return short(f"urgency with {', '.join(kinds)}") if kinds and "urgency" in _kinds(facts) else None


def _html_alone(facts: Facts) -> str | None:
    return "HTML without a text" if facts.html and not facts.text.strip() else None


def _pictures(facts: Facts) -> str | None:
    if "<img" not in facts.html or facts.text.strip():
        return None
    letters = sum(map(len, facts.page.shown.split()))
    return f"{letters} letters beside pictures" if letters < _SHOWN_LITTLE else None


def _hidden(facts: Facts) -> str | None:
    return f"{facts.page.hidden} letters that nobody sees" if facts.page.hidden > _HIDDEN_MANY else None


def _form(facts: Facts) -> str | None:
    return "a form that asks for a password" if _PASSWORD_FIELD.search(facts.html) else None


def _script(facts: Facts) -> str | None:
    return "a script" if "<script" in facts.html else None


def _link_disguised(facts: Facts) -> str | None:
    for link in facts.links:
        named = named_host(link.shown) if "." in link.shown else ""
        if named and link.host and organisation(named) != organisation(link.host) and not facts.is_list:
            return short(f"shows {named}, leads to {link.host}")
    return None


def _link_to_number(facts: Facts) -> str | None:
    return next((short(host) for host in sorted(facts.hosts) if _NUMBERS.fullmatch(host)), None)


def _link_shortened(facts: Facts) -> str | None:
    return next((host for host in sorted(facts.hosts) if host.removeprefix("www.") in _SHORTENERS), None)


def _link_with_user(facts: Facts) -> str | None:
    for link in facts.links:
        authority = link.target.partition("://")[2].partition("/")[0]
        if "@" in authority:
            return short(link.target)
    return None


def _link_lookalike(facts: Facts) -> str | None:
    for host in sorted(facts.hosts):
        if "xn--" in host and _looks_latin(host):
            return short(f"{host} is {_unicode(host)}")
        if brand := lookalike(host):
            return short(f"{host} looks like {brand}")
        if not host.isascii() and _MIXED.search(host):
            return short(host)
    return None


def _unicode(host: str) -> str:
    labels = []
    for label in host.split("."):
        try:
            # A label has 63 characters at most, so that punycode's square is small.
            labels.append(label[4:67].encode("ascii").decode("punycode") if label.startswith("xn--") else label)
        except (UnicodeError, ValueError):
            labels.append(label)
    return ".".join(labels)


#: Cyrillic and Greek letters that look like Latin ones.
_LATIN_LOOKS: Final = frozenset("аеорсухіјѕһԁԛԝьгпӏαονρτυικ")


def _looks_latin(host: str) -> bool:
    """Whether a label of other letters looks like Latin: it mixes them, or has none but what looks alike."""
    shown = _unicode(host)
    foreign = [each for each in shown.rpartition(".")[0] if not each.isascii() and each.isalpha()]
    looks = [each for each in foreign if each in _LATIN_LOOKS]
    return bool(looks) and (bool(_MIXED.search(shown)) or len(looks) == len(foreign))


def _link_alone(facts: Facts) -> str | None:
    letters = len(facts.text.strip()) + len(facts.page.shown.strip())
    alone = len(facts.hosts) == 1 and letters < 2 * _SHOWN_LITTLE + sum(len(link.target) for link in facts.links)
    return next(iter(facts.hosts)) if alone else None


def _data_link(facts: Facts) -> str | None:
    return next((short(link.target) for link in facts.links if link.target.startswith(("data:", "javascript:"))), None)


def _zero_width(facts: Facts) -> str | None:
    if not any(each in facts.everything for each in _ZERO_WIDTH):
        return None
    count = len(_BETWEEN.findall(facts.everything))
    return f"{count} letters with nothing between them" if count >= _ZERO_WIDTHS else None


def _mixed(facts: Facts) -> str | None:
    name = facts.author[0]
    if not name.isascii() and _mixtures(name.encode("utf-8", "replace")):
        return short(f"{name!r} is written in two alphabets")
    count = 0 if facts.everything.isascii() else _mixtures(facts.everything_bytes)
    return f"{count} times letters of two alphabets in a word" if count >= _WORDS_MIXED else None


def _mixtures(text: bytes) -> int:
    alphabets = text.translate(_ALPHABETS, _REST)
    return alphabets.count(b"LC") + alphabets.count(b"CL")


def _fancy(facts: Facts) -> str | None:
    # What begins any character beyond U+FFFF: most texts have none.
    if b"\xf0" not in facts.everything_bytes:
        return None
    count = len(_FANCY.findall(facts.everything))
    return f"{count} letters that are symbols" if count >= _FANCY_MANY else None


def _names(facts: Facts) -> list[list[str]]:
    """The parts between dots of each file's name, in lower case."""
    return [name[-200:].lower().split(".") for name, _ in facts.mail.files]


def _ends(kinds: frozenset[str]) -> Callable[[Facts], str | None]:
    def find(facts: Facts) -> str | None:
        for parts in _names(facts):
            if len(parts) > 1 and parts[-1].strip() in kinds:
                return short(".".join(parts))
        return None

    return find


def _two_endings(facts: Facts) -> str | None:
    for parts in _names(facts):
        if len(parts) > 2 and parts[-2].strip() in _DOCUMENTS and parts[-1].strip() in _PROGRAMS | _PAGES | _ARCHIVES:  # noqa: PLR2004  # a name, and two
            return short(".".join(parts))
    return next((short(name) for name, _ in facts.mail.files if _OVERRIDES.search(name)), None)


def _other_type(facts: Facts) -> str | None:
    for name, kind in facts.mail.files:
        if kind in {"application/x-msdownload", "application/x-dosexec", "application/x-msdos-program"}:
            return short(f"{name} is {kind}")
        if kind == "text/html" and name.lower().endswith((".pdf", ".doc", ".docx", ".xls", ".xlsx", ".png", ".jpg")):
            return short(f"{name} is {kind}")
    return None


def _locked(facts: Facts) -> str | None:
    archive = _ends(_ARCHIVES)(facts)
    return short(f"{archive}, and its password") if archive and _PASSWORD.search(facts.everything) else None


_RULES: Final[tuple[tuple[str, float, str, Callable[[Facts], str | None]], ...]] = (
    ("says-money", 1.2, "money that comes by itself", _says("money", 1)),
    ("says-money-often", 1.5, "more of it", _says("money", 3)),
    ("says-account", 1.2, "an account, a parcel or a password that needs the reader's data", _says("account", 1)),
    ("says-account-often", 1.5, "more of it", _says("account", 2)),
    ("says-goods", 1.5, "what is sold by spam", _says("goods", 1)),
    ("says-goods-often", 1.5, "more of it", _says("goods", 3)),
    ("says-offers", 0.8, "how spam asks for a click or a sale", _says("offers", 1)),
    ("says-offers-often", 1.2, "more of it", _says("offers", 3)),
    ("says-threats", 1.5, "extortion", _says("threats", 1)),
    ("says-threats-often", 2.5, "more of it", _says("threats", 2)),
    ("says-letters", 1.0, "how letters begin whose writer does not know the reader", _says("letters", 1)),
    ("says-letters-often", 1.5, "more of it", _says("letters", 3)),
    ("presses", 1.3, "haste, so that the reader does not think", _presses),
    ("html-alone", 0.6, "mail programs send a text too", _html_alone),
    ("pictures-alone", 1.5, "words in a picture can't be read by filters", _pictures),
    ("hidden-text", 1.5, "text that nobody sees is there for filters", _hidden),
    ("form", 2.0, "nobody asks for a password in a mail", _form),
    ("script", 1.0, "no mail program runs it; it is for those that are broken", _script),
    ("link-disguised", 2.2, "the link shows another host than the one it leads to", _link_disguised),
    ("link-to-number", 1.8, "a host without a name", _link_to_number),
    ("link-shortened", 1.0, "nobody sees where the link leads", _link_shortened),
    ("link-with-user", 1.8, "what looks like the host is a user's name", _link_with_user),
    ("link-lookalike", 2.2, "the host looks like another", _link_lookalike),
    ("link-data", 2.0, "a link that is a page or a program itself", _data_link),
    ("link-alone", 0.7, "a link, and hardly a word", _link_alone),
    ("zero-width", 1.8, "characters without width tear words apart for filters alone", _zero_width),
    ("mixed-letters", 1.8, "words of two alphabets look like others", _mixed),
    ("fancy-letters", 1.3, "mathematical and circled letters hide words from filters", _fancy),
    ("program-attached", 3.0, "a file that runs when it is opened", _ends(_PROGRAMS)),
    ("macros-attached", 1.5, "a document that can run programs", _ends(_MACROS)),
    ("page-attached", 1.3, "a page that no filter of links has seen", _ends(_PAGES)),
    ("two-endings", 2.0, "a file that looks like a document", _two_endings),
    ("other-type", 2.0, "a file that is not what its name says", _other_type),
    ("archive-locked", 2.0, "an archive that no scanner can open, and its key", _locked),
)  # fmt: skip
CONTENT_RULES: Final = tuple(Rule(name=name, points=points, why=why, find=find) for name, points, why, find in _RULES)
