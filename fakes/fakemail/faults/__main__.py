"""python -m fakemail.faults: the catalogue of faults as Markdown, as fakes/README.md holds it."""

from __future__ import annotations

import sys

from fakemail.faults.table import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
