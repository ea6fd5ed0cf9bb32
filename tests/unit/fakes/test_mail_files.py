"""Mail loaded from Maildir and mbox."""

import mailbox
import os
from email.message import EmailMessage

import pytest

from fakemail import FakemailError
from fakemail.files import MailFileError, load_maildir, load_mbox

MOMENT = 1_700_000_000


def put(folder, name, raw=b"Subject: x\n\nbody\n", moment=MOMENT):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(raw)
    os.utime(folder / name, (moment, moment))


def written(tmp_path, content):
    path = tmp_path / "box"
    path.write_bytes(content)
    os.utime(path, (MOMENT, MOMENT))
    return path


# --- Maildir ---


def test_a_message_of_a_maildir_has_crlf_line_ends_and_the_time_of_its_file(tmp_path):
    put(tmp_path / "cur", "1.a:2,", b"Subject: a\n\none\r\ntwo\n\rthree")
    (mail,) = load_maildir(tmp_path)
    assert mail.raw == b"Subject: a\r\n\r\none\r\ntwo\r\n\rthree"
    assert (mail.received_s, mail.folder, mail.flags) == (MOMENT, "INBOX", frozenset())


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("1.a:2,S", {"\\Seen"}),
        ("1.a:2,DFPRST", {"\\Draft", "\\Flagged", "$Forwarded", "\\Answered", "\\Seen", "\\Deleted"}),
        ("1.a,S=4321,W=4400:2,RS", {"\\Answered", "\\Seen"}),
        ("1.a,S=4321:2,S,experiment", {"\\Seen"}),
        ("1.a:1,S", set()),
        ("1.a", set()),
        ("1.a:2,Zx9", set()),
        ("1.a:2,Sab", {"\\Seen"}),
    ],
)
def test_the_letters_of_a_file_name_are_flags(tmp_path, name, flags):
    put(tmp_path / "cur", name)
    assert [mail.flags for mail in load_maildir(tmp_path)] == [flags]


def test_what_is_new_is_not_seen_whatever_its_name_says(tmp_path):
    put(tmp_path / "new", "1.a:2,S")
    assert [mail.flags for mail in load_maildir(tmp_path)] == [frozenset()]


def test_dovecots_keyword_letters_are_read_where_the_file_says_what_they_are(tmp_path):
    put(tmp_path / "cur", "1.a:2,Sac")
    put(tmp_path / ".Work" / "cur", "1.a:2,Sa")
    (tmp_path / "dovecot-keywords").write_text("0 $Label1\n1 other\n2 Больше\nnonsense\n99 far\n3\n")
    assert [mail.flags for mail in load_maildir(tmp_path)] == [{"\\Seen", "$Label1", "Больше"}, {"\\Seen"}]


def test_folders_are_those_whose_names_begin_with_a_dot(tmp_path):
    put(tmp_path / ".Work.Old.2020" / "cur", "1.a:2,")
    put(tmp_path / ".Sent" / "new", "1.a")
    put(tmp_path / "cur", "1.a:2,")
    put(tmp_path / ".trash-can" / "tmp", "1.a")
    put(tmp_path / "elsewhere" / "cur", "1.a")
    assert [mail.folder for mail in load_maildir(tmp_path)] == ["INBOX", "Sent", "Work/Old/2020"]


def test_messages_come_in_the_order_of_their_delivery(tmp_path):
    for part, name in [("cur", "200.b:2,"), ("new", "1000.a"), ("cur", "99.z:2,S"), ("cur", "no-number:2,")]:
        put(tmp_path / part, name, f"Subject: {name.partition(':')[0]}\n\n".encode())
    subjects = [mail.raw.split()[1].decode() for mail in load_maildir(tmp_path)]
    assert subjects == ["no-number", "99.z", "200.b", "1000.a"]


def test_what_is_no_message_is_left_alone(tmp_path):
    put(tmp_path / "cur", "1.a:2,")
    put(tmp_path / "cur", ".nfs0001")
    put(tmp_path / "tmp", "2.b")
    (tmp_path / "cur" / "folder").mkdir()
    (tmp_path / "dovecot-uidlist").write_text("3 V1 N1\n")
    assert len(list(load_maildir(tmp_path))) == 1


