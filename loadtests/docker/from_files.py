"""Run mailrig with its secrets in the environment, from the files that ``NAME_FILE`` names, as containers mount them.

The entrypoint of the rig's image: the service reads such files itself, the rig hands one environment on to whatever it
starts. Says what is wrong in one line; a secret is in no argument and no output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SUFFIX: Final = "_FILE"


class FileError(Exception):
    """A file that a variable names can't be read; the text is for the operator."""


def read_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with ``NAME`` in place of each ``NAME_FILE``.

    Raises:
        FileError: a file can't be read, or the variable is set as well.
    """
    env = {name: value for name, value in environ.items() if not _names_a_file(name)}
    for name, path in environ.items():
        if _names_a_file(name) and path:
            bare = name.removesuffix(_SUFFIX)
            if env.get(bare):
                raise FileError(f"{bare} and {name} are both set; one of them says what it is")
            env[bare] = _content(name, path)
    return env


def _names_a_file(name: str) -> bool:
    # A certificate's path is a setting of its own, and no secret.
    return (
        name.endswith(_SUFFIX) and name != "MAIL_CA_FILE" and name.startswith(("DATABASE_", "REDIS_", "MAIL_", "CRED"))
    )


def _content(name: str, path: str) -> str:
    try:
        text = Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as err:
        raise FileError(f"{name} names {path}, which can't be read ({getattr(err, 'strerror', None) or err})") from err
    if not text:
        raise FileError(f"{name} names {path}, which is empty")
    return text


def main() -> None:
    """Never returns: mailrig takes this process over."""
    try:
        env = read_in(os.environ)
    except FileError as err:
        sys.exit(f"mailrig: {err}")
    os.execvpe("mailrig", ["mailrig", *sys.argv[1:]], env)  # noqa: S606, S607  # the image's own, found by its PATH


if __name__ == "__main__":
    main()
