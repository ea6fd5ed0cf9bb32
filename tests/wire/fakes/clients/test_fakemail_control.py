"""The control API and its client."""

import contextlib
import hashlib
import http.client
import imaplib
import json
import mailbox
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from random import Random
from urllib.parse import quote, urlencode, urlsplit

import pytest
from fakemail_harness import DEADLINE_S, PASSWORD, USER

from fakemail import FakemailError
from fakemail.client import ControlError, FakeMail, describe
from fakemail.control.application import ROUTES

GREYLIST = {"id": "g", "point": "smtp.rcpt", "when": {"first": 2}, "action": {"reply": "451 4.7.1 Later"}}
RAW = b"Message-ID: <x@y>\r\nSubject: hello\r\n\r\nhi\r\n"


def call(fakes, method, path, body=None):
    parts = urlsplit(fakes.facts["control"])
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def inbox(fakes):
    return next(each for each in fakes.control.mailbox(USER)["folders"] if each["name"] == "INBOX")


def deliver(fakes, count=1, recipient=USER):
    with smtplib.SMTP(*fakes.address("smtp"), timeout=10) as client:
        for _ in range(count):
            client.sendmail("bob@example.test", [recipient], RAW)


@pytest.fixture
def imap(fakes):
    client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    client.login(USER, PASSWORD)
    client.select("INBOX")
    yield client
    client.shutdown()


# --- the process ------------------------------------------------------------------------------------------------------


def test_health(fakes):
    assert fakes.control.health()["status"] == "ok"


def test_the_index_names_every_endpoint_and_every_server(fakes):
    index = fakes.control.index()
    assert [(each["method"], each["path"]) for each in index["endpoints"]] == [(r.method, r.path) for r in ROUTES]
    assert index["servers"]["imap"] == fakes.facts["imap"]
    assert fakes.control.smtps == fakes.address("smtps")
    assert index["version"] == fakes.facts["version"]


def test_the_authority_s_certificate_is_what_a_client_must_trust(fakes):
    context = ssl.create_default_context(cadata=fakes.control.ca_pem())
    with imaplib.IMAP4_SSL(*fakes.address("imaps"), ssl_context=context, timeout=10) as client:
        assert client.login(USER, PASSWORD)[0] == "OK"


def test_the_stats_count_what_there_is(fakes, imap):
    fakes.control.seed(USER, count=1000, seed=5, folder="Junk")
    fakes.control.put_faults([GREYLIST])
    stats = fakes.control.stats()
    assert (stats["users"], stats["folders"], stats["messages"]) == (1, 5, 1000)
    assert stats["connections"] == {"imap": 1}
    assert stats["faults"] == {"g": {"seen": 0, "fired": 0}}
    assert stats["ledger"]["counts"]["login"] == 1
    assert stats["pid"] == fakes.process.pid
    assert stats["rss_bytes"] is None or 10_000_000 < stats["rss_bytes"] < 200_000_000


def test_a_limit_is_set_shown_and_lifted(fakes, imap):
    assert fakes.control.set_limits(connections_per_user=1) == {"connections": None, "connections_per_user": 1}
    second = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    with pytest.raises(imaplib.IMAP4.error):
        second.login(USER, PASSWORD)
    second.shutdown()
    assert fakes.control.set_limits(connections_per_user=None)["connections_per_user"] is None
    third = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    assert third.login(USER, PASSWORD)[0] == "OK"
    third.shutdown()


def test_connections_are_listed_and_cut(fakes, imap):
    with smtplib.SMTP(*fakes.address("smtp"), timeout=10) as other:
        first, second = fakes.control.connections()
        assert (first["protocol"], first["user"], first["tls"]) == ("imap", USER, False)
        assert (second["protocol"], second["user"]) == ("smtp", "")
        host, port = imap.sock.getsockname()
        assert first["peer"] == f"{host}:{port}"
        assert fakes.control.cut(user=USER.upper()) == 1
        with pytest.raises((imaplib.IMAP4.abort, OSError)):
            imap.noop()
        assert fakes.control.cut(second["connection"]) == 1
        assert fakes.control.connections() == []
        assert other.sock.recv(1) == b"", "the line is cut without a word"
    with pytest.raises(ControlError, match=r"404 no connection '12345' is open; allowed"):
        fakes.control.cut(12345)


