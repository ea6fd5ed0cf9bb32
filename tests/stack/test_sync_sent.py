"""What the sent folder proves of messages that were sent from here."""

from __future__ import annotations

import uuid

import pytest

ADDRESS = "ann@example.test"
COPY = (
    b"From: ann@example.test\r\nTo: b@example.test\r\nMessage-ID: <%b@test>\r\nSubject: the copy\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n"
    b'--b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename="a.csv"\r\n\r\n1,2\r\n--b--\r\n'
)


def sent_row(desk, name):
    """The row that sending writes; its id."""
    row_id = uuid.uuid4()
    desk.change(
        "INSERT INTO email_messages (id, tenant_id, user_id, client_id, folder_id, message_id, sender, recipients_to, "
        "recipients_cc, recipients_bcc, subject, body_text, headers, flags, size_bytes, is_sent) "
        "SELECT :id, tenant_id, user_id, client_id, id, :message_id, 'ann@example.test', '[\"b@example.test\"]', '[]', "
        "'[\"secret@example.test\"]', 'ours', 'hello', '[]', '[\"\\\\Seen\"]', 1, true "
        "FROM email_folders WHERE type = 'sent' AND client_id = :client",
        id=row_id,
        message_id=f"<{name}@test>",
        client=desk.client_id,
    )
    return row_id


def job_of(desk, name, **recipients):
    """A send that was settled as unknown; its id."""
    job_id = desk.enqueue("send_email", subject="s")
    desk.change(
        "UPDATE jobs SET state = 'unknown', outcome = 'unknown', error_type = 'delivery-unknown', message_id = :name, "
        "finished_at = now(), next_publish_at = NULL, settled_xid = pg_current_xact_id() WHERE id = :id",
        id=job_id,
        name=f"<{name}@test>",
    )
    for who, state in recipients.items():
        desk.change(
            "INSERT INTO recipients (job_id, address, tenant_id, role, state) "
            "VALUES (:id, :who, :tenant, 'to', :state)",
            id=job_id,
            who=f"{who}@example.test",
            tenant=desk.scope.tenant_id,
            state=state,
        )
    return job_id


def check_merged(desk, row_id):
    (row,) = desk.messages("Sent")
    assert (row["id"], row["is_sent"], row["recipients_bcc"]) == (row_id, True, ["secret@example.test"])
    assert (row["uid"], row["subject"], row["attachment_count"]) == (1, "the copy", 1)
    assert desk.state("Sent") == desk.server_state("Sent")
    assert desk.folder("Sent")["message_count"] == 1
    parts = desk.rows("SELECT filename FROM email_attachments WHERE message_id = :id", id=row_id)
    assert parts == [{"filename": "a.csv"}]


def test_the_server_s_copy_and_our_row_become_one(desk):
    row_id = sent_row(desk, "one")
    desk.fakes.append(ADDRESS, COPY % b"one", "Sent", flags=["\\Seen"])
    desk.sync()
    check_merged(desk, row_id)
    desk.sync()
    check_merged(desk, row_id)


def test_a_copy_that_was_synchronised_before_our_row_was_written_is_met_too(desk):
    desk.fakes.append(ADDRESS, COPY % b"one", "Sent", flags=["\\Seen"])
    desk.sync()
    row_id = sent_row(desk, "one")
    desk.sync()
    check_merged(desk, row_id)


def test_two_copies_on_the_server_are_two_rows(desk):
    row_id = sent_row(desk, "one")
    for _ in range(2):
        desk.fakes.append(ADDRESS, COPY % b"one", "Sent")
    desk.sync()
    rows = desk.messages("Sent")
    assert [row["uid"] for row in rows] == [1, 2]
    assert (rows[0]["id"], rows[0]["is_sent"], rows[1]["is_sent"]) == (row_id, True, False)


def test_our_row_without_a_copy_stays(desk):
    row_id = sent_row(desk, "one")
    desk.fakes.append(ADDRESS, COPY % b"two", "Sent")
    desk.sync()
    assert [row["id"] for row in desk.messages("Sent") if row["uid"] is None] == [row_id]


def test_the_sent_folder_bears_the_server_s_name(desk):
    row_id = sent_row(desk, "one")
    desk.fakes.delete_folder(ADDRESS, "Sent")
    desk.fakes.create_folder(ADDRESS, "Sent Items")
    desk.fakes.append(ADDRESS, COPY % b"one", "Sent Items")
    desk.sync()
    assert [(row["id"], row["uid"]) for row in desk.messages("Sent Items")] == [(row_id, 1)]
    assert len(desk.rows("SELECT 1 FROM email_folders WHERE type = 'sent'")) == 1


# --- unknown, until it is found


@pytest.mark.parametrize("other", [None, "sent", "failed"])
def test_an_unknown_delivery_that_is_found_in_the_sent_folder_was_made(desk, other):
    job_id = job_of(desk, "one", b="unknown", **({"c": other} if other else {}))
    before = desk.feed()
    desk.fakes.append(ADDRESS, COPY % b"one", "Sent")
    assert desk.sync()["settled"] == 1
    job = desk.job(job_id)
    outcome = "partial" if other == "failed" else "sent"
    assert (job["state"], job["outcome"], job["error_type"]) == ("succeeded", outcome, None)
    sent = 2 if other == "sent" else 1
    assert job["result"] == {"message_id": "<one@test>", "recipients_sent": sent, "outcome": outcome}
    assert {r["address"]: r["state"] for r in job["recipients"]}["b@example.test"] == "sent"
    # Who has seen it as unknown sees it again.
    seen = [task["state"] for task in desk.feed(before) if task["task_id"] == str(job_id)]
    assert seen == ["succeeded"]
    assert desk.sync()["settled"] == 0


def test_a_copy_that_came_before_the_delivery_was_known_to_be_unknown_settles_it_too(desk):
    desk.fakes.append(ADDRESS, COPY % b"one", "Sent")
    desk.sync()
    job_id = job_of(desk, "one", b="unknown")
    assert desk.sync()["settled"] == 1
    assert desk.job(job_id)["state"] == "succeeded"


def test_absence_proves_nothing(desk):
    job_id = job_of(desk, "one", b="unknown")
    desk.fakes.append(ADDRESS, COPY % b"two", "Sent")
    desk.fakes.append(ADDRESS, COPY % b"one", "INBOX")
    assert desk.sync()["settled"] == 0
    assert desk.job(job_id)["state"] == "unknown"


def test_a_row_of_our_own_proves_nothing(desk):
    job_id = job_of(desk, "one", b="unknown")
    sent_row(desk, "one")
    assert desk.sync()["settled"] == 0
    assert desk.job(job_id)["state"] == "unknown"
