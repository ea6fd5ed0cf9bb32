"""Checking for spam: rows in, verdicts out; the lease is held, and nobody else's mail is looked at."""

from __future__ import annotations

import uuid

import pytest

from email_service.errors import LeaseLostError
from email_service.message import parse, spam
from email_service.service import scoring

ADDRESS = "ann@example.test"
HAM = (
    b"From: Bob <bob@example.test>\r\nTo: ann@example.test\r\nDate: Mon, 01 Jan 2024 10:00:00 +0000\r\n"
    b"Message-ID: <ham@example.test>\r\nSubject: Lunch\r\n\r\nShall we have lunch on Thursday?\r\n"
)
SPAM = (
    b"From: PayPal Security <help@cheap-host.example>\r\nReply-To: agent77@gmail.com\r\nTo: ann@example.test\r\n"
    b"Date: Mon, 01 Jan 2024 10:00:00 +0000\r\nMessage-ID: <spam@cheap-host.example>\r\n"
    b"Subject: URGENT: YOUR ACCOUNT HAS BEEN LIMITED!!\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
    b'<p>Dear customer, verify your account:</p><a href="http://198.51.100.7/x">www.paypal.com</a>\r\n'
    b'--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="form.pdf.exe"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nTVo=\r\n--b--\r\n"
)


@pytest.fixture
def full(desk):
    """One letter of each kind, and their rows."""
    desk.fakes.append(ADDRESS, HAM)
    desk.fakes.append(ADDRESS, SPAM)
    desk.sync()
    return desk


def check(desk, message_ids):
    return desk.run(scoring.check_spam, desk.enqueue("check_spam", message_ids=[str(i) for i in message_ids])).result


def test_a_verdict_goes_to_the_row_with_its_reasons(full):
    ham, junk = full.messages()
    assert (junk["is_spam"], junk["spam_score"], junk["spam_checked_at"]) == (False, None, None)
    assert check(full, [ham["id"], junk["id"]]) == {"outcome": "checked", "checked": 2, "spam": 1, "missing": 0}
    ham, junk = full.messages()
    assert (ham["is_spam"], junk["is_spam"]) == (False, True)
    assert ham["spam_score"] < spam.THRESHOLD <= junk["spam_score"]
    assert ham["spam_indicators"] == []
    assert {"brand-elsewhere", "link-disguised", "two-endings"} <= {i["name"] for i in junk["spam_indicators"]}
    assert all(i["detail"] and i["points"] for i in junk["spam_indicators"])
    assert ham["spam_checked_at"] is not None


def test_a_row_scores_as_the_message_that_it_came_from(full):
    check(full, [m["id"] for m in full.messages()])
    for row, raw in zip(full.messages(), (HAM, SPAM), strict=True):
        verdict = spam.score(spam.Suspect.of(parse(raw), received=row["internal_date"]))
        assert row["spam_score"] == verdict.score
        assert [i["name"] for i in row["spam_indicators"]] == [i.name for i in verdict.indicators]


def test_the_job_keeps_the_counts(full):
    job_id = full.enqueue("check_spam", message_ids=[str(m["id"]) for m in full.messages()])
    full.run(scoring.check_spam, job_id)
    job = full.job(job_id)
    assert (job["state"], job["outcome"]) == ("succeeded", "checked")
    assert job["result"] == {"outcome": "checked", "checked": 2, "spam": 1, "missing": 0}


def test_what_is_another_s_or_nobody_s_is_missing_and_not_touched(full):
    ham, junk = full.messages()
    full.change("UPDATE email_messages SET user_id = 'somebody-else' WHERE id = :id", id=junk["id"])
    assert check(full, [ham["id"], junk["id"], uuid.uuid4(), ham["id"]]) == {
        "outcome": "checked",
        "checked": 1,
        "spam": 0,
        "missing": 2,
    }
    assert full.messages()[1]["spam_checked_at"] is None


def test_many_messages_go_in_batches_and_are_all_scored(full, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 2)
    for n in range(3):
        full.fakes.append(ADDRESS, HAM.replace(b"<ham", b"<ham%d" % n))
    full.sync()
    assert check(full, [m["id"] for m in full.messages()])["checked"] == 5
    assert all(m["spam_checked_at"] for m in full.messages())


def test_an_execution_that_has_lost_its_lease_writes_nothing(full):
    ids = [str(m["id"]) for m in full.messages()]
    work = full.lease(full.enqueue("check_spam", message_ids=ids))
    full.kill(work)
    with pytest.raises(LeaseLostError):
        scoring.check_spam(work)
    assert all(m["spam_checked_at"] is None for m in full.messages())


def test_a_second_execution_finds_what_the_first_one_found(full):
    ids = [m["id"] for m in full.messages()]
    check(full, ids)
    before = [(m["spam_score"], m["spam_indicators"]) for m in full.messages()]
    check(full, ids)
    assert [(m["spam_score"], m["spam_indicators"]) for m in full.messages()] == before


def test_what_a_hostile_message_shows_is_stored(full):
    hostile = (
        b"From: \xff\xfe \x01\x02 <x@y.example>\r\nSubject: =?utf-16?b?2AA=?=\r\nContent-Type: text/html\r\n\r\n"
        b'<a href="http://xn--' + b"a" * 40 + b'.example/&#0;&#xD800;">www.b\x00ank.example</a>\r\n'
    )
    full.fakes.append(ADDRESS, hostile)
    full.sync()
    assert check(full, [full.messages()[-1]["id"]])["checked"] == 1
