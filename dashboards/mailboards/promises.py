"""The numbers that were promised to users, from ``loadtests/contract.toml``: dashboards and alerts draw no others.

Called by alerts and the boards.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_CONTRACT: Final = tomllib.loads((ROOT / "loadtests" / "contract.toml").read_text())
_MIB: Final = 1024 * 1024

CONCURRENCY: Final[int] = _CONTRACT["worker"]["concurrency"]
HELD_MAX: Final[int] = _CONTRACT["worker"]["held_max"]
PREFETCH: Final[int] = _CONTRACT["worker"]["prefetch_multiplier"]
MEMORY_BYTES: Final[int] = _CONTRACT["memory"]["total_mib"] * _MIB
PROCESS_BYTES: Final[int] = _CONTRACT["memory"]["process_mib"] * _MIB
SYNC_EVERY_S: Final[int] = _CONTRACT["beat"]["periodic_sync_s"]
VISIBILITY_S: Final[int] = _CONTRACT["broker"]["visibility_s"]
#: Queues with their number on the wire, in the order in which they are served.
QUEUES: Final[tuple[tuple[str, int], ...]] = tuple(sorted(_CONTRACT["priority"].items(), key=lambda pair: pair[1]))