def test_what_the_standard_library_wrote_is_read_as_it_was(tmp_path):
    box = mailbox.Maildir(tmp_path / "box", create=True)
    message = mailbox.MaildirMessage(b"Subject: x\n\nbody\n")
    message.set_subdir("cur")
    message.set_flags("FRS")
    message.set_date(MOMENT)
    box.add(message)
    box.add_folder("Archive").add(b"Subject: y\n\n")
    first, second = load_maildir(tmp_path / "box")
    assert (first.raw, first.flags) == (b"Subject: x\r\n\r\nbody\r\n", {"\\Flagged", "\\Answered", "\\Seen"})
    assert (first.received_s, second.folder) == (MOMENT, "Archive")


def test_a_maildir_with_folders_alone_is_one(tmp_path):
    put(tmp_path / ".Sent" / "cur", "1.a:2,S")
    assert [mail.folder for mail in load_maildir(tmp_path)] == ["Sent"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("nothing", "does not exist"), ("file", "is not a directory"), ("empty", "has neither cur nor new")],
)
def test_what_is_no_maildir_is_said_at_once(tmp_path, name, problem):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MailFileError, match=problem) as caught:
        load_maildir(tmp_path / name)
    assert caught.value.path == tmp_path / name
    assert "directory with cur and new" in str(caught.value)
    assert isinstance(caught.value, FakemailError)


def test_a_message_that_vanishes_meanwhile_is_an_error(tmp_path, monkeypatch):
    put(tmp_path / "cur", "1.a:2,")
    put(tmp_path / "cur", "2.b:2,")
    loading = load_maildir(tmp_path)
    next(loading)
    (tmp_path / "cur" / "2.b:2,").unlink()
    with pytest.raises(MailFileError, match="nobody may write"):
        next(loading)


# --- mbox ---


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_mbox_is_divided_where_from_follows_an_empty_line(tmp_path, end):
    lines = [
        b"From ann@example.org Tue Nov 14 22:13:20 2023", b"Subject: one", b"", b"text:", b"From here on.", b"",
        b">From the archive", b">>From further back", b"> From with a space", b"",
        b"From - Wed Nov 15 00:00:00 2023", b"Subject: two", b"", b"", b"ends with an empty line", b"", b"",
    ]  # fmt: skip
    first, second = load_mbox(written(tmp_path, end.join(lines)))
    assert first.raw == (
        b"Subject: one\r\n\r\ntext:\r\nFrom here on.\r\n\r\n"
        b"From the archive\r\n>From further back\r\n> From with a space\r\n"
    )
    assert second.raw == b"Subject: two\r\n\r\n\r\nends with an empty line\r\n"
    assert (first.received_s, second.received_s) == (MOMENT, MOMENT + 6400)
    assert first.folder == second.folder == "INBOX"


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        (b"Status: RO\nX-Status: A\n", {"\\Seen", "\\Answered"}),
        (b"Status: O\n", set()),
        (b"STATUS: R\nx-status: AFTD\n", {"\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted"}),
        (b"Status: R\nX-Keywords: $Label1\n  work\nX-UID: 17\n", {"\\Seen", "$Label1", "work"}),
        (b"", set()),
    ],
)
def test_status_fields_become_flags_and_are_removed(tmp_path, fields, flags):
    content = b"From a@b.test Tue Nov 14 22:13:20 2023\nSubject: x\n" + fields + b"To: a\n\nStatus: RO\n"
    (mail,) = load_mbox(written(tmp_path, content))
    assert mail.flags == flags
    assert mail.raw == b"Subject: x\r\nTo: a\r\n\r\nStatus: RO\r\n"


@pytest.mark.parametrize(
    "date", [b"", b" yesterday", b" Tue Nov 99 22:13:20 2023", b" Tue Nov 14 22:13:20 99999999999"]
)
def test_a_from_line_without_a_date_leaves_the_time_of_the_file(tmp_path, date):
    (mail,) = load_mbox(written(tmp_path, b"From a@b.test" + date + b"\nSubject: x\n\n"))
    assert mail.received_s == MOMENT
    assert mail.raw == b"Subject: x\r\n\r\n"


