"""What a task's shell does where no broker and no database are needed to see it."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from email_service import tasks
from email_service.errors import DatabaseError, InternalError, LeaseLostError, SmtpError
from email_service.service import work as service_work
from email_service.service.work import insist


@pytest.fixture
def work(monkeypatch):
    """An execution that has run for so many of its lease's 300 seconds."""
    monkeypatch.setattr(service_work, "PAUSE_S", 0.001)

    def after(ran_s):
        now = datetime.now(UTC)
        return SimpleNamespace(
            tools=SimpleNamespace(settings=SimpleNamespace(lease_s=300.0), clock=lambda: now),
            lease=SimpleNamespace(started_at=now - timedelta(seconds=ran_s)),
        )

    return after


def failing(*errors, answer="done"):
    left = list(errors)

    def change():
        if left:
            raise left.pop(0)
        return answer

    return change


def test_what_must_not_be_forgotten_is_tried_until_the_database_is_back(work):
    assert insist(work(10), failing(DatabaseError("a"), DatabaseError("b"))) == "done"


def test_it_is_not_tried_beyond_the_lease(work):
    with pytest.raises(DatabaseError):
        insist(work(299.9995), failing(*[DatabaseError("away")] * 1000))


def test_a_lost_lease_is_not_argued_with(work):
    with pytest.raises(LeaseLostError):
        insist(work(10), failing(LeaseLostError("job")))


def test_an_error_travels_on_without_what_led_to_it():
    """Celery writes the traceback to Redis, and a cause may quote a row or a reply."""
    err = SmtpError("250 recipients")
    err.__cause__ = err.__context__ = ValueError("canary-cause")
    assert "canary" in "".join(traceback.format_exception(err))
    alone = tasks._alone(err)
    assert "canary" not in "".join(traceback.format_exception(alone))
    assert "250 recipients" in str(alone)


@pytest.mark.parametrize(
    ("err", "kept"),
    [
        (SmtpError("550 no such user"), "550 no such user"),
        (SmtpError("x" * 5000), "x" * 300),
        (SmtpError(), None),
        (InternalError("KeyError"), "KeyError"),
    ],
)
def test_the_row_keeps_what_our_own_error_says_and_no_more_than_300_characters(err, kept):
    assert tasks._detail(err) == kept


def test_a_defect_is_called_one():
    assert InternalError("KeyError").code == "internal-error"
