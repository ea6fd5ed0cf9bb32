"""Other people's programs: found, or missed by the name of their Debian package.

Owns: the rule that what is missing skips a test on a laptop and fails it where CI is set.
Called by: conftest and the tests of clients.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def missing(what: str) -> None:
    """Skip on a laptop, fail where CI is set: there nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def find_program(package: str, *names: str) -> str:
    """The path of a program, by the Debian package that has it and its names."""
    # Debian's servers are outside the path of a normal user.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = next((place for name in names if (place := shutil.which(name, path=path))), None)
    if found is None:
        missing(f"{names[0]} is not installed: apt-get install {package}")
    return found


def need_perl_module(package: str, module: str) -> None:
    """A module of Perl, by the Debian package that has it."""
    argv = [find_program("perl", "perl"), f"-M{module}", "-e", "1"]
    if subprocess.run(argv, capture_output=True, check=False, timeout=20).returncode != 0:
        missing(f"Perl's {module} is not installed: apt-get install {package}")
