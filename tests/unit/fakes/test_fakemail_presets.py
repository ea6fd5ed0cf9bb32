"""Every IMAP preset plays what its sentence says, and heals where it says so."""

import base64

import pytest
from imap_transcript import PASSWORD, USER, Transcript

from fakemail.faults import PRESETS, Plan, preset
from fakemail.imap_protocol import Close, Delay, ImapOptions, Pace, Stall

BIG = (
    b"Subject: big\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
    + b"words " * 1_000
    + b"\r\n--b--\r\n"
)


class Clients:
    """Clients of one store and one plan, one after the other."""

    def __init__(self, name):
        self.plan = Plan(7, preset(name))
        self.store = None

    def __call__(self):
        talk = Transcript(self.store, plan=self.plan, options=ImapOptions(starttls=True))
        if self.store is None:
            self.store = talk.store
            for number in range(3):
                talk.store.store(talk.inbox, BIG.replace(b"big", b"big %d" % number))
        return talk


@pytest.fixture
def clients(request):
    return Clients(request.param)


#: Presets that a test here plays.
PLAYED = {"bad-base64", "broken-mime", "bad-charset"}


def plays(name):
    PLAYED.add(name)
    return pytest.mark.parametrize("clients", [name], indirect=True, ids=[name])


def login(talk):
    return talk.lines(f"l LOGIN {USER} {PASSWORD}")[-1]


def ends(talk):
    """How the connection ended: abruptly, in order, or not at all."""
    return next((event.abrupt for event in talk.events if isinstance(event, Close)), None)


@plays("gmail-connection-limit")
def test_two_logins_meet_too_many_connections(clients):
    refused = "l NO [ALERT] Too many simultaneous connections. (Failure)"
    assert [login(clients()), login(clients())] == [refused, refused]
    assert login(clients()).startswith("l OK ")


@plays("o365-throttle")
def test_two_selects_meet_a_user_who_is_not_connected(clients):
    talk = clients().login()
    refused = ["s BAD User is authenticated but not connected."]
    assert [talk.lines("s SELECT INBOX"), talk.lines("s SELECT INBOX")] == [refused, refused]
    assert talk.lines("s SELECT INBOX")[-1].startswith("s OK ")


@plays("imap-unavailable")
def test_three_logins_meet_a_database_that_is_down(clients):
    refused = "l NO [UNAVAILABLE] Temporary authentication failure"
    assert [login(clients()) for _ in range(3)] == [refused] * 3
    assert login(clients()).startswith("l OK ")


@plays("imap-login-refused")
def test_no_password_is_right(clients):
    assert {login(clients()) for _ in range(5)} == {"l NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"}


@plays("overquota-append")
def test_an_append_finds_the_mailbox_full(clients):
    talk = clients().login()
    assert talk.lines("a APPEND INBOX {4+}\r\na: b") == ["a NO [OVERQUOTA] The mailbox is over its quota"]
    assert talk.ok("NOOP") == []


@plays("imap-bye-midway")
def test_the_second_fetch_meets_a_bye(clients):
    talk = clients().login().select()
    talk.ok("FETCH 1 FLAGS")
    assert talk.lines("f UID FETCH 1 FLAGS") == ["* BYE [UNAVAILABLE] Server shutting down"]
    assert ends(talk) is False
    clients().login().select().ok("FETCH 1 FLAGS")


@plays("drop-in-literal")
def test_the_line_breaks_in_the_first_message(clients):
    talk = clients().login().select()
    answer = talk.send(b"f FETCH 1 BODY.PEEK[]\r\n")
    assert answer.partition(b"}\r\n")[2] == talk.inbox.raw(1)[:512]
    assert ends(talk) is True
    talk = clients().login().select()
    assert talk.fetch(1, "BODY.PEEK[]") == talk.inbox.raw(1)


@plays("stall-in-literal")
def test_the_line_falls_silent_in_the_first_message(clients):
    talk = clients().login().select()
    talk.session.feed(b"f FETCH 1 BODY.PEEK[]\r\n")
    came, events = b"", talk.session.events()
    for event in events:
        if isinstance(event, Stall):
            break
        came += event if isinstance(event, bytes) else b""
    assert came.partition(b"}\r\n")[2] == talk.inbox.raw(1)[:512]
    talk = clients().login().select()
    assert talk.fetch(1, "BODY.PEEK[]") == talk.inbox.raw(1)


@plays("uidvalidity-reset")
def test_the_second_select_finds_other_uids(clients):
    talk = clients().login().select()
    first = talk.inbox.uidvalidity
    talk.inbox.expunge(talk.inbox.uids & talk.inbox.uids.of([(1, 1)]))
    talk = clients().login().select()
    assert talk.inbox.uidvalidity > first
    assert list(talk.inbox.uids) == [1, 2]
    second = talk.inbox.uidvalidity
    clients().login().select()
    assert talk.inbox.uidvalidity == second


