"""Other programs: each is used where it is installed, missed by name on a laptop, and demanded where CI is set."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def program():
    """The path of a program, by its name and the Debian package that has it."""

    def find(package, *names):
        path = next((found for name in names if (found := shutil.which(name))), None)
        if path is None:
            missing = f"{names[0]} is not installed: apt-get install {package}"
            if os.environ.get("CI"):
                pytest.fail(missing)
            pytest.skip(missing)
        return path

    return find
