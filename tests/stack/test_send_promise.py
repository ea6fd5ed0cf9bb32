"""The send promise, per (message, recipient), while everything around it is killed, frozen, cut off or forgotten.

``sent`` is in the ledger exactly once, ``failed`` never, ``unknown`` at most once; messages with unknowns never exceed
killed executions plus replies that were lost behind the final dot; every job is settled in time.
"""

from __future__ import annotations

import os
import signal
import threading
import urllib.error
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import psycopg
import pytest
import redis
from waiting import until

FINAL = {"succeeded", "failed", "unknown"}
#: The longest way back is a lease that runs out by itself, at this time scale after 18 s.
DEADLINE_S = 45.0


class Sends:
    """Sends of one test, and what became of them: the ledger beside the rows."""

    def __init__(self, live):
        self.live = live
        self._since = max((entry["seq"] for entry in live.fakes.last(1)), default=0)
        self._tasks = {}

    def put(self, count=1, recipients=1):
        """Ask for so many sends; the task ids."""
        asked = [self._put(n, recipients) for n in range(count)]
        return [answer["task_id"] for answer in asked]

    def _put(self, number, recipients):
        to = [f"r{n}@outside.example" for n in range(recipients)]
        accounts = self.live.accounts
        answer = self.live.send(accounts[number % len(accounts)], to=to)
        self._tasks[answer["task_id"]] = answer["message_id"]
        return answer

    def note(self, task_id, message_id):
        """One whose answer nobody got."""
        self._tasks[task_id] = message_id

    def rows(self, query):
        """Rows of an audit view, of these sends alone."""
        return self.live.rows(f"SELECT * FROM audit.{query}", list(self._tasks))

    def in_state(self, state):
        """How many recipients are in a state."""
        return len(self.rows(f"recipients WHERE job_id = ANY(%s) AND state = '{state}'"))

    def executing(self):
        """Pids of executions that have not ended."""
        return [row["pid"] for row in self.rows("executions WHERE job_id = ANY(%s) AND outcome IS NULL")]

    def killed(self):
        return len(self.rows("executions WHERE job_id = ANY(%s) AND outcome = 'killed'"))

    def settled(self):
        """Waits for the end of all, and holds them to the promise; the jobs' states, counted."""
        until(self._all_final, what="the end of all sends", deadline_s=DEADLINE_S)
        accepted = Counter()
        lost_replies = 0
        for entry in self.live.fakes.ledger(after=self._since, kind="accepted"):
            accepted.update((entry["message_id"], address) for address in entry["rcpt_to"])
            lost_replies += not entry["replied"]
        recipients = self.rows("recipients WHERE job_id = ANY(%s)")
        broken = [row for row in recipients if not self._kept(row, accepted)]
        assert not broken, broken
        unknown = {row["job_id"] for row in recipients if row["state"] == "unknown"}
        assert len(unknown) <= self.killed() + lost_replies, (unknown, self.killed(), lost_replies)
        jobs = self.rows("jobs WHERE job_id = ANY(%s)")
        assert {row["job_id"] for row in jobs} == set(self._tasks)
        return Counter(row["state"] for row in jobs)

    def _all_final(self):
        states = {row["state"] for row in self.rows("jobs WHERE job_id = ANY(%s)")}
        return states and states <= FINAL

    def _kept(self, row, accepted):
        times = accepted[self._tasks[row["job_id"]], row["address"]]
        return times in {"sent": {1}, "failed": {0}, "unknown": {0, 1}}.get(row["state"], ())


@pytest.fixture
def sends(battered):
    """A whole and idle stack, also after a test that has failed."""
    until(lambda: len(battered.stack.worker_children()) == 4, what="a whole worker")
    yield Sends(battered)
    battered.fakes.clear_faults()
    assert battered.stack.broken is None


@pytest.fixture
def fakes(battered):
    return battered.fakes


@pytest.fixture
def stack(battered):
    return battered.stack


# --- processes that are killed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "in_ledger"), [("smtp.data", 0), ("smtp.accepted", 1)])
def test_a_child_that_is_killed_in_data_leaves_its_message_unknown_and_nothing_twice(
    sends, fakes, stack, point, in_ledger
):
    fakes.put_fault(point, first=1, delay_ms=3000)
    (task_id,) = sends.put(recipients=2)
    until(lambda: sends.in_state("transmitting") == 2, what="the transmission")
    if in_ledger:
        # The server has it: only its reply is missing.
        fakes.wait_for("fault", point=point, after=sends._since)
    stack.kill_worker_child(sends.executing()[0])
    assert sends.settled() == {"unknown": 1}
    assert sends.killed() == 1
    assert len(sends.live.task(sends.live.accounts[0], task_id)["executions"]) == 2


def test_a_child_that_is_killed_before_data_sends_its_message_after_all(sends, fakes, stack):
    fakes.put_fault("smtp.rcpt", first=1, delay_ms=3000)
    sends.put()
    (pid,) = until(sends.executing, what="the execution")
    fakes.wait_for("fault", point="smtp.rcpt", after=sends._since)
    stack.kill_worker_child(pid)
    assert sends.settled() == {"succeeded": 1}


def test_a_worker_that_is_killed_with_four_messages_in_data(sends, fakes, stack):
    fakes.put_fault("smtp.accepted", first=6, delay_ms=400)
    sends.put(12)
    until(lambda: sends.in_state("transmitting") >= 2, what="transmissions")
    old = stack.kill_worker_parent()
    states = sends.settled()
    assert states["succeeded"] + states["unknown"] == 12
    assert 1 <= sends.killed() <= 4
    assert stack.worker_pid != old


