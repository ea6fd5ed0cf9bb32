"""Sends, one execution at a time: what they read and leave, what a refusal is to each recipient, what is fenced."""

from __future__ import annotations

import email
import email.policy
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest
from sqlalchemy import event
from use_cases import statements

from email_service import jobs
from email_service.errors import (
    AuthenticationError,
    BlobError,
    DatabaseError,
    InvalidRequestError,
    LeaseLostError,
    PermissionDeniedError,
    SmtpError,
)
from email_service.service import accounts, sending
from email_service.service import work as service_work

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def mail(desk):
    """Sends of one client."""
    return SimpleNamespace(
        desk=desk,
        order=lambda **changes: order(desk, **changes),
        send=lambda job_id: desk.run(sending.send_message, job_id),
        upload=lambda data, name, kind: upload(desk, data, name, kind),
        recipients=lambda job_id: recipients(desk, job_id),
        sent=lambda: list(desk.fakes.ledger(kind="accepted")),
    )


def order(desk, *, to=("bob@outside.example",), cc=(), bcc=(), **args):
    """Write the job of a send, as the API does."""
    job_id = uuid.uuid4()
    args = {"subject": "Grüße", "text": "hello\n", "html": None, "attachment_ids": []} | args
    job = jobs.NewJob(
        id=job_id,
        name="email_service.tasks.send_email",
        args=args,
        client_id=desk.client_id,
        message_id=f"<{job_id}@example.test>",
    )
    roles = [("to", list(to)), ("cc", list(cc)), ("bcc", list(bcc))]
    with desk.tools.database.session(desk.scope) as session:
        jobs.enqueue(session, desk.scope, job, time_scale=1.0)
        sending.add_recipients(session, desk.scope, job_id, roles)
        session.commit()
    return job_id


def upload(desk, data, name, kind):
    with desk.tools.database.session(desk.scope) as session:
        row = accounts.store_attachment(
            session, desk.scope, desk.tools.blobs, filename=name, content_type=kind, data=data
        )
        session.commit()
        return str(row.id)


def recipients(desk, job_id):
    rows = desk.rows("SELECT address, state, reply_code, reply_text FROM recipients WHERE job_id = :job", job=job_id)
    return {row.pop("address"): row for row in rows}


def states(mail, job_id):
    return {address: row["state"] for address, row in mail.recipients(job_id).items()}


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_a_send_is_four_statements_in_three_transactions(mail):
    work = mail.desk.lease(mail.order(to=[f"r{n}@outside.example" for n in range(3)]))
    ends = []
    listeners = [(name, lambda *_: ends.append(1)) for name in ("commit", "rollback")]
    for name, listener in listeners:
        event.listen(mail.desk.tools.database.engine, name, listener)
    with statements() as said:
        assert sending.send_message(work).outcome == "sent"
    for name, listener in listeners:
        event.remove(mail.desk.tools.database.engine, name, listener)
    assert len(said) == 4, said
    assert len(ends) == 3


# --- what it leaves ---------------------------------------------------------------------------------------------------


def test_the_copy_in_the_sent_folder_says_all_that_was_sent(mail):
    job_id = mail.order(
        to=["bob@outside.example"], cc=["cy@outside.example"], bcc=["dee@outside.example"],
        html="<p>hello</p>", from_name="Ann", reply_to=["desk@example.test"],
        in_reply_to="<1@outside.example>", references=["<0@outside.example>", "<1@outside.example>"],
    )  # fmt: skip
    settled = mail.send(job_id)
    assert settled.result == {
        "message_id": f"<{job_id}@example.test>", "recipients_sent": 3, "outcome": "sent",
    }  # fmt: skip
    assert mail.desk.job(job_id)["result"] == settled.result
    (copy,) = mail.desk.messages("Sent")
    (entry,) = mail.sent()
    assert (copy["sender"], copy["subject"], copy["body_text"], copy["body_html"]) == (
        "ann@example.test", "Grüße", "hello\n", "<p>hello</p>",
    )  # fmt: skip
    assert (copy["recipients_to"], copy["recipients_cc"], copy["recipients_bcc"]) == (
        ["bob@outside.example"], ["cy@outside.example"], ["dee@outside.example"],
    )  # fmt: skip
    assert copy["sha256"].hex() == entry["sha256"]
    assert copy["size_bytes"] == entry["size_bytes"]
    headers = dict(copy["headers"])
    assert headers["Reply-To"] == "desk@example.test"
    assert headers["References"] == "<0@outside.example> <1@outside.example>"
    assert headers["Subject"].startswith("=?utf-8?")
    assert "Bcc" not in headers
    assert (copy["flags"], copy["is_sent"], copy["attachment_count"]) == (["\\Seen"], True, 0)
    assert mail.desk.folder("Sent")["message_count"] == 1


