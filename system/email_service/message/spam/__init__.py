"""Whether a message is spam, and why: a sum of points, each with a name, a detail and a reason that people can read.

    facts     what a message shows: fields, hosts, links, words, each found once
    phrases   what is written in spam, in several languages
    headers   rules about its fields
    content   rules about its body, its links and its files

Pure: no network, no state, no clock; the same message has the same score everywhere. Time is linear in the message, and
bounded: of each body the first ``facts.TEXT_CHARACTERS`` are judged, of HTML the first ``facts.HTML_CHARACTERS``.
Callers: service.scoring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from email_service.message.spam.content import CONTENT_RULES
from email_service.message.spam.facts import HTML_CHARACTERS, TEXT_CHARACTERS, Facts, Rule, Suspect
from email_service.message.spam.headers import HEADER_RULES

__all__ = [
    "HTML_CHARACTERS",
    "RULES",
    "TEXT_CHARACTERS",
    "THRESHOLD",
    "Indicator",
    "Rule",
    "SpamVerdict",
    "Suspect",
    "score",
]

#: A message with as many points is spam. One strong indicator is not enough: none is worth as much, but the verdict of
#: the server that received the message.
THRESHOLD: Final = 5.0

#: All rules, by name; docs and tests read it.
RULES: Final = (*HEADER_RULES, *CONTENT_RULES)


@dataclass(frozen=True, kw_only=True)
class Indicator:
    """A rule that was met."""

    #: Of the rule.
    name: str
    #: Less than zero speaks for the message.
    points: float
    #: What was seen, on one line: for people.
    detail: str


@dataclass(frozen=True, kw_only=True)
class SpamVerdict:
    """What a message looks like."""

    score: float
    is_spam: bool
    #: The weightiest first.
    indicators: tuple[Indicator, ...]


def score(mail: Suspect) -> SpamVerdict:
    """Hold every rule against the message."""
    facts = Facts(mail)
    met = [
        Indicator(name=rule.name, points=rule.points, detail=detail)
        for rule in RULES
        if (detail := rule.find(facts)) is not None
    ]
    total = round(sum((indicator.points for indicator in met), start=0.0), 1)
    met.sort(key=lambda indicator: -abs(indicator.points))
    return SpamVerdict(score=total, is_spam=total >= THRESHOLD, indicators=tuple(met))