@plays("missing-uidnext")
def test_select_does_not_say_uidnext(clients):
    answer = "\n".join(clients().login().lines("s SELECT INBOX"))
    assert "UIDVALIDITY" in answer
    assert "UIDNEXT" not in answer


@plays("arrive-between-search-and-fetch")
def test_mail_arrives_behind_the_back_of_a_search(clients):
    talk = clients().login().select()
    assert talk.ok("UID SEARCH ALL") == ["* SEARCH 1 2 3"]
    told = talk.ok("UID FETCH 1:* FLAGS")
    assert len(talk.inbox.uids) == 4
    assert any(line == "* 4 EXISTS" for line in [*told, *talk.ok("NOOP")])


@plays("expunge-between-search-and-fetch")
def test_mail_is_expunged_behind_the_back_of_a_search(clients):
    talk = clients().login().select()
    assert talk.ok("UID SEARCH ALL") == ["* SEARCH 1 2 3"]
    told = talk.ok("UID FETCH 1:* FLAGS")
    assert len(talk.inbox.uids) == 2
    assert any(line.endswith(" EXPUNGE") for line in [*told, *talk.ok("NOOP")])


@plays("idle-dies")
def test_every_second_idle_ends_with_a_bye(clients):
    talk = clients().login().select()
    assert talk.lines("i IDLE") == ["+ idling"]
    assert talk.lines("DONE") == ["i OK IDLE completed"]
    assert talk.lines("i IDLE") == ["* BYE Autologout; idle for too long"]
    assert ends(talk) is False


@plays("idle-silence")
def test_every_second_idle_is_cut(clients):
    talk = clients().login().select()
    talk.lines("i IDLE")
    talk.lines("DONE")
    assert talk.lines("i IDLE") == []
    assert ends(talk) is True


@plays("slow-imap")
def test_commands_wait_and_messages_come_slowly(clients):
    talk = clients().login().select()
    assert talk.fetch(1, "BODY.PEEK[]") == talk.inbox.raw(1)
    waits = [event.delay_ms for event in talk.events if isinstance(event, Delay)]
    assert len(waits) == 3
    assert all(100 <= wait <= 500 for wait in waits)
    assert 65_536 in [event.bytes_per_s for event in talk.events if isinstance(event, Pace)]


@pytest.mark.parametrize(
    ("clients", "spoilt"),
    [
        ("bad-base64", b"Content-Transfer-Encoding: base64"),
        ("broken-mime", b"boundery=b"),
        ("bad-charset", b"x-nowhere"),
    ],
    indirect=["clients"],
)
def test_every_third_message_is_spoilt(clients, spoilt):
    talk = clients().login().select()
    bodies = [talk.fetch(number, "BODY.PEEK[]") for number in (1, 2, 3)]
    assert [spoilt in body for body in bodies] == [False, False, True]
    assert [len(body) for body in bodies] == [talk.inbox.size(uid) for uid in (1, 2, 3)]


@plays("wrong-size")
def test_every_third_message_is_shorter_than_it_says(clients):
    talk = clients().login().select()
    assert talk.ok("FETCH 1:2 RFC822.SIZE")
    assert len(talk.fetch(3, "BODY.PEEK[]")) == talk.inbox.size(3) // 2


@plays("imap-starttls-stripped")
def test_starttls_is_nowhere(clients):
    talk = clients()
    assert b"STARTTLS" not in talk.session.greeting()
    assert "STARTTLS" not in "".join(talk.ok("CAPABILITY"))


@plays("expired-token")
def test_the_first_token_of_a_user_has_expired(clients):
    token = base64.b64encode(f"user={USER}\1auth=Bearer canary-token\1\1".encode()).decode()
    talk = clients()
    (challenge,) = talk.lines(f"x AUTHENTICATE XOAUTH2 {token}")
    assert b'"status"' in base64.b64decode(challenge.removeprefix("+ "))
    assert talk.lines("")[-1].startswith("x NO ")
    assert talk.lines(f"x AUTHENTICATE XOAUTH2 {token}")[-1].startswith("x OK ")


def test_what_happens_before_the_core_is_asked_is_all_that_is_left_to_other_tests():
    imap = {name for name, each in PRESETS.items() if any(fault.point.startswith("imap.") for fault in each)}
    assert imap - PLAYED == {
        "imap-connection-drops", "tls-expired", "tls-handshake-failure", "tls-self-signed", "tls-wrong-host",
    }  # fmt: skip
