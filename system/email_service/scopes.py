"""Scope(tenant, user): whose rows and whose work something is. Pure; ``tenancy`` opens the door that it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from email_service.errors import InvalidRequestError

_TENANT: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Whose rows these are."""

    tenant_id: str
    user_id: str


#: The principal of beat's own tasks; its rows belong to a tenant of that name.
SYSTEM: Final = Scope(tenant_id="system", user_id="system")


def check_tenant_name(name: str) -> str:
    """A name that may stand in a path.

    Raises:
        InvalidRequestError: it is reserved, or holds something else than a-z, 0-9 and hyphens.
    """
    if not _TENANT.fullmatch(name) or name == SYSTEM.tenant_id:
        raise InvalidRequestError(f"tenant {name!r}: use a-z, 0-9 and -, begin with a letter, and not 'system'")
    return name
