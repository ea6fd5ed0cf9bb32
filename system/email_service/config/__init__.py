"""Settings: the environment, read once, checked, frozen, with units in the names.

Never logs a value. Called by ``__main__`` and, in worker processes, by ``celery_app``.

variables       the table: names, defaults, what they are for
reading         one value at a time, and what is wrong with it
settings        what comes out
contradictions  values that are wrong together
names           names that nobody reads
environment     all of it
"""

from email_service.config.environment import (
    TIME_SCALE_RANGE,
    database_url,
    log_choice,
    problems_of,
    settings_from,
    shown,
    token_secret,
)
from email_service.config.reading import KEY_BYTES
from email_service.config.settings import Settings
from email_service.config.variables import VARIABLES, Variable, markdown

__all__ = [
    "KEY_BYTES",
    "TIME_SCALE_RANGE",
    "VARIABLES",
    "Settings",
    "Variable",
    "database_url",
    "log_choice",
    "markdown",
    "problems_of",
    "settings_from",
    "shown",
    "token_secret",
]
