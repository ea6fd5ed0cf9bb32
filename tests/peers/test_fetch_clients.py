"""Programs that fetch mail: curl, fetchmail and getmail6."""

from __future__ import annotations

import shutil

import pytest
from mail_clients import LETTER, Maildir, as_sent, message_id, run, sha256
from processes import normal_user, short_folder


@pytest.fixture
def curl(program, ann):
    """curl at one address of the mailbox; answers what it wrote."""
    found = program("curl", "curl")

    def fetch(path: str, *options: str, scheme: str = "imap", host: str = "127.0.0.1", code: int = 0) -> bytes:
        login = () if "--oauth2-bearer" in options else ("--user", f"{ann.address}:{ann.password}")
        url = f"{scheme}://{host}:{ann.fakes.port(scheme)}/{path}"
        trust = ("--cacert", str(ann.fakes.ca_file))
        return run(
            found, "--silent", "--show-error", "--max-time", "30", *trust, *login, *options, url, code=code
        ).stdout

    return fetch


def test_curl_fetches_by_uid_and_by_number(curl, ann):
    seeded = ann.seed(5)
    assert [sha256(curl(f"INBOX;UID={uid}")) for uid in sorted(ann.flags())] == seeded
    assert sha256(curl("INBOX;MAILINDEX=3")) == seeded[2]


def test_curl_fetches_sections_and_partials(curl, ann):
    ann.append(LETTER)
    head, _, text = LETTER.partition(b"\r\n\r\n")
    assert curl("INBOX;MAILINDEX=1;SECTION=TEXT") == text
    assert curl("INBOX;MAILINDEX=1;SECTION=HEADER") == head + b"\r\n\r\n"
    assert curl("INBOX;MAILINDEX=1;SECTION=HEADER.FIELDS%20(SUBJECT)") == b"Subject: a letter of mine\r\n\r\n"


def test_curl_searches(curl, ann):
    ann.seed(3)
    ann.append(LETTER)
    assert curl("INBOX?SUBJECT%20mine").split() == [b"*", b"SEARCH", b"4"]
    assert curl("INBOX?ALL").split()[2:] == [b"1", b"2", b"3", b"4"]


def test_curl_lists_folders(curl, ann):
    ann.fakes.control.create_folder(ann.address, "work")
    listed = curl("")
    assert b"INBOX" in listed
    assert b"work" in listed


def test_curl_appends_a_file_as_it_is(curl, ann, tmp_path):
    letter = tmp_path / "letter.eml"
    letter.write_bytes(LETTER)
    curl("INBOX", "--upload-file", str(letter))
    assert ann.digests() == [sha256(LETTER)]


def test_curl_stores_a_flag_and_expunges(curl, ann):
    ann.append(LETTER)
    curl("INBOX", "--request", r"STORE 1 +FLAGS \Deleted")
    assert list(ann.flags().values()) == [{"\\Deleted"}]
    curl("INBOX", "--request", "EXPUNGE")
    assert ann.rows() == []