def test_a_connection_under_tls_is_listed_with_its_user_and_cut(fakes):
    context = ssl.create_default_context(cadata=fakes.control.ca_pem())
    client = imaplib.IMAP4_SSL(*fakes.address("imaps"), ssl_context=context, timeout=10)
    client.login(USER, PASSWORD)
    (facts,) = fakes.control.connections()
    assert (facts["protocol"], facts["user"], facts["tls"]) == ("imap", USER, True)
    assert fakes.control.cut() == 1
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        client.noop()
    client.shutdown()


def test_reset_forgets_users_mail_faults_limits_and_ledger(fakes):
    fakes.control.seed(USER, count=1, seed=5)
    fakes.control.put_faults([GREYLIST])
    fakes.control.set_limits(connections=3)
    fakes.control.reset()
    assert list(fakes.control.ledger()) == []
    assert fakes.control.faults() == []
    assert fakes.control.users() == []
    assert fakes.control.limits() == {"connections": None, "connections_per_user": None}
    with pytest.raises(ControlError, match="404"):
        fakes.control.mailbox(USER)


def test_a_reset_can_cut_every_connection_and_leaves_no_word_of_them(fakes, imap):
    fakes.control.reset(connections=True)
    assert fakes.control.connections() == []
    assert list(fakes.control.ledger()) == []
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        imap.noop()


# --- users, folders, messages -----------------------------------------------------------------------------------------


def test_seeding_says_what_is_there(fakes):
    answer = fakes.control.seed(USER, count=3, seed=5)
    assert [row["uid"] for row in answer["messages"]] == [1, 2, 3]
    assert (answer["count"], answer["first"], answer["last"]) == (3, 1, 3)
    here = inbox(fakes)
    assert (here["uidvalidity"], here["uidnext"], here["count"]) == (answer["uidvalidity"], 4, 3)
    shown = ("uid", "message_id", "size_bytes", "flags")
    assert [[m[name] for name in shown] for m in here["messages"]] == [
        [m[name] for name in shown] for m in answer["messages"]
    ]


def test_digests_are_those_of_the_bytes(fakes):
    rows = fakes.control.seed(USER, count=20, seed=5)["messages"]
    for row in rows:
        raw = fakes.control.message(USER, row["uid"])
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (row["size_bytes"], row["sha256"])
    assert list(fakes.control.messages(USER, digests=True)) == rows


def test_a_million_messages_are_there_at_once_and_can_be_paged_through(fakes):
    began = time.monotonic()
    answer = fakes.control.seed(USER, count=1_000_000, seed=5)
    # Made one by one they would take half a minute.
    assert time.monotonic() - began < 5
    assert (answer["messages"], answer["last"]) == ([], 1_000_000)
    assert [row["uid"] for row in fakes.control.messages(USER, after_uid=999_998)] == [999_999, 1_000_000]
    page = call(fakes, "GET", f"/mailboxes/{USER}/messages?after_uid=500000&limit=2")[1]
    assert ([row["uid"] for row in page["messages"]], page["next"], page["more"]) == ([500_001, 500_002], 500_002, True)
    assert len(inbox(fakes)["messages"]) == 10_000


def test_digests_can_be_left_out_and_asked_for_within_bounds(fakes):
    assert fakes.control.seed(USER, count=3, seed=5, digests=False)["messages"] == []
    assert len(fakes.control.seed(USER, count=10_001, seed=5, digests=True)["messages"]) == 10_001
    with pytest.raises(ControlError, match=r"digests: true given with count 100001; allowed"):
        fakes.control.seed(USER, count=100_001, seed=5, digests=True)


def test_a_long_answer_keeps_no_client_waiting(fakes, imap):
    done = threading.Event()

    def ask():
        fakes.control.seed(USER, count=10_000, seed=5, profile="exchange", folder="Junk")
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    longest = rounds = 0
    while not done.is_set():
        began = time.monotonic()
        imap.noop()
        longest, rounds = max(longest, time.monotonic() - began), rounds + 1
    thread.join()
    assert rounds > 10, "it was over before it could be told"
    assert longest < 0.5, f"a NOOP took {longest:.3f} s beside it"