def test_an_upload_goes_with_every_message_that_names_it(mail):
    pdf = mail.upload(b"%PDF-1.7", "report.pdf", "application/pdf")
    picture = mail.upload(PNG, "logo.png", "image/png")
    content = {"attachment_ids": [pdf], "inline": [{"attachment_id": picture, "content_id": "logo@x"}]}
    for _ in range(2):
        mail.send(mail.order(html='<img src="cid:logo@x">', **content))
    rows = mail.desk.rows(
        "SELECT a.filename, a.content_id, a.inline, a.blob_key, m.attachment_count FROM email_attachments a "
        "JOIN email_messages m ON m.id = a.message_id ORDER BY m.id, a.filename"
    )
    assert [(r["filename"], r["content_id"], r["inline"], r["attachment_count"]) for r in rows] == [
        ("logo.png", "logo@x", True, 2),
        ("report.pdf", None, False, 2),
    ] * 2
    assert mail.desk.tools.blobs.get(rows[1]["blob_key"], mail.desk.scope.tenant_id) == b"%PDF-1.7"
    (kept,) = mail.desk.rows("SELECT count(*) AS uploads FROM email_attachments WHERE message_id IS NULL")
    assert kept["uploads"] == 2


def test_a_client_without_a_sent_folder_gets_one(mail):
    mail.desk.change("DELETE FROM email_folders")
    mail.send(mail.order())
    assert len(mail.desk.messages("Sent")) == 1
    assert mail.desk.folder("Sent")["type"] == "sent"


def test_a_copy_that_can_not_be_written_does_not_make_a_sent_mail_unknown(mail, caplog):
    job_id = mail.order()
    work = mail.desk.lease(job_id)
    broken = replace(work, lease=replace(work.lease, args={**work.lease.args, "text": "NUL \x00 is no text here"}))
    assert sending.send_message(broken).outcome == "sent"
    assert states(mail, job_id) == {"bob@outside.example": "sent"}
    assert mail.desk.messages("Sent") == []
    assert "can't be written" in caplog.text


# --- what can't be sent -----------------------------------------------------------------------------------------------


def test_a_missing_attachment_is_named_and_permanent(mail):
    pdf = mail.upload(b"%PDF-1.7", "report.pdf", "application/pdf")
    (row,) = mail.desk.rows("SELECT blob_key FROM email_attachments")
    mail.desk.tools.blobs.delete(row["blob_key"], mail.desk.scope.tenant_id)
    with pytest.raises(BlobError, match=rf"{pdf} \('report.pdf'\)") as caught:
        mail.send(mail.order(attachment_ids=[pdf]))
    assert not caught.value.transient
    assert mail.sent() == []


def test_a_disabled_client_sends_nothing(mail):
    mail.desk.change("UPDATE email_clients SET enabled = false")
    with pytest.raises(InvalidRequestError, match="disabled") as caught:
        mail.send(mail.order())
    assert not caught.value.transient


def test_another_user_s_client_sends_nothing(mail):
    job_id = mail.order()
    mail.desk.change("UPDATE email_clients SET user_id = 'somebody-else'")
    with pytest.raises(PermissionDeniedError):
        mail.send(job_id)


def test_a_refused_login_leaves_the_recipients_waiting_for_the_decision(mail):
    mail.desk.fakes.preset("smtp-auth-535")
    job_id = mail.order()
    with pytest.raises(AuthenticationError):
        mail.send(job_id)
    assert states(mail, job_id) == {"bob@outside.example": "queued"}
    work = mail.desk.lease(job_id)
    settled = sending.give_up_send(work, "authentication", "535 no")
    assert (settled.state, states(mail, job_id)) == ("failed", {"bob@outside.example": "failed"})
    assert mail.desk.job(job_id)["error_detail"] == "535 no"


# --- each recipient's own outcome -------------------------------------------------------------------------------------


