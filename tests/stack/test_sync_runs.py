"""A synchronisation that is cut off, overtaken or refused: nothing is lost, nothing comes twice."""

from __future__ import annotations

import signal
import threading
import uuid

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text

from email_service.errors import (
    AuthenticationError,
    ConnectError,
    DatabaseError,
    ImapError,
    LeaseLostError,
    NotFoundError,
    TimeLimitError,
)
from email_service.service import syncing
from email_service.service.syncing import mailbox, store

ADDRESS = "ann@example.test"
LETTER = b"From: bob@example.test\r\nMessage-ID: <%d@test>\r\nSubject: s\r\n\r\nhello\r\n"


class Killed(BaseException):
    """No handler of ours may see a SIGKILL."""


@pytest.fixture
def full(desk, monkeypatch):
    """Twenty letters, to be read in batches of three."""
    monkeypatch.setattr(mailbox, "BATCH", 3)
    for n in range(20):
        desk.fakes.append(ADDRESS, LETTER % n)
    return desk


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def every(monkeypatch, count, action):
    """Do something after every so many commits of batches."""
    commit, commits = store._commit, []

    def counted(*args, **options):
        answer = commit(*args, **options)
        commits.append(1)
        if len(commits) % count == 0:
            action()
        return answer

    monkeypatch.setattr(store, "_commit", counted)
    return commits


def die():
    raise Killed


# --- kills


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_after_a_kill_the_next_execution_goes_on_from_the_last_commit(full, monkeypatch, batches):
    job_id = full.enqueue("sync_emails")
    work = full.lease(job_id)
    with monkeypatch.context() as patch:
        every(patch, batches, die)
        with pytest.raises(Killed):
            syncing.sync_mailbox(work)
    full.kill(work)
    assert full.state() == full.server_state()[: 3 * batches]
    assert full.folder()["message_count"] == 3 * batches
    served = [e for e in full.fakes.ledger() if e["kind"] == "served"][-1]["seq"]
    result = full.run(syncing.sync_mailbox, job_id).result
    # Counts add up over the executions of a job.
    assert (result["outcome"], result["messages"]) == ("synced", 20)
    assert full.state() == full.server_state()
    again = sum(e.get("messages", 0) for e in full.fakes.ledger(served) if e.get("command") == "UID FETCH")
    # Sizes and bodies of what was left, not of what was there.
    assert again == 2 * (20 - 3 * batches)


def test_a_kill_between_the_rows_and_their_commit_leaves_neither_rows_nor_token(full, monkeypatch):
    job_id = full.enqueue("sync_emails")
    work = full.lease(job_id)
    with monkeypatch.context() as patch:
        patch.setattr(store.jobs, "progress", lambda *_args, **_options: die())
        with pytest.raises(Killed):
            syncing.sync_mailbox(work)
    full.kill(work)
    assert (full.state(), full.folder()["sync_token"]) == ([], None)
    assert full.run(syncing.sync_mailbox, job_id).result["messages"] == 20


def test_an_execution_that_lost_its_lease_writes_nothing_more(full, monkeypatch):
    work = full.lease(full.enqueue("sync_emails"))
    every(monkeypatch, 2, lambda: full.kill(work))
    with pytest.raises(LeaseLostError):
        syncing.sync_mailbox(work)
    assert len(full.state()) == 6
    assert threads() == []


# --- the soft time limit


def strike(*_signal):
    raise SoftTimeLimitExceeded


@pytest.fixture
def struck():
    """The signal that billiard sends, so many seconds from now."""
    before = signal.signal(signal.SIGUSR1, strike)
    timers = []

    def after(delay_s):
        main = threading.main_thread().ident
        timers.append(threading.Timer(delay_s, signal.pthread_kill, [main, signal.SIGUSR1]))
        timers[-1].start()

    yield after
    for timer in timers:
        timer.cancel()
        timer.join()
    signal.signal(signal.SIGUSR1, before)


def test_a_huge_folder_takes_as_many_executions_as_it_needs(full, monkeypatch):
    job_id = full.enqueue("sync_emails")
    every(monkeypatch, 2, lambda: len(full.state()) == 20 or strike())
    for execution in range(1, 4):
        with pytest.raises(TimeLimitError):
            full.run(syncing.sync_mailbox, job_id)
        assert len(full.state()) == 6 * execution
        assert full.job(job_id)["result"]["messages"] == 6 * execution
    result = full.run(syncing.sync_mailbox, job_id).result
    assert (result["outcome"], result["messages"]) == ("synced", 20)
    assert full.state() == full.server_state()
    assert [e["outcome"] for e in full.job(job_id)["executions"]] == ["retry"] * 3 + ["succeeded"]
    assert threads() == []


@pytest.mark.parametrize("where", ["in the database", "in the server"])
def test_the_limit_is_told_as_such_wherever_it_strikes(full, monkeypatch, struck, where):
    job_id = full.enqueue("sync_emails")
    take, commits = store._take, []

    def slow(session, prepared):
        take(session, prepared)
        commits.append(1)
        if len(commits) == 2:
            if where == "in the database":
                struck(0.1)
                session.execute(text("SELECT pg_sleep(30)"))
            else:
                full.fakes.put_fault("imap.command", match={"command": "FETCH"}, fault_id="slow", stall=True)
                struck(0.3)

    monkeypatch.setattr(store, "_take", slow)
    with pytest.raises(TimeLimitError):
        full.run(syncing.sync_mailbox, job_id)
    assert threads() == []
    full.fakes.clear_faults()
    assert full.run(syncing.sync_mailbox, job_id).result["messages"] == 20
    assert full.state() == full.server_state()


