"""A mailbox becomes rows, and the rows follow the server, whatever happens there."""

from __future__ import annotations

import functools
import secrets
from dataclasses import replace

import pytest

from email_service import imap, message
from email_service.service.syncing import columns, mailbox

ADDRESS = "ann@example.test"
LETTER = b"From: bob@example.test\r\nTo: ann@example.test\r\nMessage-ID: <%d@test>\r\nSubject: %b\r\n\r\nhello\r\n"
#: What a server may lack: each way to learn of changes ends in the same rows.
LACKS = {
    "nothing": [],
    "LIST-STATUS": ["LIST-STATUS"],
    "QRESYNC": ["QRESYNC"],
    "CONDSTORE": ["CONDSTORE", "QRESYNC"],
    "everything": [
        "CONDSTORE",
        "QRESYNC",
        "ENABLE",
        "ESEARCH",
        "LIST-EXTENDED",
        "LIST-STATUS",
        "SPECIAL-USE",
        "UIDPLUS",
    ],
}


def letters(desk, count, *, folder="INBOX", first=1):
    """New mail; its UIDs."""
    return [desk.fakes.append(ADDRESS, LETTER % (n, b"s"), folder)["uid"] for n in range(first, first + count)]


def test_a_first_synchronisation_brings_every_message_of_every_folder(desk):
    desk.fakes.create_folder(ADDRESS, "Travel/Sp\u00e4ter")
    desk.fakes.seed(ADDRESS, count=30, seed=5)
    desk.fakes.seed(ADDRESS, count=5, seed=6, folder="Travel/Sp\u00e4ter")
    result = desk.sync()
    assert (result["outcome"], result["messages"], result["deleted"]) == ("synced", 35, 0)
    assert len(desk.state()) == 30
    for folder in ("INBOX", "Travel/Sp\u00e4ter"):
        assert desk.state(folder) == desk.server_state(folder)


def test_a_second_synchronisation_finds_nothing(desk):
    desk.fakes.seed(ADDRESS, count=5, seed=5)
    desk.sync()
    before = desk.messages()
    result = desk.sync()
    assert (result["messages"], result["flags"], result["deleted"]) == (0, 0, 0)
    assert desk.messages() == before


@pytest.mark.parametrize("lacking", LACKS)
def test_new_mail_flags_and_expunges_are_followed(desk, lacking):
    with desk.fakes.fault("imap.capability", strip=LACKS[lacking] or ["IDLE"]):
        letters(desk, 12)
        desk.sync()
        desk.fakes.expunge(ADDRESS, [1, 5, 6])
        desk.fakes.set_flags(ADDRESS, 3, ["\\Seen", "\\Flagged", "$Work"])
        letters(desk, 2, first=20)
        result = desk.sync()
        assert desk.state() == desk.server_state()
        assert (result["messages"], result["deleted"], result["flags"]) == (2, 3, 1)
        desk.fakes.set_flags(ADDRESS, 3, [])
        desk.sync()
        assert desk.state() == desk.server_state()


@pytest.mark.parametrize("lacking", LACKS)
def test_any_history_ends_in_the_server_s_state(desk, lacking):
    seed = secrets.randbelow(1_000_000)
    print(f"seed {seed}")  # noqa: T201
    with desk.fakes.fault("imap.capability", strip=LACKS[lacking] or ["IDLE"]):
        desk.fakes.seed(ADDRESS, count=40, seed=seed)
        for _ in range(4):
            desk.fakes.advance(ADDRESS, 12)
            desk.sync()
            assert desk.state() == desk.server_state()


def test_a_message_that_is_moved_elsewhere_is_in_its_new_folder_alone(desk):
    desk.fakes.create_folder(ADDRESS, "Work")
    letters(desk, 3)
    desk.sync()
    raw = desk.fakes.message(ADDRESS, 2)
    desk.fakes.expunge(ADDRESS, 2)
    desk.fakes.append(ADDRESS, raw, "Work", flags=["\\Seen"])
    desk.sync()
    assert desk.state() == desk.server_state()
    assert desk.state("Work") == desk.server_state("Work")


