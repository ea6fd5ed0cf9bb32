"""Does it try again when it should, and stop when it should? Run with: pytest fakes/examples."""

import smtplib

import pytest
from retry import send


def test_a_refusal_for_now_is_tried_again(fakemail, mailbox, faults):
    faults.put("smtp.rcpt", reply="451 4.7.1 Try again later", first=2)
    assert send(*fakemail.smtp, to=mailbox.address) == 3
    assert len(mailbox.messages()) == 1


def test_a_refusal_for_good_is_not(fakemail, mailbox, faults):
    unknown = faults.put("smtp.rcpt", reply="550 5.1.1 No such user here")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(*fakemail.smtp, to=mailbox.address)
    assert unknown.counts()["fired"] == 1


def test_greylisting_is_outlived(fakemail, mailbox, faults):
    faults.preset("greylisting")
    assert send(*fakemail.smtp, to=mailbox.address) == 2


def test_it_gives_up_in_the_end(fakemail, mailbox, faults):
    faults.put("smtp.connect", drop=True)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(*fakemail.smtp, to=mailbox.address)
    assert len(faults.fired()) == 3


def test_a_line_that_breaks_behind_the_message_makes_it_come_twice(fakemail, mailbox, faults):
    """The server took it and could not say so: only the ledger knows."""
    faults.put("smtp.accepted", drop=True, first=1)
    send(*fakemail.smtp, to=mailbox.address, subject="invoice 7")
    first, second = mailbox.messages()
    assert first.email["Message-ID"] == second.email["Message-ID"]
    assert [entry["replied"] for entry in fakemail.ledger(kind="accepted")] == [False, True]


def test_the_subject_arrives_as_it_was_written(fakemail, mailbox):
    send(*fakemail.smtp, to=mailbox.address, subject="Grüße")
    (mail,) = mailbox.wait()
    assert mail.email["Subject"] == "Grüße"