def test_a_raw_message_goes_into_a_folder(fakes):
    assert fakes.control.append(USER, RAW, folder="Junk")["uid"] == 1
    (row,) = fakes.control.messages(USER, "Junk")
    assert (row["message_id"], row["flags"]) == ("<x@y>", [])
    assert fakes.control.message(USER, 1, "Junk") == RAW


def test_flags_and_a_date_can_come_with_it(fakes):
    fakes.control.append(USER, RAW, flags=["\\Seen", "$Forwarded"], received_s=1_000_000_000)
    (row,) = fakes.control.messages(USER)
    assert (row["flags"], row["received_s"]) == (["$Forwarded", "\\Seen"], 1_000_000_000)


def test_flags_and_expunges_reach_a_client_that_is_there(fakes, imap):
    fakes.control.seed(USER, count=9, seed=5)
    imap.noop()
    assert fakes.control.set_flags(USER, 2, ["\\Flagged"])["flags"] == ["\\Flagged"]
    assert fakes.control.expunge(USER, [1, 5, 6])["expunged"] == 3
    assert fakes.control.expunge(USER, 1)["expunged"] == 0
    imap.noop()
    assert sorted(imap.response("EXPUNGE")[1]) == [b"1", b"5", b"6"], "told from the end, so that no number moves"
    assert imap.fetch("1", "(FLAGS)")[1][-1] == b"1 (FLAGS (\\Flagged))"
    status, answer = call(fakes, "DELETE", f"/mailboxes/{USER}/messages?uids=3:*")
    assert (status, answer) == (200, {"expunged": 5, "count": 1})


def test_folders_are_made_and_taken_away(fakes, imap):
    assert fakes.control.create_folder(USER, "Work/Old")["count"] == 0
    assert any(b"Work/Old" in line for line in imap.list()[1])
    fakes.control.delete_folder(USER, "Work/Old")
    assert not any(b"Work/Old" in line for line in imap.list()[1])
    for broken in ("INBOX", "Sent"):
        with pytest.raises(ControlError, match="409"):
            fakes.control.create_folder(USER, broken)


def test_a_maildir_and_an_mbox_are_loaded(fakes, tmp_path):
    box = mailbox.Maildir(tmp_path / "maildir", create=True)
    message = mailbox.MaildirMessage(RAW)
    message.set_subdir("cur")
    message.set_flags("S")
    box.add(message)
    box.add_folder("Work").add(RAW)
    (tmp_path / "one.mbox").write_bytes(b"From ann Thu Jan  1 00:00:10 1970\n" + RAW)
    fakes.control.load(USER, tmp_path / "maildir")
    assert fakes.control.load(USER, tmp_path / "one.mbox", folder="Junk")["loaded"] == 1
    (seen,) = fakes.control.messages(USER)
    assert seen["flags"] == ["\\Seen"]
    assert fakes.control.message(USER, 1, "Work") == RAW
    (old,) = fakes.control.messages(USER, "Junk")
    assert old["received_s"] == 10
    with pytest.raises(ControlError, match=r"400 .*none: does not exist"):
        fakes.control.load(USER, tmp_path / "none")


def test_a_uidvalidity_reset_numbers_the_same_mail_anew(fakes):
    before = fakes.control.seed(USER, count=5, seed=5)
    fakes.control.expunge(USER, [1, 2])
    after = fakes.control.reset_uidvalidity(USER)
    assert after["uidvalidity"] > before["uidvalidity"]
    rows = list(fakes.control.messages(USER, digests=True))
    assert [row["uid"] for row in rows] == [1, 2, 3]
    assert [row["sha256"] for row in rows] == [row["sha256"] for row in before["messages"][2:]]


def test_a_timeline_is_the_same_for_the_same_seed_and_in_the_ledger(fakes):
    def events():
        fakes.control.seed(USER, count=20, seed=5)
        return fakes.control.advance(USER, 50)["events"]

    first = events()
    told = [entry["event"] for entry in fakes.control.ledger(kind="timeline")]
    assert told == [event["kind"] for event in first]
    assert {"arrive", "flags", "expunge"} <= set(told)
    fakes.control.reset()
    fakes.control.add_user(USER, PASSWORD)
    assert events() == first


