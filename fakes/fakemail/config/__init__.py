"""The start configuration: users, mail, faults and limits in a TOML file.

Owns: the form of that file, and how a mistake in it is told: file, line, what was given, what would be right.
Never does: serving; the only I/O is ``read_config``. Called by: ``__main__`` and whoever starts the servers in Python:

    config = read_config(Path("fakes.toml"))
    apply(config, store, plan, load=load)

Rule: a key that nobody knows is an error, never a wish that is lost.

model      what a file says
lines      where in the file it says so
reading    the file's form
start      users, mail, faults and limits of a configuration brought in
"""

from fakemail.config.model import (
    Config,
    ConfigError,
    FolderConfig,
    LimitsConfig,
    Seeding,
    ServerConfig,
    Timeline,
    UserConfig,
)
from fakemail.config.reading import parse_config, read_config
from fakemail.config.start import apply

__all__ = [
    "Config",
    "ConfigError",
    "FolderConfig",
    "LimitsConfig",
    "Seeding",
    "ServerConfig",
    "Timeline",
    "UserConfig",
    "apply",
    "parse_config",
    "read_config",
]
