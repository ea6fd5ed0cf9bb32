"""The standard library's imaplib: every method that is a command of a capability fakemail has."""

from __future__ import annotations

import contextlib
import email
import imaplib
import re
import ssl
import time

import pytest
from mail_clients import LETTER, sha256


@pytest.fixture
def connect(ann):
    """A connection that is closed afterwards."""
    with contextlib.ExitStack() as opened:

        def make(kind=imaplib.IMAP4, port="imap", **options):
            return opened.enter_context(kind("127.0.0.1", ann.fakes.port(port), timeout=20, **options))

        yield make


@pytest.fixture
def imap(connect, ann):
    """A connection that has logged in."""
    client = connect()
    client.login(ann.address, ann.password)
    return client


@pytest.fixture
def trust(ann):
    return ssl.create_default_context(cafile=str(ann.fakes.ca_file))


def ok(answer):
    status, data = answer
    assert status == "OK", data
    return data


def numbers(answer):
    return [int(number) for number in ok(answer)[0].split()]


def test_login_and_logout_change_the_state(imap):
    assert imap.state == "AUTH"
    assert imap.logout()[0] == "BYE"
    assert imap.state == "LOGOUT"


def test_a_wrong_password_raises(connect, ann):
    client = connect()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        client.login(ann.address, "wrong")


def test_authenticate_takes_plain_and_xoauth2(connect, ann):
    secrets = {
        "PLAIN": f"\0{ann.address}\0{ann.password}",
        "XOAUTH2": f"user={ann.address}\x01auth=Bearer {ann.token}\x01\x01",
    }
    for mechanism, secret in secrets.items():
        client = connect()
        assert f"AUTH={mechanism}" in client.capabilities
        ok(client.authenticate(mechanism, lambda _challenge, secret=secret: secret.encode()))
        ok(client.select())


def test_authenticate_is_told_of_a_bad_token(connect, ann):
    """The first call is for the message, the second for the explanation, which is answered with nothing."""
    told = []

    def answer(challenge):
        told.append(challenge)
        return b"" if len(told) > 1 else f"user={ann.address}\x01auth=Bearer bad\x01\x01".encode()

    with pytest.raises(imaplib.IMAP4.error):
        connect().authenticate("XOAUTH2", answer)
    assert b"status" in told[1]


@pytest.mark.parametrize("way", ["imaps", "starttls"])
def test_tls_verifies_the_server(connect, ann, trust, way):
    if way == "imaps":
        client = connect(imaplib.IMAP4_SSL, "imaps", ssl_context=trust)
    else:
        client = connect()
        ok(client.starttls(ssl_context=trust))
    client.login(ann.address, ann.password)
    ok(client.select())


def test_capabilities_are_known_before_and_after_login(connect, ann):
    client = connect()
    assert "STARTTLS" in client.capabilities
    client.login(ann.address, ann.password)
    # The first of the lines may be what LOGIN told by itself.
    assert b"MOVE" in ok(client.capability())[-1].split()


def test_folders_are_made_listed_renamed_subscribed_and_deleted(imap):
    ok(imap.create("work"))
    assert any(line.endswith((b"work", b'"work"')) for line in ok(imap.list()))
    ok(imap.subscribe("work"))
    assert any(b"work" in line for line in ok(imap.lsub()))
    ok(imap.unsubscribe("work"))
    ok(imap.rename("work", "play"))
    assert any(b"play" in line for line in ok(imap.list('""', "p%")))
    ok(imap.delete("play"))
    assert imap.delete("play")[0] == "NO"
    assert re.match(rb'\(\("" "', ok(imap.namespace())[0])


def test_status_and_select_tell_the_same(imap, ann):
    ann.seed(4)
    (line,) = ok(imap.status("INBOX", "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)"))
    status = {key: int(value) for key, value in re.findall(rb"([A-Z]+) (\d+)", line)}
    assert int(ok(imap.select())[0]) == status[b"MESSAGES"] == 4
    assert int(imap.response("UIDVALIDITY")[1][0]) == status[b"UIDVALIDITY"]


def test_examine_is_read_only(imap, ann):
    ann.append(LETTER)
    ok(imap.select(readonly=True))
    assert imap.is_readonly
    ok(imap.fetch("1", "(RFC822)"))
    assert list(ann.flags().values()) == [set()]


