"""aiosmtpd as its documentation starts it, as a process of its own: ``stock_aiosmtpd.py HOST PORT``.

Run by neighbours, to be measured beside fakemail.
"""

from __future__ import annotations

import signal
import sys

from aiosmtpd.controller import Controller


class Sink:
    """Takes every message and drops it."""

    async def handle_DATA(self, _server, _session, _envelope):  # noqa: N802  # aiosmtpd's name
        return "250 OK"


if __name__ == "__main__":
    controller = Controller(Sink(), hostname=sys.argv[1], port=int(sys.argv[2]))
    controller.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    controller.stop()
