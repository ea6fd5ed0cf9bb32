"""The service's own application, for the probe to look at: ``mailrig.doctor.ours:app``.

Imported by the probe's process alone. The service is named, not imported: the rig knows it by its signals only, and
this process ends with its answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

#: In the place of what the environment does not say; none of it changes what Celery is told.
STAND_INS: Final = {
    "DATABASE_URL": "postgresql://mail_app@127.0.0.1/mail",
    "DATABASE_SYSTEM_URL": "postgresql://mail_system@127.0.0.1/mail",
    "CREDENTIAL_ENCRYPTION_KEY": "A" * 43 + "=",
    "MAIL_TOKEN_SECRET": "-" * 32,
    "MAIL_BLOB_URL": "file:///nowhere",
}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The user's settings, with stand-ins for those without which no process of the service starts."""
    lacking = {
        name: value for name, value in STAND_INS.items() if not given.get(name) and not given.get(f"{name}_FILE")
    }
    if given.get("MAIL_BLOB_DIR"):
        lacking.pop("MAIL_BLOB_URL", None)
    return {**given, **lacking}


def make() -> Any:
    """The application, with its tasks."""
    settings = import_module("email_service.config").settings_from(environment(os.environ))
    made = import_module("email_service.celery_app").celery_for(settings)
    request = import_module("email_service.losses").JobRequest
    # Tasks ask for their tools only when they run, which none does here.
    import_module("email_service.tasks").register(made, None, request=request)
    return made


app = make()