def test_each_recipient_keeps_what_the_server_said(mail):
    for preset in ("partial-refusal", "mailbox-full"):
        mail.desk.fakes.preset(preset)
    job_id = mail.order(to=["nobody@outside.example", "full@outside.example", "bob@outside.example"])
    with pytest.raises(SmtpError, match=r"1 of 3 recipients refused for now: 4\.2\.2 Mailbox full") as caught:
        mail.send(job_id)
    assert (caught.value.transient, caught.value.reply_code) == (True, 452)
    told = mail.recipients(job_id)
    assert [(r["state"], r["reply_code"]) for _, r in sorted(told.items())] == [
        ("sent", 250), ("queued", 452), ("failed", 550),
    ]  # fmt: skip
    assert told["nobody@outside.example"]["reply_text"] == "5.1.1 No such user here"
    mail.desk.fakes.clear_faults()
    assert mail.send(job_id).outcome == "partial"
    assert [entry["rcpt_to"] for entry in mail.sent()] == [["bob@outside.example"], ["full@outside.example"]]
    assert len(mail.desk.messages("Sent")) == 1


def test_a_message_that_is_refused_fails_all_who_waited_with_the_server_s_words(mail):
    mail.desk.fakes.put_fault("smtp.body", reply="554 5.7.1 Message looks like spam")
    job_id = mail.order(to=["a@outside.example", "b@outside.example"])
    with pytest.raises(SmtpError) as caught:
        mail.send(job_id)
    assert not caught.value.transient
    rows = mail.recipients(job_id).values()
    assert {(r["state"], r["reply_code"], r["reply_text"]) for r in rows} == {
        ("failed", 554, "554 5.7.1 Message looks like spam")
    }


def test_an_address_beyond_ascii_fails_alone_where_the_server_has_no_smtputf8(mail):
    mail.desk.fakes.preset("no-extensions")
    job_id = mail.order(to=["jürgen@outside.example", "bob@outside.example"])
    assert mail.send(job_id).outcome == "partial"
    told = mail.recipients(job_id)["jürgen@outside.example"]
    assert (told["state"], told["reply_code"], told["reply_text"][:5]) == ("failed", 553, "5.6.7")
    (entry,) = mail.sent()
    header = email.message_from_string(entry["header"], policy=email.policy.default)
    assert header["To"] == "bob@outside.example"


def test_who_does_not_fit_into_a_transaction_is_in_the_next_one_at_once(mail):
    """RFC 5321 section 4.5.3.1.10; it is no failure of the job, and no retry of it."""
    addresses = [f"r{n}@outside.example" for n in range(10)]
    # Each transaction reaches somebody, and only the last one reaches all.
    mail.desk.fakes.put_fault("smtp.rcpt", every=3, reply="452 4.5.3 Too many recipients")
    job_id = mail.order(to=addresses)
    assert mail.send(job_id).outcome == "sent"
    reached = [address for entry in mail.sent() for address in entry["rcpt_to"]]
    assert sorted(reached) == sorted(addresses)
    assert len(mail.sent()) > 2
    assert len(mail.desk.messages("Sent")) == 1
    assert len(mail.desk.job(job_id)["executions"]) == 1


# --- the promise's rules ----------------------------------------------------------------------------------------------


def test_who_was_left_between_data_and_its_reply_is_unknown_and_the_others_are_sent(mail):
    job_id = mail.order(to=["left@outside.example", "bob@outside.example"])
    mail.desk.change("UPDATE recipients SET state = 'transmitting' WHERE address = 'left@outside.example'")
    assert mail.send(job_id).outcome == "unknown"
    assert states(mail, job_id) == {"left@outside.example": "unknown", "bob@outside.example": "sent"}
    assert [entry["rcpt_to"] for entry in mail.sent()] == [["bob@outside.example"]]


def test_a_lost_reply_to_the_final_dot_is_unknown_for_those_who_were_accepted_alone(mail):
    mail.desk.fakes.preset("drop-after-data")
    mail.desk.fakes.put_fault("smtp.rcpt", first=1, reply="451 later", match={"recipient": "grey@outside.example"})
    job_id = mail.order(to=["grey@outside.example", "bob@outside.example"])
    with pytest.raises(SmtpError):
        mail.send(job_id)
    assert states(mail, job_id) == {"grey@outside.example": "queued", "bob@outside.example": "unknown"}
    assert mail.send(job_id).outcome == "unknown"
    assert states(mail, job_id) == {"grey@outside.example": "sent", "bob@outside.example": "unknown"}
    assert [entry["rcpt_to"] for entry in mail.sent()] == [["bob@outside.example"], ["grey@outside.example"]]


def test_a_break_before_the_final_dot_puts_the_recipients_back(mail):
    mail.desk.fakes.preset("drop-before-data")
    job_id = mail.order()
    with pytest.raises(SmtpError) as caught:
        mail.send(job_id)
    assert (caught.value.transient, caught.value.definite) == (True, True)
    assert states(mail, job_id) == {"bob@outside.example": "queued"}
    assert mail.send(job_id).outcome == "sent"
    assert len(mail.sent()) == 1