def test_a_timeline_runs_by_itself_until_it_is_stopped(fakes):
    fakes.control.run_timeline(USER, per_s=200, weights={"arrive": 1, "flags": 0, "expunge": 0})
    entries = fakes.control.wait_for("timeline", count=20)
    assert {entry["event"] for entry in entries} == {"arrive"}
    assert fakes.control.stats()["timelines"] == 1
    fakes.control.run_timeline(USER, per_s=0)
    stats = fakes.control.stats()
    assert stats["timelines"] == 0
    assert fakes.control.news(after=stats["ledger"]["seq"], timeout_s=0.1) == []


# --- faults -----------------------------------------------------------------------------------------------------------


def test_faults_are_put_shown_and_cleared(fakes):
    fakes.control.put_faults([GREYLIST])
    assert fakes.control.faults() == [GREYLIST]
    fakes.control.put_faults(fakes.control.faults())
    assert fakes.control.fault_counts() == {"g": {"seen": 0, "fired": 0}}
    fakes.control.clear_faults()
    assert fakes.control.faults() == []


def test_a_broken_fault_leaves_the_old_ones_in_force(fakes):
    fakes.control.put_faults([GREYLIST])
    with pytest.raises(ControlError, match=r"400 .*faults\[0\].point: unknown point 'x'; allowed: smtp.connect"):
        fakes.control.put_faults([GREYLIST | {"point": "x"}])
    assert fakes.control.faults() == [GREYLIST]


def test_one_fault_more_leaves_the_counts_of_the_others(fakes):
    fakes.control.put_faults([GREYLIST])
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        deliver(fakes)
    with fakes.control.fault("smtp.data", reply="451 4.3.0 Full", nth=1) as fault:
        assert fault.id == "smtp.data-1"
        assert fakes.control.fault_counts()["g"] == {"seen": 1, "fired": 1}
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            deliver(fakes)
        with pytest.raises(smtplib.SMTPDataError):
            deliver(fakes)
        assert fault.counts() == {"seen": 1, "fired": 1}
    assert [each["id"] for each in fakes.control.faults()] == ["g"]
    assert fault.counts() == {"seen": 0, "fired": 0}
    fault.heal()


def test_the_keywords_of_the_client_make_the_fault_that_the_server_shows(fakes):
    fakes.control.put_fault(
        "imap.command", fault_id="slow", match={"command": "FETCH"}, scope="user", window=[2, 3], delay_ms=5, drop=True
    )
    fakes.control.put_fault("smtp.connect", stall=True)
    assert fakes.control.faults() == [
        {
            "id": "slow",
            "point": "imap.command",
            "when": {"window": [2, 3]},
            "action": {"delay_ms": 5, "drop": True},
            "match": {"command": "FETCH"},
            "scope": "user",
        },
        {"id": "smtp.connect-1", "point": "smtp.connect", "when": {"always": True}, "action": {"stall": True}},
    ]


def test_a_fault_is_healed_also_when_the_test_fails(fakes):
    with pytest.raises(ZeroDivisionError), fakes.control.fault("smtp.connect", drop=True):
        1 / 0  # noqa: B018
    assert fakes.control.faults() == []


def test_a_preset_is_put_by_its_name(fakes):
    assert "greylisting" in fakes.control.presets()
    (fault,) = fakes.control.preset("greylisting")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        deliver(fakes)
    deliver(fakes)
    assert fault.counts() == {"seen": 2, "fired": 1}
    with pytest.raises(ControlError, match="did you mean 'greylisting'"):
        fakes.control.preset("grey-listing")


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_comes_in_pages(fakes):
    start = fakes.control.health()["ledger_seq"]
    for _ in range(7):
        smtplib.SMTP(*fakes.address("smtp"), timeout=10).close()
    fakes.control.wait_for("disconnect", count=7, after=start)
    status, page = call(fakes, "GET", f"/ledger?after={start}&limit=5")
    assert status == 200
    assert [entry["seq"] for entry in page["entries"]] == list(range(start + 1, start + 6))
    assert (page["next"], page["dropped"]) == (start + 5, 0)
    assert [entry["seq"] for entry in fakes.control.ledger(after=start)] == list(range(start + 1, start + 15))
    assert [entry["seq"] for entry in fakes.control.last(3)] == [start + 12, start + 13, start + 14]


