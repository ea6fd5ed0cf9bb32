"""All servers in a loop of somebody else: what is opened is closed, whatever was going on."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl

import pytest

from fakemail.config import Config, FolderConfig, Seeding, Timeline, UserConfig
from fakemail.serving import FREE_PORTS, Fakes, Options, ServingError

ANN = UserConfig(
    address="ann@example.test",
    password="secret",
    folders=(FolderConfig(name="INBOX", seeding=Seeding(count=50_000), timeline=Timeline(per_s=100)),),
)
CONFIG = Config(users=(ANN,))


def options(**given):
    return Options(ports=FREE_PORTS, config=CONFIG, **given)


async def request(address, text):
    """The control's answer to a request that is its own connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def logged_in(address, *, tls=None):
    reader, writer = await asyncio.open_connection(*address, ssl=tls)
    await reader.readline()
    writer.write(b"a LOGIN ann@example.test secret\r\n")
    assert (await reader.readline()).startswith(b"a OK")
    return reader, writer


def test_all_five_servers_answer_on_the_ports_that_it_says():
    async def run():
        async with Fakes(options()) as fakes:
            assert list(fakes.servers) == ["smtp", "smtps", "imap", "imaps", "control"]
            assert fakes.url == f"http://127.0.0.1:{fakes.servers['control'][1]}"
            tls = ssl.create_default_context(cadata=fakes.certificates.ca_pem.decode())
            for name, greeting in (("smtp", b"220"), ("smtps", b"220"), ("imap", b"* OK"), ("imaps", b"* OK")):
                secured = tls if name.endswith("s") else None
                reader, writer = await asyncio.open_connection(*fakes.servers[name], ssl=secured)
                assert (await reader.readline()).startswith(greeting)
                writer.transport.abort()
            assert b"200 OK" in await request(fakes.servers["control"], "GET /health")

    asyncio.run(run())


def test_after_the_end_no_task_no_socket_and_no_port_is_left():
    """Clients are there in every state: greeted, in IDLE, in mid-answer, under TLS, waiting for the ledger."""

    async def run():
        before = asyncio.all_tasks()
        async with Fakes(options()) as fakes:
            tls = ssl.create_default_context(cadata=fakes.certificates.ca_pem.decode())
            writers = [(await asyncio.open_connection(*fakes.servers["smtp"]))[1]]
            writers.append((await asyncio.open_connection(*fakes.servers["imaps"]))[1])
            for last in (b"b SELECT INBOX\r\nc IDLE\r\n", b"b SELECT INBOX\r\nc FETCH 1:* BODY.PEEK[]\r\n"):
                reader, writer = await logged_in(fakes.servers["imap"])
                writer.write(last)
                await reader.readline()
                writers.append(writer)
            writers.append((await logged_in(fakes.servers["imaps"], tls=tls))[1])
            waiting = asyncio.create_task(request(fakes.servers["control"], "GET /ledger?kind=nothing&wait_s=60"))
            while not fakes.shared.ledger._waiting:  # noqa: ASYNC110  # the ledger tells nobody that somebody waits
                await asyncio.sleep(0)
            addresses = dict(fakes.servers)
        # The one who waited has an answer, not a cut line.
        assert b'"entries": []' in await waiting
        assert asyncio.all_tasks() == before
        assert fakes.shared.connections == set()
        for address in addresses.values():
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        assert fakes.shared.ledger.counts["connect"] == fakes.shared.ledger.counts["disconnect"]

    asyncio.run(run())
    # Warnings are errors: an unclosed socket or a task that was never awaited shows here.
    gc.collect()


def test_a_port_that_is_taken_closes_those_that_were_open_already():
    async def run():
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
            probe.close()
            taken = server.getsockname()[1]
            fakes = Fakes(Options(ports={"smtp": free, "imaps": taken, "control": 0}, config=CONFIG))
            with pytest.raises(ServingError, match=rf"127\.0\.0\.1:{taken} can't be bound .*; choose another --imaps"):
                await fakes.__aenter__()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", free)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_what_is_switched_off_is_not_there():
    async def run():
        async with Fakes(Options(ports={"imap": 0, "control": None})) as fakes:
            assert list(fakes.servers) == ["imap"]
            assert fakes.url is None
            assert fakes.facts()["control"] is None

    asyncio.run(run())


def test_two_in_one_loop_know_nothing_of_each_other():
    async def run():
        async with Fakes(options()) as one, Fakes(Options(ports=FREE_PORTS)) as other:
            _, first = await logged_in(one.servers["imap"])
            first.transport.abort()
            reader, writer = await asyncio.open_connection(*other.servers["imap"])
            await reader.readline()
            writer.write(b"a LOGIN ann@example.test secret\r\n")
            assert (await reader.readline()).startswith(b"a NO")
            writer.transport.abort()
            assert other.shared.store.users == []

    asyncio.run(run())


def test_it_can_be_opened_again():
    async def run():
        for _ in range(3):
            async with Fakes(options()) as fakes:
                _, writer = await logged_in(fakes.servers["imap"])
                writer.transport.abort()

    asyncio.run(run())
    gc.collect()
