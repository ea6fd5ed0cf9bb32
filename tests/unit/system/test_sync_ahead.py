"""One item ahead, never two; what the thread raises is the caller's, and a caller that leaves ends the thread."""

from __future__ import annotations

import contextvars
import threading

import pytest

from email_service.service.syncing.ahead import Ahead

DEADLINE_S = 10.0


class Made:
    """Counts what has been made; waits for a number of it."""

    def __init__(self):
        self.count = 0
        self.changed = threading.Condition()

    def numbers(self, stop):
        for number in range(stop):
            with self.changed:
                self.count += 1
                self.changed.notify_all()
            yield number

    def reaches(self, count):
        with self.changed:
            return self.changed.wait_for(lambda: self.count >= count, DEADLINE_S)


def ended():
    return not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_all_items_come_in_their_order():
    with Ahead() as ahead:
        assert list(ahead.over(iter(range(100)))) == list(range(100))
    assert ended()


def test_nothing_is_an_answer_too():
    with Ahead() as ahead:
        assert list(ahead.over(iter(()))) == []


def test_the_next_item_is_made_while_the_present_one_is_used_and_no_other():
    made = Made()
    with Ahead() as ahead:
        for number in ahead.over(made.numbers(5)):
            assert made.reaches(min(number + 2, 5))
            assert made.count <= number + 2


def test_beside_a_heavy_item_none_is_made():
    made = Made()
    with Ahead() as ahead:
        for number in ahead.over(made.numbers(5), is_heavy=lambda _: True):
            assert made.count == number + 1


def test_an_error_comes_after_the_items_before_it():
    def broken():
        yield 1
        yield 2
        raise LookupError("three")

    taken = []
    with pytest.raises(LookupError, match="three"), Ahead() as ahead:
        taken.extend(ahead.over(broken()))
    assert taken == [1, 2]
    assert ended()


def test_a_caller_that_leaves_ends_the_thread():
    made = Made()
    with Ahead() as ahead:
        assert 3 in ahead.over(made.numbers(1000))
    assert ended()
    assert made.count <= 6


def test_a_caller_that_never_begins_has_no_thread():
    with Ahead():
        assert ended()


def test_what_the_thread_waits_for_is_ended_first():
    gate = threading.Event()

    def waiting():
        yield 1
        gate.wait(DEADLINE_S)
        yield 2

    with Ahead() as ahead:
        assert next(ahead.over(waiting())) == 1
        gate.set()
    assert ended()


def test_the_thread_runs_in_the_caller_s_context():
    variable = contextvars.ContextVar("variable")
    variable.set("the caller's")

    def items():
        yield variable.get()

    with Ahead() as ahead:
        assert list(ahead.over(items())) == ["the caller's"]
