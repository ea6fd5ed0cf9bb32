"""The server's folders and their rows."""

from __future__ import annotations

import pytest

from email_service import jobs
from email_service.errors import ImapError
from email_service.imap import FolderStatus, RemoteFolder, SyncToken
from email_service.service.syncing import folders

ADDRESS = "ann@example.test"
LETTER = b"From: bob@example.test\r\nMessage-ID: <%d@test>\r\nSubject: s\r\n\r\nhello\r\n"


def names(desk):
    return {f["name"]: f["type"] for f in desk.rows("SELECT name, type FROM email_folders")}


def remote(name, kind="custom", uidvalidity=None, uidnext=10):
    status = FolderStatus(uidvalidity=uidvalidity, uidnext=uidnext, messages=1, highestmodseq=1)
    return RemoteFolder(name=name, type=kind, status=None if uidvalidity is None else status)


@pytest.fixture
def reconciled(desk):
    """Brings the rows in line with a list, as a synchronisation does; answers ids by name."""
    lease = desk.lease(desk.enqueue("sync_emails")).lease

    def reconcile(*remotes):
        with desk.tools.database.session(desk.scope) as session:
            jobs.hold(session, lease)
            found = folders.reconcile(session, lease, remotes)
            session.commit()
        return {folder.remote.name: folder.id for folder in found}

    return reconcile


def token(desk, name, uidvalidity, last_uid=5):
    value = SyncToken(uidvalidity=uidvalidity, last_uid=last_uid, highestmodseq=1).to_json()
    desk.change(
        "UPDATE email_folders SET sync_token = CAST(:token AS jsonb) WHERE name = :name",
        token=str(value).replace("'", '"').replace("None", "null"),
        name=name,
    )


def test_every_folder_has_a_row_of_its_type(desk):
    desk.fakes.create_folder(ADDRESS, "Work")
    desk.sync()
    kinds = {"Sent": "sent", "Drafts": "drafts", "Trash": "trash", "Junk": "spam"}
    assert names(desk) == {"INBOX": "inbox", "Work": "custom"} | kinds


def test_a_folder_that_is_gone_takes_its_rows_along(desk):
    desk.fakes.create_folder(ADDRESS, "Work")
    desk.fakes.append(ADDRESS, LETTER % 1, "Work")
    desk.sync()
    assert len(desk.rows("SELECT 1 FROM email_messages")) == 1
    desk.fakes.delete_folder(ADDRESS, "Work")
    desk.sync()
    assert "Work" not in names(desk)
    assert desk.rows("SELECT 1 FROM email_messages") == []


def test_a_renamed_folder_keeps_its_rows(desk):
    desk.fakes.create_folder(ADDRESS, "Work")
    for n in range(3):
        desk.fakes.append(ADDRESS, LETTER % n, "Work")
    desk.sync()
    before = desk.messages("Work")
    with desk.imap() as client:
        assert client.rename("Work", "Office")[0] == "OK"
    assert desk.sync()["messages"] == 0
    assert "Work" not in names(desk)
    assert desk.messages("Office") == before


def test_a_list_without_an_inbox_takes_no_row_away(desk, reconciled):
    before = reconciled(remote("INBOX", "inbox"), remote("Work"))
    assert reconciled(remote("Other")).keys() == {"Other"}
    assert names(desk).keys() >= {"INBOX", "Work", "Other"}
    assert reconciled(remote("INBOX", "inbox"), remote("Work")) == before
    assert "Other" not in names(desk)


def test_a_uidvalidity_that_others_have_too_proves_no_renaming(desk, reconciled):
    ids = reconciled(remote("INBOX", "inbox", 7), remote("A", uidvalidity=7), remote("B", uidvalidity=8))
    token(desk, "INBOX", 7)
    token(desk, "A", 7)
    token(desk, "B", 8)
    again = reconciled(remote("INBOX", "inbox", 7), remote("C", uidvalidity=7), remote("D", uidvalidity=8))
    assert again["C"] != ids["A"]
    assert again["D"] == ids["B"]