@pytest.mark.parametrize(("scheme", "options"), [("imaps", ()), ("imap", ("--ssl-reqd",))])
def test_curl_trusts_the_servers_authority(curl, ann, scheme, options):
    seeded = ann.seed(1)
    for host in ("127.0.0.1", "localhost"):
        assert sha256(curl("INBOX;MAILINDEX=1", *options, scheme=scheme, host=host)) == seeded[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
def test_curl_logs_in_by_each_mechanism(curl, ann, mechanism):
    ann.append(LETTER)
    login = ("--user", ann.address, "--oauth2-bearer", ann.token) if "OAUTH" in mechanism else ()
    assert curl("INBOX;MAILINDEX=1", "--login-options", f"AUTH={mechanism}", *login) == LETTER


def test_curl_is_told_of_a_wrong_password(program, ann):
    url = f"imap://127.0.0.1:{ann.fakes.port('imap')}/INBOX"
    # 67: the user name, the password or similar was not accepted.
    run(program("curl", "curl"), "--silent", "--user", f"{ann.address}:wrong", url, code=67)


@pytest.fixture
def fetchmail(program, ann, tmp_path):
    """fetchmail, which gives each letter to a delivery program; answers what was delivered, by its digest."""
    found = program("fetchmail", "fetchmail")
    letters = tmp_path / "letters"
    letters.mkdir()
    deliver = tmp_path / "deliver"
    deliver.write_text(f'#!/bin/sh\nexec cat > "$(mktemp {letters}/XXXXXXXX)"\n')
    deliver.chmod(0o755)

    def fetch(*options: str, service: str = "imap", code: int = 0) -> list[str]:
        config = tmp_path / "fetchmailrc"
        config.write_text(
            f"poll localhost service {ann.fakes.port(service)} protocol imap timeout 30\n"
            f'  user "{ann.address}" there with password "{ann.password}" {" ".join(options)}\n'
            f'  no rewrite mda "{deliver}"\n'
        )
        config.chmod(0o600)
        files = ("--fetchmailrc", config, "--pidfile", tmp_path / "pid", "--idfile", tmp_path / "ids")
        run(found, *files, "--invisible", "--nosyslog", "--nodetach", "--verbose", code=code)
        return sorted(sha256(as_sent(path.read_bytes())) for path in letters.iterdir())

    return fetch


def test_fetchmail_delivers_every_letter_and_empties_the_mailbox(fetchmail, ann):
    ann.seed(12)
    seeded = ann.as_files()
    assert fetchmail("sslproto '' fetchall") == seeded
    assert ann.rows() == []


def test_fetchmail_keeps_letters_and_takes_only_the_unseen_next_time(fetchmail, ann):
    appended = ann.letters(3)
    assert fetchmail("sslproto '' keep") == sorted(appended)
    assert all("\\Seen" in flags for flags in ann.flags().values())
    # 1: there was no mail.
    fetchmail("sslproto '' keep", code=1)
    ann.append(LETTER)
    assert fetchmail("sslproto '' keep") == sorted([*appended, sha256(LETTER)])


@pytest.mark.parametrize(("service", "options"), [("imaps", "ssl"), ("imap", "sslproto tls1.2+")])
def test_fetchmail_trusts_the_servers_authority(fetchmail, ann, service, options):
    appended = ann.letters(2)
    trust = f"sslcertck sslcertfile {ann.fakes.ca_file}"
    assert fetchmail(options, trust, service=service) == sorted(appended)


@pytest.fixture
def getmail(program, ann):
    """getmail6 into a Maildir; it delivers nothing as root."""
    found, identity = program("getmail6", "getmail"), normal_user()
    with short_folder("getmail") as folder:
        near = Maildir(path=folder / "mail")
        for part in ("cur", "new", "tmp"):
            (near.path / part).mkdir(parents=True)
        shutil.copy(ann.fakes.ca_file, folder / "ca.pem")

        def fetch(*options: str, kind: str = "SimpleIMAPRetriever", service: str = "imap", trust: str = "") -> Maildir:
            (folder / "getmailrc").write_text(
                f"[retriever]\ntype = {kind}\nserver = localhost\nport = {ann.fakes.port(service)}\n"
                f"username = {ann.address}\npassword = {ann.password}\ntimeout = 30\n{trust.format(folder=folder)}\n"
                f"[destination]\ntype = Maildir\npath = {near.path}/\n\n"
                "[options]\ndelivered_to = false\nreceived = false\n" + "\n".join(options) + "\n"
            )
            identity.own(folder)
            run(found, "--getmaildir", folder, "--rcfile", folder / "getmailrc", identity=identity)
            return near

        yield fetch


def test_getmail_delivers_every_letter_as_it_is_and_nothing_twice(getmail, ann):
    appended = ann.letters(12)
    assert getmail("read_all = false").digests() == sorted(appended)
    ann.append(LETTER)
    assert getmail("read_all = false").digests() == sorted([*appended, sha256(LETTER)])
    assert len(ann.rows()) == 13


def test_getmail_delivers_all_synthesised_mail(getmail, ann):
    """Not byte by byte: it folds long fields anew."""
    ann.seed(25)
    near = getmail()
    brought = [message_id(path.read_bytes()) for path in near.files()]
    assert sorted(brought) == sorted(message_id(ann.message(uid)) for uid in ann.flags())


def test_getmail_empties_the_mailbox_where_it_is_told_so(getmail, ann):
    appended = ann.letters(4)
    assert getmail("delete = true").digests() == sorted(appended)
    assert ann.rows() == []


def test_getmail_trusts_the_servers_authority(getmail, ann):
    appended = ann.letters(2)
    near = getmail(kind="SimpleIMAPSSLRetriever", service="imaps", trust="ca_certs = {folder}/ca.pem")
    assert near.digests() == sorted(appended)
