"""The rules of the queue, held against the promises in contract.toml: two sources on purpose."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from email_service import policy
from email_service.errors import (
    AuthenticationError,
    ConnectError,
    DeliveryUnknownError,
    SmtpError,
    TimeLimitError,
)

CONTRACT = tomllib.loads((Path(__file__).parents[3] / "loadtests" / "contract.toml").read_text())


def test_the_backoff_doubles_from_five_seconds_and_stops_at_ten_minutes():
    assert [policy.backoff_s(n) for n in range(9)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_message_priorities_are_ten_minus_the_documents():
    assert {q: r.message_priority for q, r in policy.QUEUES.items()} == {
        "sync": 0,
        "send": 2,
        "delete": 5,
        "spam": 7,
        "periodic": 0,
    }


def test_every_message_priority_has_a_step_of_its_own():
    assert {r.message_priority for r in policy.QUEUES.values()} == set(policy.PRIORITY_STEPS)


@pytest.mark.parametrize("error", [ConnectError("x"), SmtpError("x", reply_code=451), TimeLimitError("x")])
def test_a_transient_error_is_retried_until_the_retries_are_spent(error):
    assert policy.decide(error, attempt=0, max_retries=3) == policy.RetryIn(delay_s=5)
    assert policy.decide(error, attempt=2, max_retries=3) == policy.RetryIn(delay_s=20)
    assert policy.decide(error, attempt=3, max_retries=3) == policy.GiveUp(reason="retries-exhausted")


@pytest.mark.parametrize(
    "error", [AuthenticationError("x"), DeliveryUnknownError("x"), SmtpError("x", transient=False)]
)
def test_a_permanent_or_indefinite_error_is_never_retried(error):
    assert isinstance(policy.decide(error, attempt=0, max_retries=3), policy.GiveUp)


def test_a_defect_is_not_retried():
    assert policy.decide(ZeroDivisionError(), attempt=0, max_retries=3) == policy.GiveUp(reason="internal-error")


@pytest.mark.parametrize("scale", [0.05, 0.1, 0.5, 1.0])
def test_a_lease_outlives_the_hard_limit_and_the_soft_limit_leaves_time_to_commit(scale):
    hard_s, soft_s = policy.limits_s(scale)
    assert hard_s - soft_s >= policy.LIMIT_GAP_S_MIN
    assert policy.lease_s(scale) > hard_s


def test_the_limits_at_full_length_are_the_documents():
    assert policy.limits_s(1.0) == (300.0, 280.0)


def test_the_grace_of_a_republish_doubles_up_to_its_cap():
    assert [policy.publish_grace_s(n) for n in (1, 2, 3, 20)] == [20, 40, 80, 600]


def test_the_priority_lists_are_kombus():
    assert policy.priority_key("sync", 0) == "sync"
    assert policy.priority_key("send", 2) == "send\x06\x162"
    assert policy.priority_key("spam", 9) == "spam\x06\x167"