def test_the_folders_own_data_is_no_message(tmp_path):
    content = (
        b"From MAILER-DAEMON Tue Nov 14 22:13:20 2023\nFrom: Mail System Internal Data <MAILER-DAEMON@host>\n"
        b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1700000000 0000000002\nStatus: RO\n\n"
        b"This text is part of the internal format of your mail folder.\n\n"
        b"From a@b.test Tue Nov 14 22:13:20 2023\nX-IMAPbase: 1700000000 2\nSubject: x\n\nbody\n"
    )
    (mail,) = load_mbox(written(tmp_path, content))
    assert mail.raw == b"Subject: x\r\n\r\nbody\r\n"


def test_a_header_with_lines_that_are_no_fields_is_kept(tmp_path):
    (mail,) = load_mbox(
        written(tmp_path, b"From a Tue Nov 14 22:13:20 2023\n folded\nnonsense\nStatus : R\nSubject: x\n\n")
    )
    assert mail.raw == b" folded\r\nnonsense\r\nSubject: x\r\n\r\n"
    assert mail.flags == {"\\Seen"}


def test_an_empty_mbox_has_no_messages(tmp_path):
    assert list(load_mbox(written(tmp_path, b""))) == []
    assert list(load_mbox(written(tmp_path, b"\n\n"))) == []


def test_a_message_may_be_empty(tmp_path):
    content = b"From a Tue Nov 14 22:13:20 2023\n\nFrom b Tue Nov 14 22:13:20 2023\n"
    assert [mail.raw for mail in load_mbox(written(tmp_path, content))] == [b"\r\n", b""]


def test_an_mbox_may_be_any_folder(tmp_path):
    path = written(tmp_path, b"From a Tue Nov 14 22:13:20 2023\nSubject: x\n\n")
    assert [mail.folder for mail in load_mbox(path, folder="Archive/2023")] == ["Archive/2023"]


def test_what_the_standard_library_wrote_to_an_mbox_is_read_as_it_was(tmp_path):
    box = mailbox.mbox(tmp_path / "box", create=True)
    for text in ["plain\n", "From the start\n", "\n\nFrom after an empty line\n"]:
        message = EmailMessage()
        message["Subject"] = "x"
        message.set_content(text)
        box.add(mailbox.mboxMessage(message))
    box.close()
    found = [mail.raw.partition(b"\r\n\r\n")[2] for mail in load_mbox(tmp_path / "box")]
    # It quotes what begins with From, and nothing that is quoted already (mboxo).
    assert found == [b"plain\r\n", b"From the start\r\n", b"\r\n\r\nFrom after an empty line\r\n"]


@pytest.mark.parametrize(
    ("content", "problem"), [(b"Subject: x\n\nbody\n", "begins with b'Subject: x"), (b"\0\1\2\3", "begins with")]
)
def test_what_is_no_mbox_is_said_at_once(tmp_path, content, problem):
    with pytest.raises(MailFileError, match=problem) as caught:
        load_mbox(written(tmp_path, content))
    assert "begins with a line 'From " in caught.value.wanted


def test_a_path_without_an_mbox_is_said_at_once(tmp_path):
    with pytest.raises(MailFileError, match="does not exist"):
        load_mbox(tmp_path / "nothing")
    with pytest.raises(MailFileError, match="is a directory"):
        load_mbox(tmp_path)


def test_a_file_that_may_not_be_read_is_said_at_once(tmp_path, monkeypatch):
    path = written(tmp_path, b"From a Tue Nov 14 22:13:20 2023\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(MailFileError, match="can't be read: Permission denied"):
        load_mbox(path)


def test_no_more_than_one_message_is_held(tmp_path):
    """The reader has asked for no more of the file than the message and the beginning of the next."""
    one = b"From a Tue Nov 14 22:13:20 2023\nSubject: x\n\n" + b"y" * 70 + b"\n" * 2
    path = written(tmp_path, one * 20_000)
    loading = load_mbox(path)
    next(loading)
    # What follows is cut off while it is being read: the messages before are there, and those after are not.
    os.truncate(path, len(one) * 10_000)
    assert 5_000 < sum(1 for _ in loading) < 10_001