def test_a_folder_that_lost_uids_is_not_the_renamed_one(desk, reconciled):
    ids = reconciled(remote("INBOX", "inbox"), remote("A", uidvalidity=7))
    token(desk, "A", 7, last_uid=50)
    assert reconciled(remote("INBOX", "inbox"), remote("B", uidvalidity=7, uidnext=10))["B"] != ids["A"]


def test_a_type_follows_the_server_and_there_is_always_one_sent_folder(desk, reconciled):
    first = reconciled(remote("INBOX", "inbox"), remote("Sent", "sent"), remote("Other"))
    second = reconciled(remote("INBOX", "inbox"), remote("Sent"), remote("Other", "sent"))
    assert second == first
    assert (names(desk)["Sent"], names(desk)["Other"]) == ("custom", "sent")
    reconciled(remote("INBOX", "inbox"), remote("Sent"), remote("Other"))
    assert list(names(desk).values()).count("sent") == 1
    reconciled(remote("INBOX", "inbox"))
    assert list(names(desk).values()).count("sent") == 1


def test_what_is_not_yet_on_the_server_follows_the_sent_folder(desk, reconciled):
    reconciled(remote("INBOX", "inbox"), remote("Sent", "sent"))
    desk.change(
        "INSERT INTO email_messages (id, tenant_id, user_id, client_id, folder_id, message_id, sender, recipients_to, "
        "recipients_cc, subject, body_text, headers, flags, size_bytes, is_sent) "
        "SELECT gen_random_uuid(), tenant_id, user_id, client_id, id, '<local@test>', '', '[]', '[]', '', '', '[]', "
        "'[]', 1, true FROM email_folders WHERE type = 'sent'"
    )
    reconciled(remote("INBOX", "inbox"), remote("Gesendet", "sent"))
    assert [m["message_id"] for m in desk.messages("Gesendet")] == ["<local@test>"]
    assert names(desk).keys() == {"INBOX", "Gesendet"}


def test_a_name_that_no_index_could_hold_is_passed_over(desk, reconciled):
    assert reconciled(remote("INBOX", "inbox"), remote("x" * 3000)).keys() == {"INBOX"}


# --- folders that the server will not open


def refusing(desk, folder, reply):
    return desk.fakes.fault("imap.command", match={"command": "SEARCH", "folder": folder}, always=True, reply=reply)


def test_a_folder_that_is_refused_costs_the_others_nothing(desk):
    desk.fakes.create_folder(ADDRESS, "Shared")
    desk.fakes.create_folder(ADDRESS, "Work")
    for folder in ("INBOX", "Shared", "Work"):
        desk.fakes.append(ADDRESS, LETTER % 1, folder)
    with refusing(desk, "Shared", "NO [NOPERM] not yours"):
        result = desk.sync()
    assert (result["outcome"], result["messages"], result["refused"]) == ("synced", 2, 1)
    assert desk.state("Work") == desk.server_state("Work")
    assert desk.sync()["messages"] == 1


def test_a_folder_that_is_refused_for_now_is_asked_again_after_the_others(desk):
    desk.fakes.create_folder(ADDRESS, "Busy")
    for folder in ("INBOX", "Busy"):
        desk.fakes.append(ADDRESS, LETTER % 1, folder)
    job_id = desk.enqueue("sync_emails")
    with (
        refusing(desk, "Busy", "NO [INUSE] busy"),
        pytest.raises(ImapError) as caught,
    ):
        desk.run_sync(job_id)
    assert caught.value.transient
    assert desk.state() == desk.server_state()
    assert desk.run_sync(job_id)["messages"] == 2
    assert desk.state("Busy") == desk.server_state("Busy")


def test_without_its_inbox_a_mailbox_is_not_synchronised(desk):
    desk.fakes.append(ADDRESS, LETTER % 1)
    with (
        refusing(desk, "INBOX", "NO [NOPERM] not yours"),
        pytest.raises(ImapError) as caught,
    ):
        desk.sync()
    assert not caught.value.transient
