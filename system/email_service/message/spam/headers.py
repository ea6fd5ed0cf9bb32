"""Rules about the fields of a message: who says that they wrote it, and what the servers on the way found.

Callers: ``score``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from email_service.message.spam.facts import Facts, Rule, address_domain, organisation, short

_AHEAD_MAX: Final = timedelta(days=1)
_BEHIND_MAX: Final = timedelta(days=30)
_RECIPIENTS_MANY: Final = 50
#: Letters from which on capitals are shouting and not an abbreviation.
_LETTERS_SHOUTED: Final = 10
#: Of the letters, this part.
_SHOUTED_SHARE: Final = 0.9
_CONFIDENCE_SPAM: Final = 5

#: Anybody may have an address there; businesses write from their own.
FREE_MAIL: Final = frozenset(
    [
        "aol.com",
        "gmail.com",
        "gmx.de",
        "gmx.net",
        "hotmail.com",
        "icloud.com",
        "libero.it",
        "live.com",
        "mail.com",
        "mail.ru",
        "outlook.com",
        "proton.me",
        "protonmail.com",
        "qq.com",
        "rediffmail.com",
        "web.de",
        "yahoo.co.uk",
        "yahoo.com",
        "yandex.com",
        "yandex.ru",
        "ymail.com",
    ]
)
#: Names that are worth pretending to be, and the domains that may use them.
_BRANDS: Final = {
    "amazon": ("amazon",), "american express": ("americanexpress", "aexp"), "apple": ("apple",),
    "bank of america": ("bankofamerica", "bofa"), "barclays": ("barclays",), "binance": ("binance",),
    "coinbase": ("coinbase",), "commerzbank": ("commerzbank",), "deutsche bank": ("deutsche-bank", "db"),
    "dhl": ("dhl",), "docusign": ("docusign",), "facebook": ("facebook", "fb", "meta"), "fedex": ("fedex",),
    "google": ("google", "youtube"), "hsbc": ("hsbc",), "linkedin": ("linkedin",), "mastercard": ("mastercard",),
    "metamask": ("metamask",), "microsoft": ("microsoft", "office", "outlook", "live"), "netflix": ("netflix",),
    "norton": ("norton", "nortonlifelock", "gendigital"), "office 365": ("microsoft", "office"),
    "paypal": ("paypal",), "postbank": ("postbank",), "sparkasse": ("sparkasse",), "usps": ("usps",),
    "wells fargo": ("wellsfargo",), "whatsapp": ("whatsapp", "meta"),
}  # fmt: skip
#: Characters that pass for others in a name at a glance.
_LOOKS: Final = str.maketrans({"0": "o", "1": "l", "3": "e", "5": "s", "$": "s", "@": "a", "i": "l", "|": "l"})
_REPLY: Final = re.compile(r"(?:re|aw|sv|antw|rif|odp)\s{0,3}:", re.IGNORECASE)
_SPACED: Final = re.compile(r"(?<!\w)(?:[^\W\d_] ){4}[^\W\d_](?!\w)|(?<!\w)(?:[^\W\d_][.*_-]){4}[^\W\d_](?!\w)")
_ENCODED: Final = re.compile(r"=\?[^?]{1,60}\?[bq]\?[^?]{0,2000}\?=", re.IGNORECASE)
_CONFIDENCE: Final = re.compile(r"\d{1,3}")


def _marked(facts: Facts) -> str | None:
    for name in ("x-spam-flag", "x-spam-status", "x-spam", "x-spambayes-classification", "x-bogosity"):
        value = facts.first(name).strip().lower()
        if value.startswith(("yes", "spam", "true")):
            return short(f"{name}: {value}")
    confidence = _CONFIDENCE.match(facts.first("x-ms-exchange-organization-scl").strip())
    if confidence and int(confidence[0]) >= _CONFIDENCE_SPAM:
        return f"x-ms-exchange-organization-scl: {confidence[0]}"
    return None


def _no_message_id(facts: Facts) -> str | None:
    return None if facts.first("message-id").strip() else "no Message-ID"


def _no_date(facts: Facts) -> str | None:
    return None if facts.sent else short(facts.first("date")) or "no Date"


def _no_author(facts: Facts) -> str | None:
    address = facts.author[1]
    return None if "@" in address.strip("@") else short(facts.first("from")) or "no From"


def _authors(facts: Facts) -> str | None:
    count = max(facts.count("from"), facts.count("subject"), facts.count("date"))
    return f"a field that belongs there once is there {count} times" if count > 1 else None


def _reply_elsewhere(facts: Facts) -> str | None:
    author, reply = facts.author_domain, facts.reply_domain
    if not author or not reply or facts.is_list or organisation(author) == organisation(reply):
        return None
    return short(f"from {author}, replies to {reply}")


def _reply_to_free_mail(facts: Facts) -> str | None:
    if facts.reply_domain in FREE_MAIL and facts.author_domain and facts.author_domain not in FREE_MAIL:
        return short(f"from {facts.author_domain}, replies to {facts.reply_domain}")
    return None


def _name_shows_address(facts: Facts) -> str | None:
    shown = address_domain(facts.author[0])
    if not shown or not facts.author_domain or organisation(shown) == organisation(facts.author_domain):
        return None
    return short(f"shows {shown}, is {facts.author_domain}")


def skeleton(text: str) -> str:
    """What a name looks like at a glance, in lower case."""
    return text.lower().replace("rn", "m").replace("vv", "w").translate(_LOOKS)


_SKELETONS: Final = {skeleton(brand): brand for brand in _BRANDS}
_OWNED: Final = {label: brand for brand, labels in _BRANDS.items() for label in labels}
#: Short names are part of too many others.
_OWNED_LOOKS: Final = {skeleton(label): brand for label, brand in _OWNED.items() if len(label) > 4}  # noqa: PLR2004  # as said


def _brand_elsewhere(facts: Facts) -> str | None:
    name, domain = facts.author[0], organisation(facts.author_domain)
    if not name or not domain:
        return None
    looks = skeleton(name)
    for look, brand in _SKELETONS.items():
        # Whole words: "Pineapple Ltd" is nobody else.
        if look in looks and re.search(rf"(?<![^\W\d_]){re.escape(look)}(?![^\W\d_])", looks):
            label = domain.partition(".")[0]
            return None if label in _BRANDS[brand] else short(f"{name!r} writes from {domain}")
    return None


def lookalike(host: str) -> str | None:
    """The name that a host's looks like and is not."""
    label = organisation(host).partition(".")[0]
    look = skeleton(label)
    if label in _OWNED or look == label:
        return None
    return _OWNED_LOOKS.get(look)