def test_the_ledger_is_asked_for_what_entries_say(fakes, imap):
    deliver(fakes, 2)
    deliver(fakes, 1, "carol@elsewhere.test")
    assert len(list(fakes.control.ledger(kind="accepted"))) == 3
    assert len(list(fakes.control.ledger(kind="accepted", rcpt_to=USER))) == 2
    assert {entry["protocol"] for entry in fakes.control.ledger(protocol="imap")} == {"imap"}
    (login,) = fakes.control.ledger(kind="login", user=USER.upper())
    assert {entry["kind"] for entry in fakes.control.ledger(connection=login["connection"])} >= {"connect", "login"}


def test_the_ledger_is_exported_line_by_line(fakes):
    deliver(fakes, 3)
    parts = urlsplit(fakes.facts["control"])
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", "/ledger.jsonl?kind=accepted")
    lines = connection.getresponse().read().splitlines()
    connection.close()
    assert [json.loads(line) for line in lines] == list(fakes.control.ledger(kind="accepted"))


def test_who_waits_is_told_as_soon_as_it_has_happened(fakes):
    began = time.monotonic()
    timer = threading.Timer(0.3, deliver, (fakes,))
    timer.start()
    (entry,) = fakes.control.wait_for("accepted", rcpt_to=USER, timeout_s=DEADLINE_S)
    timer.join()
    assert 0.2 < time.monotonic() - began < DEADLINE_S / 2
    assert entry["message_id"] == "<x@y>"


def test_who_waits_for_several_gets_no_fewer(fakes):
    deliver(fakes, 2)
    timer = threading.Timer(0.2, deliver, (fakes, 3))
    timer.start()
    entries = fakes.control.wait_for("accepted", count=4)
    timer.join()
    assert len(entries) == 4


def test_waiting_in_vain_ends_in_time_and_says_what_came_instead(fakes):
    deliver(fakes)
    began = time.monotonic()
    with pytest.raises(ControlError, match=r"1 of 2 'accepted' entries came within 0\.2 s; .*disconnect") as caught:
        fakes.control.wait_for("accepted", count=2, timeout_s=0.2)
    assert time.monotonic() - began < 5
    assert caught.value.status is None