def test_an_api_that_is_killed_between_the_row_and_its_message(sends, stack):
    """The broker is frozen, so that the API waits in its first words to it with the row committed."""
    old = stack.pids["api"]
    os.kill(old, signal.SIGKILL)
    until(lambda: stack.pids.get("api") not in {None, old} and _answers(sends.live), what="a new API")
    before = {row["job_id"] for row in sends.live.rows("SELECT job_id FROM audit.jobs")}
    broker = psutil.Process(stack.pids["valkey"])
    broker.suspend()
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(sends.put)
            new = "SELECT job_id, message_id, publishes FROM audit.jobs WHERE name LIKE '%%send_email'"
            (row,) = until(lambda: [r for r in sends.live.rows(new) if r["job_id"] not in before], what="the job's row")
            os.kill(stack.pids["api"], signal.SIGKILL)
            assert isinstance(asked.exception(10), OSError)
    finally:
        broker.resume()
    sends.note(row["job_id"], row["message_id"])
    assert sends.settled() == {"succeeded": 1}
    until(lambda: _answers(sends.live), what="a new API")


def _answers(live):
    try:
        return live.call("GET", "/health", token="")[0] == 200
    except (OSError, urllib.error.URLError):
        return False


# --- a worker that is frozen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "state"), [("smtp.rcpt", "succeeded"), ("smtp.data", "unknown")])
def test_a_process_that_is_frozen_past_its_lease_does_no_harm_when_it_thaws(sends, fakes, stack, point, state):
    fakes.put_fault(point, first=1, delay_ms=300)
    (task_id,) = sends.put()
    (pid,) = until(sends.executing, what="the execution")
    frozen = psutil.Process(pid)
    fakes.wait_for("fault", point=point, after=sends._since)
    frozen.suspend()
    try:
        if state == "unknown":
            assert sends.in_state("transmitting") == 1
        _let_the_lease_run_out(stack, task_id)
        assert sends.settled() == {state: 1}
    finally:
        frozen.resume()
    log = stack._options.log_dir / "worker.log"
    until(lambda: _lost_its_lease(log.read_text(), task_id), what="the thawed process's discovery")
    assert sends.settled() == {state: 1}


def _lost_its_lease(log, task_id):
    return any(task_id in line and "lease-lost" in line for line in log.splitlines())


def _let_the_lease_run_out(stack, task_id):
    """Time goes by, for this lease alone."""
    over = "UPDATE jobs SET lease_until = clock_timestamp(), next_publish_at = clock_timestamp() WHERE id = %s"
    with psycopg.connect(stack._env["DATABASE_SYSTEM_URL"]) as connection:
        connection.execute(over, (task_id,))
        connection.execute("NOTIFY mail_due")


# --- a broker that forgets --------------------------------------------------------------------------------------------


def test_a_broker_that_forgets_everything_loses_no_message(sends, stack):
    stack.pause_worker()
    try:
        sends.put(8)
        with redis.Redis.from_url(stack.redis_url) as client:
            client.flushall()
    finally:
        stack.resume_worker()
    sends.put(4)
    assert sends.settled() == {"succeeded": 12}


def test_a_broker_that_is_killed_and_comes_back_empty_loses_no_message(sends, fakes, stack):
    fakes.put_fault("smtp.mail", first=20, delay_ms=100)
    sends.put(8)
    with stack.server_down("valkey", forget=True):
        sends.put(2)
    sends.put(2)
    assert sends.settled() == {"succeeded": 12}


# --- a database that restarts -----------------------------------------------------------------------------------------


def test_a_database_that_is_killed_while_messages_are_in_data(sends, fakes, stack):
    """What the server said meanwhile is known to the workers alone, and is written once the database is back."""
    fakes.put_fault("smtp.accepted", first=4, delay_ms=1200)
    log = stack._options.log_dir / "worker.log"
    sends.put(8)
    until(lambda: sends.in_state("transmitting") == 4, what="all four transmissions")
    with stack.server_down("postgres"):
        until(lambda: log.read_text().count("kept until it is back") >= 2, what="two receipts that can't be written")
    assert sends.settled() == {"succeeded": 8}


# --- replies that are lost --------------------------------------------------------------------------------------------


def test_a_lost_reply_to_the_final_dot_is_unknown_and_never_sent_again(sends, fakes):
    fakes.preset("drop-after-data")
    sends.put(3, recipients=2)
    assert sends.settled() == {"unknown": 1, "succeeded": 2}
    assert sends.killed() == 0


@pytest.mark.parametrize("point", ["smtp.mail", "smtp.rcpt", "smtp.data"])
def test_a_reply_that_is_lost_before_the_message_is_definite_and_the_message_is_sent_once(sends, fakes, point):
    fakes.put_fault(point, first=3, drop=True)
    sends.put(4, recipients=2)
    assert sends.settled() == {"succeeded": 4}


def test_all_at_once(sends, fakes, stack):
    """Kills, lost replies, refusals and a forgetful broker, while messages come in."""
    for preset in ("drop-after-data", "drop-before-data", "greylisting"):
        fakes.preset(preset)
    fakes.put_fault("smtp.accepted", first=20, delay_ms=150, fault_id="slow")
    asking = threading.Thread(target=sends.put, args=(20,))
    asking.start()
    try:
        for _ in range(2):
            pids = until(sends.executing, what="executions")
            stack.kill_worker_child(next(pid for pid in pids if pid in stack.worker_children()))
        with redis.Redis.from_url(stack.redis_url) as client:
            client.flushall()
        stack.kill_worker_parent()
    finally:
        asking.join()
    states = sends.settled()
    assert sum(states.values()) == 20
    assert states["failed"] == 0