def _author_lookalike(facts: Facts) -> str | None:
    brand = lookalike(facts.author_domain) if facts.author_domain else None
    return short(f"{facts.author_domain} looks like {brand}") if brand else None


def _fails(method: str) -> Callable[[Facts], str | None]:
    def find(facts: Facts) -> str | None:
        result = facts.authentication.get(method, "")
        return f"{method}={result}" if result in {"fail", "softfail", "permerror"} else None

    return find


def _authentic(facts: Facts) -> str | None:
    return "dmarc=pass" if facts.authentication.get("dmarc") == "pass" else None


def _date_ahead(facts: Facts) -> str | None:
    arrived = facts.delivered or facts.mail.received
    if facts.sent is None or arrived is None or facts.sent - arrived <= _AHEAD_MAX:
        return None
    return f"dated {(facts.sent - arrived).days} days after it arrived"


def _date_behind(facts: Facts) -> str | None:
    # Not by when it came into the folder: mail that moves from one provider to another comes late.
    if facts.sent is None or facts.delivered is None or facts.delivered - facts.sent <= _BEHIND_MAX:
        return None
    return f"dated {(facts.delivered - facts.sent).days} days before it arrived"


def _shouts(facts: Facts) -> str | None:
    letters = [each for each in facts.subject if each.isalpha()]
    capitals = sum(map(str.isupper, letters))
    # Half of the world's letters have no capitals, and don't shout.
    return short(facts.subject) if capitals >= max(_LETTERS_SHOUTED, _SHOUTED_SHARE * len(letters)) else None