def test_an_entry_is_one_line_for_people(fakes):
    deliver(fakes)
    (entry,) = fakes.control.ledger(kind="accepted")
    line = describe(entry)
    assert "\n" not in line
    assert f"{entry['seq']} smtp#{entry['connection']} accepted" in line
    assert f'rcpt_to=["{USER}"]' in line


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "body", "status", "told"),
    [
        ("GET /nowhere", None, 404, ("", "no endpoint /nowhere; allowed: those that GET / lists")),
        ("DELETE /users", None, 405, ("", "allowed: GET, HEAD, POST")),
        ("POST /users", "{", 400, ("body", "JSON")),
        ("POST /users", "[" * 100_000, 400, ("body", "JSON")),
        ("POST /users", "[]", 400, ("body", "object")),
        ("POST /users", '{"address": "x@y.test"}', 400, ("password", "missing")),
        ("POST /users", '{"address": "x", "password": "p"}', 400, ("", "local-part@domain")),
        ("POST /users", '{"address": "x@y.test", "pasword": "q"}', 400, ("pasword", "address, password")),
        ("POST /users", '{"address": "' + "x" * 2_000_000 + '"}', 413, ("body", "1048576")),
        ("GET /mailboxes/nobody@example.test", None, 404, ("", "nobody")),
        (f"GET /mailboxes/{USER}?folder=INBOX", None, 400, ("folder", "no parameters")),
        (f"POST /mailboxes/{USER}/seed", "{}", 400, ("count", "missing")),
        (f"POST /mailboxes/{USER}/seed", '{"count": -1, "seed": 1}', 400, ("count", "from 0")),
        (f"POST /mailboxes/{USER}/seed", '{"count": true, "seed": 1}', 400, ("count", "whole number")),
        (f"POST /mailboxes/{USER}/seed", '{"count": 99999999999, "seed": 1}', 400, ("count", "allowed: 0 to")),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "seed": "x"}', 400, ("seed", "whole number")),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "seed": 1, "profile": "giant"}', 400, ("profile", "small")),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "seed": 1, "folder": "No"}', 404, ("", "No")),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "sed": 1}', 400, ("sed", "gaps")),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "digests": "yes"}', 400, ("digests", "true or false")),
        (f"POST /mailboxes/{USER}/messages?folder=No", "x", 404, ("", "No")),
        (f"POST /mailboxes/{USER}/messages", "", 400, ("body", "RFC 5322")),
        (f"POST /mailboxes/{USER}/messages?flag=a+b", "x", 400, ("flags", "keyword")),
        (f"POST /mailboxes/{USER}/messages?received_s=-1", "x", 400, ("received_s", "from 0")),
        (f"GET /mailboxes/{USER}/messages?limit=0", None, 400, ("limit", "from 1 to 10000")),
        (f"GET /mailboxes/{USER}/messages/7", None, 404, ("", "no UID '7'")),
        (f"GET /mailboxes/{USER}/messages/x", None, 404, ("", "no UID 'x'")),
        (f"PATCH /mailboxes/{USER}/messages/1", "{}", 404, ("", "no UID '1'")),
        (f"DELETE /mailboxes/{USER}/messages?uids=2:1", None, 400, ("uids", "ascending")),
        (f"DELETE /mailboxes/{USER}/messages?uids=x", None, 400, ("uids", "1,5,7:9")),
        (f"DELETE /mailboxes/{USER}/folders?folder=INBOX", None, 409, ("", "INBOX")),
        (f"POST /mailboxes/{USER}/timeline", '{"steps": 100001}', 400, ("steps", "to 100000")),
        (f"POST /mailboxes/{USER}/timeline", '{"weights": {"arive": 1}}', 400, ("weights", "arrive, flags")),
        (f"POST /mailboxes/{USER}/timeline", '{"weights": {"arrive": -1}}', 400, ("weights.arrive", "from 0")),
        (f"PUT /mailboxes/{USER}/timeline", '{"per_s": 1e9}', 400, ("per_s", "from 0 to 1000")),
        ("PATCH /limits", '{"connections": 0}', 400, ("connections", "from 1")),
        ("PATCH /limits", '{"conections": 1}', 400, ("conections", "connections, connections_per_user")),
        ("PUT /faults", "{}", 400, ("faults", "a list of faults")),
        ("POST /faults", "[]", 400, ("body", "one fault")),
        ("POST /faults", '{"point": "smtp.rcpt"}', 400, ("fault", "when")),
        ("DELETE /faults/nope", None, 404, ("", "GET /faults")),
        ("POST /presets/nope", None, 400, ("name", "greylisting")),
        ("GET /ledger?after=x", None, 400, ("after", "from 0")),
        ("GET /ledger?limit=-1", None, 400, ("limit", "from 0")),
        ("GET /ledger?wait_s=61", None, 400, ("wait_s", "to 60")),
        ("GET /ledger?nonsense=1", None, 400, ("nonsense", "after, limit, last")),
        ("POST /reset", '{"connections": 3}', 400, ("connections", "true or false")),
    ],
)  # fmt: skip
def test_errors_are_json_and_say_what_is_wrong_where_and_what_is_allowed(fakes, request_line, body, status, told):
    where, words = told
    answered, answer = call(fakes, *request_line.split(), body)
    assert (answered, answer["where"]) == (status, where), answer
    assert list(answer) == ["error", "where", "allowed"]
    assert words in answer["error"]
    assert answer["error"].endswith(answer["allowed"])


#: What programs send by mistake. No count is one that would be done: a million steps take their time.
ODD = (
    None, True, False, -1, 10**30, 1.5, -0.0, "", "x", "INBOX", "*", "../../etc/passwd", "\x00", "\udcff", "é" * 300,
    [], ["\\Seen"], [1], {}, {"x": {}}, {"arrive": 10**9}, "1", "1:*", "0:0", "ann@example.test", "/dev/null", "true",
)  # fmt: skip


