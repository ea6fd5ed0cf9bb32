"""python -m mailrig, and the command mailrig."""

from __future__ import annotations

import sys

from mailrig.cli import main

if __name__ == "__main__":
    sys.exit(main())
