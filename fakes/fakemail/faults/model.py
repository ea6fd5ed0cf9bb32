"""A fault: one way to misbehave, as data.

Owns: what a fault is and the form it is written in. Never does: reading that form (parse), counting (plan).
Called by: parse, plan, control (``as_dict``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fakemail.faults.actions import Action
from fakemail.faults.schedules import When


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to misbehave: where, when, for whom, what."""

    #: Unique in its plan.
    id: str
    #: A key of ``POINTS``.
    point: str
    when: When
    action: Action
    #: Patterns (shell style, any case of letters) that the event must fit, by key.
    match: Mapping[str, str] = field(default_factory=dict)
    #: A key of ``SCOPES``.
    scope: str = "server"

    def as_dict(self) -> dict[str, object]:
        """The form that ``parse_fault`` reads."""
        said: dict[str, object] = {
            "id": self.id,
            "point": self.point,
            "when": self.when.as_dict(),
            "action": self.action.as_dict(),
        }
        if self.match:
            said["match"] = dict(self.match)
        if self.scope != "server":
            said["scope"] = self.scope
        return said
