"""Ids as links: into the page's own traces, and to a Jaeger where the run's spans went.

Only what is known of the run becomes a link; an address is one only if it is HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mailrig.report import words
from mailrig.report.folder import RunFolder
from mailrig.report.markup import Child, Markup, element

#: What an id may be made of; a longer word around it (a Message-ID) doesn't hide it.
_WORD: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{6,}[0-9A-Za-z]")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")


def jaeger_url(run: Mapping[str, Any]) -> str | None:
    """Where the run's traces can be looked at, without a slash at its end; None when that is nowhere."""
    url = run.get("jaeger_url")
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    plain = parts.scheme in {"http", "https"} and parts.hostname and not parts.query
    # One with a password is for whoever has it, not for a page that is passed on.
    return url.rstrip("/") if plain and "@" not in parts.netloc else None


def trace_of(folder: RunFolder) -> dict[str, str]:
    """The trace of each id that a person may have: of an execution, a task or a trace."""
    found: dict[str, str] = {}
    for row in (*folder.jobs, *folder.executions):
        trace_id = row.get("trace_id")
        if isinstance(trace_id, str) and trace_id:
            found |= {trace_id: trace_id, row.get("execution_id") or row["job_id"]: trace_id}
            found.setdefault(row["job_id"], trace_id)
    return found


def named(lines: Iterable[str], known: Mapping[str, str]) -> Iterator[str]:
    """The traces that some text names, by whatever id."""
    for line in lines:
        yield from (known[word] for word in _WORD.findall(line) if word in known)


@dataclass(frozen=True, kw_only=True)
class Links:
    """Makes links of the ids in a text."""

    #: The trace of each id.
    known: Mapping[str, str] = field(default_factory=dict)
    #: The traces that the page has.
    carried: Mapping[str, int] = field(default_factory=dict)
    jaeger: str | None = None

    def index(self, id_: str | None) -> int | None:
        """Where the page has the trace of an id; None if it has not."""
        return self.carried.get(self.known.get(id_ or "", ""))

    def text(self, line: str) -> list[Child]:
        """The line, its ids being links where they lead somewhere."""
        parts: list[Child] = []
        end = 0
        for match in _WORD.finditer(line):
            link = self.trace(self.known[match.group()], match.group()) if match.group() in self.known else None
            if link is not None:
                parts += [line[end : match.start()], link]
                end = match.end()
        return [*parts, line[end:]]

    def trace(self, trace_id: str, text: str) -> list[Child] | None:
        """``text`` as a link to a trace on this page, and another to Jaeger; None if neither has it."""
        here = element("a", text, href=anchor(trace_id)) if trace_id in self.carried else None
        there = self.elsewhere(trace_id)
        if here is None and there is None:
            return None
        return [here or text, there]

    def address(self, trace_id: str) -> str | None:
        """Where Jaeger shows a trace."""
        known = self.jaeger is not None and _TRACE_ID.fullmatch(trace_id)
        return f"{self.jaeger}/trace/{trace_id}" if known else None

    def elsewhere(self, trace_id: str) -> Markup | None:
        """A link to Jaeger."""
        url = self.address(trace_id)
        if url is None:
            return None
        return element("a", "Jaeger", href=url, target="_blank", rel="noopener noreferrer", class_="elsewhere")


def anchor(trace_id: str) -> str:
    """Where a trace is on the page: its script answers to it."""
    return f"#trace-{quote(words.clean(trace_id), safe='')}"