def test_append_fetch_search_and_store(imap, ann):
    now = imaplib.Time2Internaldate(time.time())
    (told,) = ok(imap.append("INBOX", r"(\Flagged)", now, LETTER))
    assert b"APPENDUID" in told
    ok(imap.select())
    ((head, body), end) = ok(imap.fetch("1", "(UID FLAGS RFC822.SIZE INTERNALDATE BODY.PEEK[])"))
    assert body == LETTER
    assert rb"\Flagged" in head + end
    assert imaplib.Internaldate2tuple(head) is not None
    assert numbers(imap.search(None, "FLAGGED", "SUBJECT", '"a letter of mine"')) == [1]
    assert numbers(imap.search("UTF-8", "TEXT", "Hello")) == [1]
    (line,) = ok(imap.store("1", "+FLAGS", r"(\Seen)"))
    assert set(imaplib.ParseFlags(line)) >= {rb"\Flagged", rb"\Seen"}
    assert email.message_from_bytes(body)["Subject"] == "a letter of mine"


def test_every_message_comes_as_it_was_seeded(imap, ann):
    seeded = ann.seed(60)
    ok(imap.select(readonly=True))
    rows = [row for row in ok(imap.fetch("1:*", "(BODY.PEEK[])")) if isinstance(row, tuple)]
    assert [sha256(body) for _, body in rows] == seeded
    ok(imap.select())
    assert sha256(ok(imap.fetch("7", "(RFC822)"))[0][1]) == seeded[6]


def test_copy_expunge_check_and_close(imap, ann):
    ann.letters(3)
    ok(imap.create("work"))
    ok(imap.select())
    ok(imap.copy("1:2", "work"))
    ok(imap.store("2", "+FLAGS", r"(\Deleted)"))
    ok(imap.check())
    assert ok(imap.expunge()) == [b"2"]
    ok(imap.store("1", "+FLAGS.SILENT", r"(\Deleted)"))
    ok(imap.close())
    assert len(ann.rows()) == 1
    assert len(ann.rows("work")) == 2


def test_uid_commands(imap, ann):
    ann.letters(3)
    uids = sorted(ann.flags())
    ok(imap.create("work"))
    ok(imap.select())
    assert numbers(imap.uid("SEARCH", "ALL")) == uids
    ok(imap.uid("STORE", str(uids[1]), "+FLAGS", r"(\Deleted)"))
    assert f"UID {uids[2]}".encode() in ok(imap.uid("FETCH", f"{uids[2]}:*", "(FLAGS)"))[0]
    ok(imap.uid("EXPUNGE", str(uids[1])))
    ok(imap.uid("COPY", str(uids[0]), "work"))
    ok(imap.uid("MOVE", str(uids[2]), "work"))
    assert sorted(ann.flags()) == [uids[0]]
    assert len(ann.rows("work")) == 2


def test_noop_and_recent_tell_of_new_mail(imap, ann):
    ok(imap.select())
    ann.append(LETTER)
    ok(imap.noop())
    # imaplib keeps what SELECT told too.
    assert imap.response("EXISTS")[1] == [b"0", b"1"]
    ann.append(LETTER)
    assert ok(imap.recent()) != [None]


def test_enable_unselect_and_unknown_commands(imap):
    ok(imap.enable("CONDSTORE"))
    ok(imap.select())
    assert imap.response("HIGHESTMODSEQ")[1] != [None]
    ok(imap.unselect())
    assert imap.state == "AUTH"
    imaplib.Commands.setdefault("ID", ("NONAUTH", "AUTH", "SELECTED"))
    ok(imap.xatom("ID", "NIL"))
    with pytest.raises(imaplib.IMAP4.error):
        imap.xatom("XNONSENSE")


if hasattr(imaplib.IMAP4, "idle"):  # since Python 3.14

    def test_idle_tells_of_new_mail(imap, ann):
        ok(imap.select())
        with imap.idle(duration=10) as news:
            ann.append(LETTER)
            assert next(news)[0] in {"EXISTS", "RECENT"}


def test_an_append_right_after_another_does_not_wait_for_an_acknowledgement(imap, ann):
    """The delayed acknowledgement of TCP would cost 40 ms each: fifty would take two seconds."""
    started = time.monotonic()
    for _ in range(50):
        ok(imap.append("INBOX", None, None, LETTER))
    assert time.monotonic() - started < 1.5
    assert len(ann.rows()) == 50