def _marks(facts: Facts) -> str | None:
    loud = any(marks in facts.subject for marks in ("!!", "??", "?!", "$$", "€€", "£££", "***", ">>>"))
    return short(facts.subject) if loud else None


def _spaced(facts: Facts) -> str | None:
    found = _SPACED.search(facts.subject)
    return short(found[0]) if found else None


def _encoded_for_nothing(facts: Facts) -> str | None:
    raw = facts.first("subject")
    words = _ENCODED.findall(raw)
    # Base64 hides plain words from whoever looks at the bytes; quoted-printable hides little, and some clients use it.
    if words and all("?b?" in word.lower() for word in words) and facts.subject.isascii():
        return short(raw)
    return None


def _answers_nothing(facts: Facts) -> str | None:
    if _REPLY.match(facts.subject) and not facts.first("in-reply-to") and not facts.first("references"):
        return short(facts.subject)
    return None


def _hidden_recipients(facts: Facts) -> str | None:
    if facts.recipients or facts.is_list:
        return None
    return short(facts.first("to")) or "no recipients"


def _many_recipients(facts: Facts) -> str | None:
    return f"{facts.recipients} recipients" if facts.recipients > _RECIPIENTS_MANY else None


def _list_mail(facts: Facts) -> str | None:
    return "List-Unsubscribe" if facts.is_list else None


def _answer(facts: Facts) -> str | None:
    return "In-Reply-To" if facts.first("in-reply-to") and facts.first("references") else None


_RULES: Final[tuple[tuple[str, float, str, Callable[[Facts], str | None]], ...]] = (
    ("marked-by-server", 5.0, "the server that received it found that it is spam, and knew more", _marked),
    ("no-message-id", 1.0, "mail programs and servers set one; scripts forget it", _no_message_id),
    ("no-date", 1.0, "every mail program sets one (RFC 5322 section 3.6)", _no_date),
    ("no-author", 2.0, "From names no address: nobody wants to be answered or found", _no_author),
    ("field-twice", 1.5, "programs disagree about which of two counts, which hides the real one", _authors),
    ("reply-elsewhere", 1.2, "the author has another domain than who gets the answer", _reply_elsewhere),
    ("reply-to-free-mail", 1.3, "a business has its answers sent to an address that anybody can open",
     _reply_to_free_mail),
    ("name-shows-address", 2.5, "most programs show the name alone, and it shows somebody else's address",
     _name_shows_address),
    ("brand-elsewhere", 2.0, "the name of a company that others pretend to be, from a domain that is not its own",
     _brand_elsewhere),
    ("author-lookalike", 2.5, "the author's domain looks like a well-known one and is another", _author_lookalike),
    ("spf-fail", 1.3, "the domain says that it does not send from there", _fails("spf")),
    ("dkim-fail", 0.8, "its signature is wrong: changed on the way, or never right", _fails("dkim")),
    ("dmarc-fail", 2.2, "the author's domain denies it", _fails("dmarc")),
    ("authentic", -0.5, "the author's domain vouches for it; spammers own domains too", _authentic),
    ("date-ahead", 1.8, "a date to come keeps it on top of the inbox", _date_ahead),
    ("date-behind", 0.8, "sent long before it arrived, which servers don't do", _date_behind),
    ("subject-shouts", 1.2, "a subject in capitals alone", _shouts),
    ("subject-marks", 0.8, "marks and currency signs in rows", _marks),
    ("subject-spaced", 1.8, "letters with something between them, to hide a word from filters", _spaced),
    ("subject-encoded", 0.8, "plain letters in base64 hide from filters, and nothing else needs them",
     _encoded_for_nothing),
    ("subject-answers-nothing", 0.6, "it claims to answer, and names nothing that it answers", _answers_nothing),
    ("hidden-recipients", 0.7, "it names no recipient", _hidden_recipients),
    ("many-recipients", 1.0, "people write to a few, lists name themselves", _many_recipients),
    ("list-mail", -1.0, "it says how to leave the list, so links and pictures are its trade", _list_mail),
    ("answer", -0.5, "it goes on with a thread", _answer),
)  # fmt: skip
HEADER_RULES: Final = tuple(Rule(name=name, points=points, why=why, find=find) for name, points, why, find in _RULES)