def test_another_uidvalidity_replaces_the_rows(desk):
    letters(desk, 6)
    desk.sync()
    before = desk.messages()
    desk.fakes.reset_uidvalidity(ADDRESS)
    result = desk.sync()
    assert (result["messages"], result["deleted"]) == (6, 6)
    assert desk.state() == desk.server_state()
    assert {m["uidvalidity"] for m in desk.messages()}.isdisjoint({m["uidvalidity"] for m in before})


def test_a_folder_s_counts_are_what_is_in_it(desk):
    letters(desk, 5)
    desk.fakes.append(ADDRESS, b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n")
    desk.fakes.set_flags(ADDRESS, 1, ["\\Seen"])
    desk.sync()
    folder = desk.folder()
    assert (folder["message_count"], folder["unseen_count"], folder["broken_count"]) == (6, 5, 1)
    desk.fakes.set_flags(ADDRESS, 2, ["\\Seen"])
    desk.fakes.expunge(ADDRESS, 6)
    desk.sync()
    folder = desk.folder()
    assert (folder["message_count"], folder["unseen_count"], folder["broken_count"]) == (5, 3, 0)
    assert folder["synced_at"] is not None


def test_a_message_s_row_says_what_the_message_says(desk):
    raw = (
        b"From: Bob <bob@example.test>\r\nTo: ann@example.test, C <c@example.test>\r\nCc: d@example.test\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Tue, 1 Jul 2025 10:00:00 +0200\r\nMessage-ID: <one@test>\r\n"
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nk\xc3\xb6rper\r\n"
        b'--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--b--\r\n"
    )
    desk.fakes.append(ADDRESS, raw, flags=["\\Seen"], received_s=1_750_000_000)
    desk.sync()
    (row,) = desk.messages()
    assert (row["sender"], row["subject"], row["message_id"]) == ("bob@example.test", "Gr\u00fc\u00dfe", "<one@test>")
    assert (row["recipients_to"], row["recipients_cc"]) == (["ann@example.test", "c@example.test"], ["d@example.test"])
    assert row["body_text"].strip() == "k\u00f6rper"
    assert row["sent_at"].isoformat() == "2025-07-01T08:00:00+00:00"
    assert row["internal_date"].timestamp() == 1_750_000_000
    assert (row["flags"], row["size_bytes"], row["is_broken"], row["raw"]) == (["\\Seen"], len(raw), False, None)
    assert ["Subject", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="] in row["headers"]
    assert row["attachment_count"] == 1
    (part,) = desk.rows("SELECT * FROM email_attachments WHERE message_id = :id", id=row["id"])
    assert (part["filename"], part["content_type"], part["size_bytes"]) == ("a.pdf", "application/pdf", 4)
    assert desk.tools.blobs.get(part["blob_key"], desk.scope.tenant_id) == b"%PDF"


# --- mail that is not what it should be


@pytest.mark.parametrize("preset", ["bad-base64", "broken-mime", "bad-charset", "wrong-size"])
def test_broken_mail_is_kept_as_it_came_and_counted(desk, preset):
    desk.fakes.seed(ADDRESS, count=12, seed=5)
    desk.fakes.preset(preset)
    result = desk.sync()
    rows = desk.messages()
    assert (len(rows), result["messages"]) == (12, 12)
    broken = [row for row in rows if row["is_broken"]]
    assert result["broken"] == len(broken) == desk.folder()["broken_count"]
    assert [row["raw"] is not None for row in rows] == [row["is_broken"] for row in rows]
    if preset == "broken-mime":
        assert len(broken) == 4


def test_all_mail_is_kept_as_it_came_where_that_is_wanted(desk):
    desk.fakes.seed(ADDRESS, count=3, seed=5)
    desk.with_settings(keep_raw="all").sync()
    assert [bytes(row["raw"]) for row in desk.messages()] == [desk.fakes.message(ADDRESS, n) for n in (1, 2, 3)]


def test_what_postgresql_refuses_never_reaches_it(desk):
    nul = b"From: a\0b@example.test\r\nSubject: x\0y \xed\xa0\x80\r\nX-\0: \0\r\n\r\nbody\0 \xed\xa0\x80\r\n"
    utf7 = b"From: b@example.test\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n+2AA-\r\n"
    parts = (
        b"From: b@example.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-ID: <\0>\r\n"
        b'Content-Type: image/\0png; name="\0.png"\r\n\r\n\0\r\n--b--\r\n'
    )
    long = b"From: b@example.test\r\nMessage-ID: <" + secrets.token_hex(4000).encode() + b"@test>\r\n\r\nx\r\n"
    for raw in (nul, utf7, parts, long, b"\0", b"\r\n"):
        desk.fakes.append(ADDRESS, raw)
    assert desk.sync()["messages"] == 6
    assert desk.state() == desk.server_state()
    # Whatever it is, the next one has an easy time.
    assert desk.sync()["messages"] == 0


def test_a_message_that_postgresql_refuses_all_the_same_costs_the_others_nothing(desk, monkeypatch):
    """No message is known that gets so far: here the parser lets a NUL through."""
    parse = message.parse

    def careless(raw):
        parsed = parse(raw)
        return replace(parsed, text="a\0b") if b"<3@test>" in raw else parsed

    monkeypatch.setattr(columns.message, "parse", careless)
    letters(desk, 5)
    result = desk.sync()
    assert (result["messages"], result["broken"]) == (5, 1)
    assert desk.state() == desk.server_state()
    rows = desk.messages()
    assert [row["is_broken"] for row in rows] == [False, False, True, False, False]
    assert [row["raw"] for row in rows] == [None, None, LETTER % (3, b"s"), None, None]


def test_a_message_that_can_not_be_had_has_a_row_all_the_same(desk, monkeypatch):
    bounded = functools.partial(imap.open_session, message_bytes_max=1000)
    monkeypatch.setattr(mailbox.imap, "open_session", bounded)
    letters(desk, 2)
    huge = LETTER % (7, b"huge") + b"x" * 5000
    desk.fakes.append(ADDRESS, huge, flags=["\\Flagged"])
    letters(desk, 1, first=9)
    result = desk.sync()
    assert (result["messages"], result["unreadable"], result["broken"]) == (4, 1, 1)
    row = desk.messages()[2]
    assert (row["uid"], row["is_broken"], row["flags"], row["size_bytes"]) == (3, True, ["\\Flagged"], len(huge))
    assert (row["message_id"], row["subject"], row["sha256"], row["body_text"]) == ("<7@test>", "huge", None, "")
    assert desk.sync()["unreadable"] == 0


# --- what a synchronisation asks for


def spam_jobs(desk):
    return desk.rows("SELECT * FROM jobs WHERE name = 'email_service.tasks.check_spam' ORDER BY created_at")


def test_new_mail_in_the_inbox_is_to_be_checked(desk):
    desk.fakes.create_folder(ADDRESS, "Work")
    letters(desk, 3)
    letters(desk, 2, folder="Work", first=10)
    desk.sync()
    (job,) = spam_jobs(desk)
    assert job["args"] == {"message_ids": [str(row["id"]) for row in desk.messages()]}
    assert (job["state"], job["publishes"], job["client_id"]) == ("queued", 0, desk.client_id)
    letters(desk, 1, first=20)
    desk.sync()
    assert spam_jobs(desk)[1]["args"] == {"message_ids": [str(desk.messages()[-1]["id"])]}


def test_a_client_that_wants_no_check_gets_none(desk):
    desk.change("UPDATE email_clients SET spam_check = false")
    letters(desk, 3)
    desk.sync()
    assert spam_jobs(desk) == []