def test_a_server_that_is_too_slow_for_a_single_batch_is_a_failure_and_no_endless_story(full, struck):
    job_id = full.enqueue("sync_emails")
    with full.fakes.fault("imap.command", match={"command": "FETCH"}, stall=True):
        struck(0.3)
        with pytest.raises(ImapError) as caught:
            full.run(syncing.sync_mailbox, job_id)
    assert caught.value.transient
    # Then it is asked for less at once.
    commits = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailbox, "BATCH", 8)
        commits = every(patch, 1, lambda: None)
        full.run(syncing.sync_mailbox, job_id)
    assert len(commits) >= 5


# --- others


def test_two_synchronisations_of_one_client_do_not_overlap(full, monkeypatch):
    inner = []
    every(monkeypatch, 2, lambda: inner or inner.append(0) or inner.append(full.sync()))
    assert full.sync()["messages"] == 20
    assert inner[1] == {"outcome": "already-syncing", "folders": 0, "messages": 0}
    assert full.state() == full.server_state()
    # And when it is over, the client is free.
    assert full.sync()["outcome"] == "synced"


def test_a_client_that_was_disabled_says_so(full):
    full.change("UPDATE email_clients SET enabled = false")
    job_id = full.enqueue("sync_emails")
    assert full.run(syncing.sync_mailbox, job_id).outcome == "disabled"
    assert (full.job(job_id)["state"], full.job(job_id)["outcome"]) == ("succeeded", "disabled")
    assert full.state() == []


def test_a_client_that_is_removed_meanwhile_ends_the_synchronisation(full, monkeypatch):
    every(monkeypatch, 2, lambda: full.change("DELETE FROM email_folders"))
    with pytest.raises(NotFoundError):
        full.sync()
    assert threads() == []


def test_mail_that_comes_while_a_folder_is_read_is_neither_lost_nor_doubled(full, monkeypatch):
    number = iter(range(100, 200))

    def arrive():
        full.fakes.append(ADDRESS, LETTER % next(number))
        full.fakes.expunge(ADDRESS, full.server_state()[0][0])
        full.fakes.set_flags(ADDRESS, full.server_state()[1][0], ["\\Seen"])

    with monkeypatch.context() as patch:
        every(patch, 1, arrive)
        full.sync()
    full.sync()
    assert full.state() == full.server_state()
    assert len({row[2] for row in full.state()}) == len(full.state())


@pytest.mark.parametrize("preset", ["arrive-between-search-and-fetch", "expunge-between-search-and-fetch"])
def test_what_happens_between_search_and_fetch_is_told_next_time(full, preset):
    faults = full.fakes.preset(preset)
    full.sync()
    for fault in faults:
        full.fakes.remove_fault(fault.id)
    full.sync()
    assert full.state() == full.server_state()


@pytest.mark.parametrize("preset", ["imap-bye-midway", "drop-in-literal", "imap-connection-drops", "o365-throttle"])
def test_a_server_that_breaks_off_costs_a_retry_and_no_mail(full, preset):
    full.fakes.preset(preset)
    job_id = full.enqueue("sync_emails")
    for _ in range(4):
        try:
            result = full.run(syncing.sync_mailbox, job_id).result
            break
        except (ImapError, ConnectError) as err:
            assert err.transient  # noqa: PT017
    assert result["messages"] == 20
    assert full.state() == full.server_state()
    assert threads() == []


def test_a_wrong_password_is_told_as_such(full):
    full.fakes.preset("imap-login-refused")
    with pytest.raises(AuthenticationError) as caught:
        full.sync()
    assert not caught.value.transient


def test_a_database_that_drops_the_connection_costs_a_retry(full, monkeypatch, system_rows):
    job_id = full.enqueue("sync_emails")
    take, taken = store._take, []

    def cut(session, prepared):
        take(session, prepared)
        taken.append(1)
        if len(taken) == 2:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(store, "_take", cut)
    with pytest.raises(DatabaseError) as caught:
        full.run(syncing.sync_mailbox, job_id)
    assert caught.value.transient
    assert full.run(syncing.sync_mailbox, job_id).result["messages"] == 20


def test_a_spam_check_is_asked_for_once_whatever_is_repeated(full, monkeypatch):
    job_id = full.enqueue("sync_emails")
    every(monkeypatch, 2, lambda: len(full.state()) == 20 or strike())
    for _ in range(3):
        with pytest.raises(TimeLimitError):
            full.run(syncing.sync_mailbox, job_id)
    full.run(syncing.sync_mailbox, job_id)
    asked = full.rows("SELECT args FROM jobs WHERE name = 'email_service.tasks.check_spam'")
    ids = [message_id for job in asked for message_id in job["args"]["message_ids"]]
    assert sorted(ids) == sorted(str(row["id"]) for row in full.messages())
    assert all(uuid.UUID(message_id) for message_id in ids)
