"""Taking 2,000 messages of 20 kB over ten connections: beside Postfix's smtp-sink and stock aiosmtpd.

The load is Postfix's smtp-source; smtp-sink and the aiosmtpd handler take a message and drop it. fakemail takes it,
digests it for the ledger and keeps it only if the recipient is a user: the last row delivers to one.
"""

from __future__ import annotations

import contextlib
import subprocess
import time

import neighbours
import pytest
from neighbours import PASSWORD, USER, Absent, AbsentError
from speed import Target, compared, duel

COUNT, CONNECTIONS, SIZE_BYTES = 2000, 10, 20_000
NOBODY = "nobody@elsewhere.test"


@pytest.fixture(scope="module")
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def fakes(opened):
    return opened.enter_context(neighbours.fakemail())


@pytest.fixture(scope="module")
def source():
    try:
        return neighbours.smtp_source()
    except AbsentError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="module")
def sink(opened):
    return neighbours.opened_or_absent(opened, neighbours.smtp_sink(), "smtp-sink")


@pytest.fixture(scope="module")
def aiosmtpd(opened):
    return neighbours.opened_or_absent(opened, neighbours.stock_aiosmtpd(), "aiosmtpd")


def speed_of(source, server, recipient=NOBODY):
    """Messages a second; None for a server that is absent."""
    if isinstance(server, Absent):
        return None
    load = ["-s", str(CONNECTIONS), "-m", str(COUNT), "-l", str(SIZE_BYTES), "-d"]
    argv = [source, *load, "-f", "sender@elsewhere.test", "-t", recipient, f"{neighbours.HOST}:{server.port}"]

    def measure():
        began = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)  # our own arguments
        took = time.perf_counter() - began
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return COUNT / took

    return measure


def facts(server):
    """How a row names its neighbour."""
    if isinstance(server, Absent):
        return {"neighbour": server.name, "absent": server.how}
    return {"neighbour": server.name}


def accepted(fakes):
    """How many messages the ledger has."""
    return sum(entry["kind"] == "accepted" for entry in fakes.control.ledger())


@pytest.mark.benchmark(group="take 2,000 messages of 20 kB")
def bench_smtp_beside_smtp_sink(benchmark, speeds, source, fakes, sink):
    fakes.control.reset()
    figures = duel(benchmark, speed_of(source, fakes.smtp), speed_of(source, sink), rounds=21)
    assert accepted(fakes) == COUNT * 22, "twenty-one rounds and the first, all of them taken"
    speeds.add(
        compared(
            key="smtp-source",
            what="`smtp-source -s 10 -m 2000 -l 20000 -d`",
            unit="msg/s",
            figures=figures,
            target=Target(of="ratio", sign=">=", number=0.9),
            **facts(sink),
        )
    )


@pytest.mark.benchmark(group="take 2,000 messages of 20 kB")
def bench_smtp_beside_stock_aiosmtpd(benchmark, speeds, source, fakes, aiosmtpd):
    figures = duel(benchmark, speed_of(source, fakes.smtp), speed_of(source, aiosmtpd), rounds=5)
    speeds.add(
        compared(
            key="smtp-source-aiosmtpd",
            what="`smtp-source -s 10 -m 2000 -l 20000 -d`",
            unit="msg/s",
            figures=figures,
            target=Target(of="ratio", sign=">=", number=4),
            **facts(aiosmtpd),
        )
    )


@pytest.mark.benchmark(group="take 2,000 messages of 20 kB")
def bench_smtp_with_delivery(benchmark, speeds, source, fakes, sink):
    """To a user of fakemail: each message is kept in the INBOX."""
    fakes.control.reset()
    fakes.control.add_user(USER, PASSWORD)
    figures = duel(benchmark, speed_of(source, fakes.smtp, USER), speed_of(source, sink), rounds=3)
    fakes.control.reset()
    speeds.add(
        compared(
            key="smtp-source-delivered",
            what="`smtp-source ...`, delivered to an INBOX",
            unit="msg/s",
            figures=figures,
            **facts(sink),
        )
    )