class SoftTimeLimitError(Exception):
    """As Celery's: raised by a signal, anywhere."""


def test_a_time_limit_before_data_puts_the_recipients_back(mail, monkeypatch):
    job_id = mail.order()
    original = sending.send_rows.begin_transmission

    def strikes(*arguments):
        original(*arguments)
        arguments[0].commit()
        raise SoftTimeLimitError

    with monkeypatch.context() as patch:
        patch.setattr(sending.send_rows, "begin_transmission", strikes)
        with pytest.raises(SoftTimeLimitError):
            mail.send(job_id)
    assert states(mail, job_id) == {"bob@outside.example": "queued"}
    assert mail.sent() == []


def lose_the_lease(mail, job_id):
    """Its time runs out, and another execution settles the job."""
    mail.desk.change("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE id = :id", id=job_id)


def test_an_execution_that_was_frozen_past_its_lease_says_no_data(mail):
    job_id = mail.order()
    work = mail.desk.lease(job_id)
    lose_the_lease(mail, job_id)
    with pytest.raises(LeaseLostError):
        sending.send_message(work)
    assert mail.sent() == []
    assert states(mail, job_id) == {"bob@outside.example": "queued"}


def test_an_execution_that_lost_its_lease_takes_nothing_back_from_the_one_that_has_it(mail, monkeypatch):
    """The first is frozen in its body and thaws while the second transmits to the recipient that both knew of."""
    mail.desk.fakes.put_fault("smtp.rcpt", first=1, reply="451 later", match={"recipient": "grey@outside.example"})
    job_id = mail.order(to=["bob@outside.example", "grey@outside.example"])
    first = mail.desk.lease(job_id)
    original = sending.send_rows.begin_transmission

    def freezes(session, lease, accepted):
        original(session, lease, accepted)
        session.commit()
        monkeypatch.undo()
        mail.desk.kill(first)
        second = mail.desk.lease(job_id)
        with mail.desk.tools.database.session(mail.desk.scope) as other:
            sending.send_rows.lose_transmitting(other, second.lease)
            original(other, second.lease, ("grey@outside.example",))
            other.commit()
        raise ConnectionResetError("the server has gone meanwhile")

    monkeypatch.setattr(sending.send_rows, "begin_transmission", freezes)
    with pytest.raises(ConnectionResetError):
        sending.send_message(first)
    assert states(mail, job_id) == {"bob@outside.example": "unknown", "grey@outside.example": "transmitting"}


def test_a_late_receipt_changes_nothing_that_another_execution_has_settled(mail, monkeypatch):
    job_id = mail.order()
    work = mail.desk.lease(job_id)
    original = sending.smtp.deliver

    def freezes(*arguments, **options):
        receipt = original(*arguments, **options)
        mail.desk.kill(work)
        assert mail.send(job_id).outcome == "unknown"
        return receipt

    monkeypatch.setattr(sending.smtp, "deliver", lambda *a, **o: (monkeypatch.undo(), freezes(*a, **o))[1])
    with pytest.raises(LeaseLostError):
        sending.send_message(work)
    assert states(mail, job_id) == {"bob@outside.example": "unknown"}
    assert len(mail.sent()) == 1


def test_a_commit_whose_answer_was_lost_is_not_taken_for_a_lost_lease(mail, monkeypatch):
    job_id = mail.order()
    work = mail.desk.lease(job_id)
    original = sending._finish

    def loses_the_answer(session, *arguments, **options):
        original(session, *arguments, **options)
        session.commit()
        monkeypatch.undo()
        raise DatabaseError("the answer was lost")

    monkeypatch.setattr(sending, "_finish", loses_the_answer)
    assert sending.send_message(work).outcome == "sent"
    assert mail.desk.job(job_id)["state"] == "succeeded"


def test_what_the_server_said_outlives_the_database_s_absence(mail, monkeypatch):
    job_id = mail.order()
    work = mail.desk.lease(job_id)
    original, away = sending._finish, iter(range(3))

    def is_away(*arguments, **options):
        if next(away, None) is not None:
            raise DatabaseError("away")
        return original(*arguments, **options)

    monkeypatch.setattr(sending, "_finish", is_away)
    monkeypatch.setattr(service_work, "PAUSE_S", 0.001)
    assert sending.send_message(work).outcome == "sent"
    assert states(mail, job_id) == {"bob@outside.example": "sent"}
