"""A mailbox into PostgreSQL: beside mbsync into a Maildir from the same fakemail, and a synchronisation without news.

Ours is the whole way of one worker process: IMAP, MIME, digests, attachments on the disk, rows and token in a commit
per batch. mbsync writes the messages as they are. Both make each message safe before they go on.
Called by: ``make bench``. Never does: judge where mbsync or the embedded PostgreSQL is not installed.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import neighbours
import pytest
import speed

from email_service import imap
from email_service.service import syncing
from email_service.vault import Secret

sys.path.append(str(Path(__file__).parents[1] / "tests" / "stack"))
import use_cases  # a desk is no fixture: the tests' helper serves here too
from use_cases import PASSWORD, Desk

USER = "ann@example.test"
COUNT, SEED, TENANT, ROUNDS = 2500, 1, "bench", 5
#: The folder that has no news.
QUIET = 20_000


@pytest.fixture(scope="module")
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def fakes(opened):
    running = opened.enter_context(neighbours.fakemail())
    running.control.add_user(USER, PASSWORD)
    running.control.seed(USER, count=COUNT, seed=SEED, digests=False)
    return running.control


@pytest.fixture(scope="module")
def tools(opened):
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
    return opened.enter_context(use_cases.workbench(folder, TENANT))


@pytest.fixture
def told(capsys):
    """Prints a line that stays."""

    def tell(line):
        with capsys.disabled():
            print(f"\n{line}", end="")  # noqa: T201  # a bench's figure is for people

    return tell


def bench_sync_beside_mbsync(benchmark, fakes, tools, told):
    """Messages of 20 kB a second, in turns."""
    cpu_us = []

    def ours():
        desk = Desk.open(tools, TENANT, address=USER, fakes=fakes)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        assert desk.sync()["messages"] == COUNT
        took_s = time.perf_counter() - began_s
        cpu_us.append((time.process_time() - cpu_s) / COUNT * 1e6)
        desk.change("DELETE FROM email_clients WHERE id = :id", id=desk.client_id)
        return COUNT / took_s

    mine, theirs = speed.duel(benchmark, ours, _mbsync(fakes), rounds=ROUNDS)
    row = speed.compared(
        key="sync-mbsync",
        what="a mailbox of 20 kB messages into PostgreSQL",
        unit="messages/s",
        figures=(mine, theirs),
        neighbour="mbsync into a Maildir",
        absent="" if theirs else "mbsync: apt-get install isync",
        target=speed.Target(of="value", sign=">=", number=2500),
    )
    benchmark.extra_info |= {"messages_per_s": row.ours, "cpu_us_per_message": statistics.median(cpu_us)}
    for line in speed.text([row]):
        told(line)
    told(f"of which CPU of our process: {statistics.median(cpu_us):.0f} us a message (target <= 350)\n")


def _mbsync(fakes):
    """Reads the mailbox into a new Maildir; None where it is not installed."""
    program = shutil.which("mbsync")
    if program is None:
        return None

    def read():
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "mbsyncrc"
            config.write_text(
                f"IMAPAccount fake\nHost {fakes.imap.host}\nPort {fakes.imap.port}\nUser {USER}\nPass {PASSWORD}\n"
                "SSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount fake\n\n"
                f"MaildirStore near\nPath {folder}/\nInbox {folder}/INBOX\n\n"
                "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n"
            )
            began_s = time.perf_counter()
            subprocess.run(
                [program, "-q", "-c", str(config), "all"], check=True, timeout=120, stderr=subprocess.DEVNULL
            )
            took_s = time.perf_counter() - began_s
            assert sum(len(list((Path(folder) / "INBOX" / name).iterdir())) for name in ("new", "cur")) == COUNT
            return COUNT / took_s

    return read


# --- no news


@pytest.fixture(scope="module")
def quiet(fakes, tools):
    """A client whose folder of 20,000 messages has been read to its end; only the token is kept, not the rows."""
    address = "quiet@example.test"
    fakes.add_user(address, PASSWORD)
    fakes.seed(address, count=QUIET, seed=SEED, digests=False)
    desk = Desk.open(tools, TENANT, address=address, fakes=fakes)
    with imap.open_session(_endpoint(fakes.imap, address), 30) as session:
        remotes = session.folders()
    lease = desk.lease(desk.enqueue("sync_emails")).lease
    with tools.database.session(desk.scope) as rows:
        syncing.folders.reconcile(rows, lease, remotes)
        rows.commit()
    for remote in remotes:
        token = imap.SyncToken(
            uidvalidity=remote.status.uidvalidity,
            last_uid=remote.status.uidnext - 1,
            highestmodseq=remote.status.highestmodseq,
            uidnext=remote.status.uidnext,
            messages=remote.status.messages,
        )
        desk.change(
            "UPDATE email_folders SET sync_token = jsonb_build_object('uidvalidity', CAST(:uidvalidity AS bigint), "
            "'last_uid', CAST(:last_uid AS bigint), 'highestmodseq', CAST(:highestmodseq AS bigint), "
            "'uidnext', CAST(:uidnext AS bigint), 'messages', CAST(:messages AS bigint)) "
            "WHERE client_id = :client AND name = :name",
            client=desk.client_id,
            name=remote.name,
            **token.to_json(),
        )
    return desk


def bench_sync_without_news(benchmark, fakes, quiet, told):
    """Login, LIST with STATUS, logout: the folder is not even opened."""
    endpoint = _endpoint(fakes.imap, quiet.address)
    rows = quiet.rows("SELECT name, sync_token FROM email_folders WHERE client_id = :id", id=quiet.client_id)
    tokens = {row["name"]: imap.SyncToken.from_json(row["sync_token"]) for row in rows}
    times_ms = []

    def ask(to):
        with imap.open_session(to, 30) as session:
            began_s = time.perf_counter()
            assert all(tokens[remote.name].is_current(remote.status) for remote in session.folders())
            times_ms.append((time.perf_counter() - began_s) * 1000)

    benchmark.pedantic(ask, args=(endpoint,), rounds=30, warmup_rounds=2)
    with (
        _counted(fakes.imap) as (where, counts),
        imap.open_session(_endpoint(where, quiet.address), 30) as session,
    ):
        before = sum(counts)
        session.folders()
        moved_bytes = sum(counts) - before
    assert quiet.sync()["messages"] == 0
    began_s = time.perf_counter()
    quiet.sync()
    whole_ms = (time.perf_counter() - began_s) * 1000
    benchmark.extra_info |= {"bytes": moved_bytes, "ms": statistics.median(times_ms), "whole_ms": whole_ms}
    told(
        f"no news in {QUIET} messages: {moved_bytes} bytes after the login (target <= 1000), "
        f"{statistics.median(times_ms):.2f} ms (target <= 10); the whole job with its rows {whole_ms:.0f} ms\n"
    )
    assert moved_bytes <= 1000


def _endpoint(server, address):
    return imap.ImapEndpoint(
        host=server.host, port=server.port, encryption="none", username=address, password=Secret(PASSWORD)
    )


@contextlib.contextmanager
def _counted(server):
    """A way to the server for one client that counts bytes: its port, and what went to and fro."""
    counts = [0, 0]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry(source, target, index):
            while data := source.recv(65_536):
                counts[index] += len(data)
                target.sendall(data)
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

        def serve():
            with listener.accept()[0] as near, socket.create_connection((server.host, server.port)) as far:
                back = threading.Thread(target=carry, args=(far, near, 1))
                back.start()
                carry(near, far, 0)
                back.join()

        serving = threading.Thread(target=serve)
        serving.start()
        yield SimpleNamespace(host="127.0.0.1", port=listener.getsockname()[1]), counts
        serving.join()
