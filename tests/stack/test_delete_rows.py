"""Deleting: the server first, then the rows; twice does no harm, and nobody else's mail is touched."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from email_service import imap
from email_service.errors import ImapError, LeaseLostError
from email_service.service import deleting
from email_service.tenancy import Scope

ADDRESS = "ann@example.test"
LETTER = b"From: bob@example.test\r\nMessage-ID: <%d@test>\r\nSubject: s\r\n\r\nhello\r\n"
LACKS = {"nothing": ["IDLE"], "MOVE": ["MOVE"], "UIDPLUS": ["UIDPLUS", "MOVE"]}


@pytest.fixture
def full(desk):
    """Five letters in the inbox, and their rows."""
    for n in range(1, 6):
        desk.fakes.append(ADDRESS, LETTER % n)
    desk.sync()
    return desk


def ids(desk, *uids, folder="INBOX"):
    return [str(m["id"]) for m in desk.messages(folder) if m["uid"] in uids]


def delete(desk, message_ids, *, permanent=False):
    job_id = desk.enqueue("delete_emails", message_ids=message_ids, permanent=permanent)
    return desk.run(deleting.delete_messages, job_id).result


def there(desk, folder="INBOX"):
    return [m["uid"] for m in desk.fakes.messages(ADDRESS, folder)]


def agrees(desk):
    """Rows and server say the same of both folders, now and after the next synchronisation."""
    for _ in range(2):
        assert desk.state() == desk.server_state()
        assert desk.state("Trash") == desk.server_state("Trash")
        assert desk.folder()["message_count"] == len(there(desk))
        assert desk.folder("Trash")["message_count"] == len(there(desk, "Trash"))
        desk.sync()


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("lacking", LACKS)
def test_the_server_and_the_rows_agree_after_a_deletion(full, lacking, permanent):
    with full.fakes.fault("imap.capability", strip=LACKS[lacking]):
        result = delete(full, ids(full, 2, 4), permanent=permanent)
        assert result == {"outcome": "deleted", "moved": 0 if permanent else 2, "expunged": 2 * permanent, "gone": 0}
        assert there(full) == [1, 3, 5]
        assert len(there(full, "Trash")) == (0 if permanent else 2)
        agrees(full)


def test_a_moved_message_keeps_its_row(full):
    (message_id,) = ids(full, 3)
    delete(full, [message_id])
    (row,) = full.messages("Trash")
    assert (str(row["id"]), row["message_id"]) == (message_id, "<3@test>")
    full.sync()
    assert [str(m["id"]) for m in full.messages("Trash")] == [message_id]


def test_where_the_server_tells_no_new_uid_the_next_synchronisation_brings_the_message(full, monkeypatch):
    move = imap.ImapSession.move
    silent = lambda *args: replace(move(*args), uids={}, uidvalidity=None)  # noqa: E731
    monkeypatch.setattr(imap.ImapSession, "move", silent)
    assert delete(full, ids(full, 2))["moved"] == 1
    assert full.messages("Trash") == []
    full.sync()
    agrees(full)


def test_what_is_in_the_trash_is_expunged(full):
    message_ids = ids(full, 1, 2)
    delete(full, message_ids)
    result = delete(full, [*message_ids, *ids(full, 3)])
    assert (result["expunged"], result["moved"]) == (2, 1)
    assert len(there(full, "Trash")) == 1
    agrees(full)


def test_a_server_without_a_trash_gets_one(full):
    full.fakes.delete_folder(ADDRESS, "Trash")
    full.sync()
    delete(full, ids(full, 1))
    assert len(there(full, "Trash")) == 1
    agrees(full)


def test_a_message_that_was_never_synchronised_to_a_server_is_moved_and_deleted_here(full):
    full.change(
        "INSERT INTO email_messages (id, tenant_id, user_id, client_id, folder_id, message_id, sender, recipients_to, "
        "recipients_cc, subject, body_text, headers, flags, size_bytes, is_sent) "
        "SELECT gen_random_uuid(), tenant_id, user_id, client_id, id, '<local@test>', '', '[]', '[]', '', '', '[]', "
        "'[]', 1, true FROM email_folders WHERE type = 'sent'"
    )
    (row,) = full.messages("Sent")
    assert delete(full, [str(row["id"])])["moved"] == 1
    assert [m["id"] for m in full.messages("Trash")] == [row["id"]]
    assert full.messages("Sent") == []
    assert delete(full, [str(row["id"])])["expunged"] == 1
    assert full.messages("Trash") == []


@pytest.mark.parametrize("permanent", [False, True])
def test_what_is_another_s_or_nobody_s_is_gone_and_not_touched(full, permanent):
    other = Scope(tenant_id=full.scope.tenant_id, user_id="somebody-else")
    message_ids = ids(full, 1, 2)
    full.change("UPDATE email_messages SET user_id = 'somebody-else' WHERE uid = 1")
    result = delete(full, [*message_ids, str(uuid.uuid4())], permanent=permanent)
    assert (result["gone"], result["moved"] + result["expunged"]) == (2, 1)
    assert there(full) == [1, 3, 4, 5]
    assert [m["user_id"] for m in full.messages() if m["uid"] == 1] == [other.user_id]


def test_a_message_that_somebody_expunged_meanwhile_is_gone_and_its_row_too(full):
    message_ids = ids(full, 1, 2)
    full.fakes.expunge(ADDRESS, 1)
    result = delete(full, message_ids)
    assert (result["moved"], result["gone"]) == (1, 1)
    agrees(full)


def test_after_another_uidvalidity_nothing_is_deleted(full):
    message_ids = ids(full, 1, 2)
    full.fakes.reset_uidvalidity(ADDRESS)
    result = delete(full, message_ids, permanent=True)
    assert (result["expunged"], result["gone"]) == (0, 2)
    assert len(there(full)) == 5
    full.sync()
    agrees(full)


def test_messages_of_a_folder_that_is_no_more_are_gone(full):
    full.fakes.create_folder(ADDRESS, "Work")
    full.fakes.append(ADDRESS, LETTER % 9, "Work")
    full.sync()
    message_ids = ids(full, 1, folder="Work") + ids(full, 1)
    full.fakes.delete_folder(ADDRESS, "Work")
    assert delete(full, message_ids) == {"outcome": "deleted", "moved": 1, "expunged": 0, "gone": 1}


def test_what_lies_in_a_folder_that_became_the_trash_stays_there(full):
    full.fakes.append(ADDRESS, LETTER % 9, "Trash")
    full.sync()
    full.change("UPDATE email_folders SET type = 'custom' WHERE name = 'Trash'")
    assert delete(full, ids(full, 1, folder="Trash"))["moved"] == 1
    assert len(there(full, "Trash")) == 1


# --- executions that end in the midst


def killed_after(desk, monkeypatch, job_id, where):
    """An execution whose process dies right after ``where``."""

    class Killed(BaseException):
        """No handler of ours may see a SIGKILL."""

    original = getattr(deleting, where)

    def die(*args, **options):
        original(*args, **options)
        raise Killed

    work = desk.lease(job_id)
    with monkeypatch.context() as patch:
        patch.setattr(deleting, where, die)
        with pytest.raises(Killed):
            deleting.delete_messages(work)
    desk.kill(work)


def test_what_an_earlier_execution_moved_into_the_trash_stays_there(full, monkeypatch):
    monkeypatch.setattr(deleting, "BATCH", 2)
    message_ids = ids(full, 1, 2, 3, 4)
    job_id = full.enqueue("delete_emails", message_ids=message_ids, permanent=False)
    killed_after(full, monkeypatch, job_id, "_commit")
    assert len(there(full, "Trash")) == 2
    result = full.run(deleting.delete_messages, job_id).result
    assert result == {"outcome": "deleted", "moved": 4, "expunged": 0, "gone": 0}
    assert len(there(full, "Trash")) == 4
    assert sorted(str(m["id"]) for m in full.messages("Trash")) == sorted(message_ids)
    agrees(full)


@pytest.mark.parametrize("permanent", [False, True])
def test_a_kill_between_the_server_and_the_commit_does_no_harm(full, monkeypatch, permanent):
    class Killed(BaseException):
        """As above."""

    def die(*_args, **_options):
        raise Killed

    job_id = full.enqueue("delete_emails", message_ids=ids(full, 1, 2), permanent=permanent)
    work = full.lease(job_id)
    with monkeypatch.context() as patch:
        patch.setattr(deleting, "_commit", die)
        with pytest.raises(Killed):
            deleting.delete_messages(work)
    full.kill(work)
    assert there(full) == [3, 4, 5]
    assert full.run(deleting.delete_messages, job_id).result["gone"] == 2
    assert len(there(full, "Trash")) == (0 if permanent else 2)
    full.sync()
    agrees(full)


def test_an_execution_that_lost_its_lease_asks_the_server_for_nothing(full):
    work = full.lease(full.enqueue("delete_emails", message_ids=ids(full, 1), permanent=True))
    full.kill(work)
    with pytest.raises(LeaseLostError):
        deleting.delete_messages(work)
    assert there(full) == [1, 2, 3, 4, 5]


def test_a_server_that_breaks_off_is_asked_again(full):
    job_id = full.enqueue("delete_emails", message_ids=ids(full, 1, 2), permanent=True)
    with full.fakes.fault("imap.reply", match={"command": "EXPUNGE"}, first=1, drop=True), pytest.raises(ImapError):
        full.run(deleting.delete_messages, job_id)
    result = full.run(deleting.delete_messages, job_id).result
    assert (result["outcome"], result["expunged"] + result["gone"]) == ("deleted", 2)
    agrees(full)


def test_a_synchronisation_that_met_the_moved_message_first_does_not_double_it(full, monkeypatch):
    commit = deleting._commit

    def late(*args, **options):
        full.sync()
        commit(*args, **options)

    monkeypatch.setattr(deleting, "_commit", late)
    # The rows of the inbox are gone with that synchronisation: what is left is the trash's.
    assert delete(full, ids(full, 2))["moved"] == 1
    assert len(full.messages("Trash")) == 1
    agrees(full)


def test_the_result_is_in_the_row(full):
    job_id = full.enqueue("delete_emails", message_ids=ids(full, 1), permanent=False)
    settled = full.run(deleting.delete_messages, job_id)
    job = full.job(job_id)
    assert (job["state"], job["outcome"], job["result"]) == ("succeeded", "deleted", settled.result)
