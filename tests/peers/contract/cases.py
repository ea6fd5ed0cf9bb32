"""The register of cases: each has an area, a sentence for a name, and the capabilities without which it makes no sense.

Owns: the list.
Called by: the case modules, which add to it, and the suite and the matrix, which read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from contract.box import Box

Run = Callable[[Box], None]
#: Areas in the order in which the matrix shows them.
AREAS = (
    "session",
    "TLS",
    "mailboxes",
    "LIST-EXTENDED",
    "STATUS",
    "SELECT",
    "APPEND",
    "FETCH",
    "sections",
    "structure",
    "SEARCH",
    "ESEARCH",
    "STORE",
    "COPY, MOVE, EXPUNGE",
    "news",
    "CONDSTORE",
    "QRESYNC",
    "malformed",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that a client may rely on."""

    #: One of ``AREAS``.
    area: str
    #: The sentence, with underscores.
    name: str
    #: Capabilities that a server must announce for it.
    needs: tuple[str, ...]
    #: Asks the server; fails by an assertion or a RawImapError.
    run: Run

    def ask(self, box: Box) -> None:
        """Run it, after a look at what the server announces."""
        missing = [name for name in self.needs if name not in box.capabilities]
        assert not missing, f"does not announce {', '.join(missing)}"
        self.run(box)


CASES: dict[str, Case] = {}


def case(area: str, *needs: str) -> Callable[[Run], Run]:
    """Register a function as a case."""
    assert area in AREAS

    def register(run: Run) -> Run:
        name = run.__name__
        assert name not in CASES, f"{name} is there twice"
        CASES[name] = Case(area=area, name=name, needs=needs, run=run)
        return run

    return register