def odd_request(random, route):
    """A request to the route with parameters that are mostly wrong."""
    names = [USER, "x", "1", "%00", "é", "a" * 3000]
    path = re.sub(r"\{\w+\}", lambda _: quote(random.choice(names), safe=""), route.path)
    chosen = {name: random.choice(ODD) for name in route.names if random.random() < 0.7}
    if route.body == "document":
        broken = GREYLIST | {random.choice([*GREYLIST]): random.choice(ODD)}
        return path, json.dumps(random.choice([*ODD, [broken], broken]))
    if route.body == "object":
        return path, json.dumps(chosen) if random.random() < 0.9 else random.choice(["", "[", "\x00", "null"])
    chosen.pop("wait_s", None)
    query = {name: str(value).encode("utf-8", errors="replace") for name, value in chosen.items()}
    return f"{path}?{urlencode(query)}", "x" if route.body == "raw" else None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_whatever_is_asked_for_is_answered_and_never_a_defect(fakes, route):
    seed = int(os.environ.get("FUZZ_SEED", "20240607"))
    print(f"FUZZ_SEED={seed}")  # noqa: T201  # pytest shows it where the test fails
    random = Random(f"{seed} {route.method} {route.path}")
    for _ in range(60):
        path, body = odd_request(random, route)
        fakes.control.add_user(USER, PASSWORD)
        parts = urlsplit(fakes.facts["control"])
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        connection.request(route.method, path, body=body)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 500, f"{route.method} {path} {body}: {text}"
        if answer.status >= 400:
            assert list(json.loads(text)) == ["error", "where", "allowed"], f"{route.method} {path} {body}: {text}"


def test_a_body_that_is_announced_too_long_is_refused_before_it_comes(fakes):
    parts = urlsplit(fakes.facts["control"])
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.putrequest("POST", f"/mailboxes/{quote(USER)}/messages")
    connection.putheader("Content-Length", "99999999999")
    connection.endheaders(b"x" * 1000)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["allowed"]) == (413, "67108864 bytes")
    connection.close()


def test_a_body_in_chunks_that_never_ends_is_refused_once_it_is_too_long(fakes):
    parts = urlsplit(fakes.facts["control"])
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    with contextlib.suppress(OSError):
        # The server answers in the midst of it, and then reads no more.
        connection.request("PUT", "/faults", body=(b"[" * 65_536 for _ in range(64)), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["allowed"]) == (413, "1048576 bytes")
    connection.close()


def test_a_silent_control_is_one_kind_of_error():
    with pytest.raises(ControlError) as caught:
        FakeMail("http://127.0.0.1:1", timeout_s=1).health()
    assert isinstance(caught.value, FakemailError)


def test_an_answer_that_is_no_json_says_that_it_is_no_fakemail():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            line, _ = server.accept()
            line.recv(1000)
            line.sendall(b"HTTP/1.0 200 OK\r\n\r\n<html>")
            line.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ControlError, match="is this a fakemail's control URL"):
            FakeMail(f"http://127.0.0.1:{server.getsockname()[1]}").health()
        thread.join()


def test_an_error_of_the_client_knows_its_status_and_what_is_allowed(fakes):
    with pytest.raises(ControlError) as caught:
        fakes.control.seed(USER, count=1, seed=1, profile="giant")
    assert (caught.value.status, caught.value.where) == (400, "profile")
    assert "heavy-tail" in caught.value.allowed


UNDER_GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, sys, time
from fakemail.client import FakeMail
fakes = FakeMail(sys.argv[1])
began = time.monotonic()
waiting = [gevent.spawn(fakes.wait_for, "login", user="nobody", timeout_s=20) for _ in range(5)]
others = [gevent.spawn(fakes.health) for _ in range(20)]
gevent.joinall(others, timeout=10)
assert all(each.value["status"] == "ok" for each in others)
assert not any(each.ready() for each in waiting)
gevent.killall(waiting)
assert time.monotonic() - began < 10
"""


def test_under_gevent_who_waits_keeps_no_other_waiting(fakes):
    command = [sys.executable, "-c", UNDER_GEVENT, fakes.facts["control"]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_a_password_comes_back_from_nowhere(fakes):
    answers = [
        fakes.control.mailbox(USER),
        list(fakes.control.ledger()),
        call(fakes, "POST", "/users", json.dumps({"address": USER, "password": PASSWORD})),
        call(fakes, "GET", "/users"),
        call(fakes, "POST", "/users", json.dumps({"address": "no", "password": PASSWORD})),
    ]
    assert PASSWORD not in repr(answers)


def test_a_user_can_be_forgotten(fakes):
    fakes.control.remove_user(USER)
    assert fakes.control.users() == []
    with pytest.raises(ControlError, match="no user"):
        fakes.control.remove_user(USER)
