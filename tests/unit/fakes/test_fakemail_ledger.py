"""The ledger: order, bounds, questions, and what never enters."""

import base64
import enum
import gc
import json
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakemail.ledger import RINGS, Ledger

SECRETS = ("canary-password", "canary-wrong-password", "canary-token")


class Ticks:
    """A clock that goes on by one each time it is read."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


def ledger(**options):
    return Ledger(**({"clock": Ticks()} | options))


def fill(into, count, kind="accepted", **facts):
    for number in range(count):
        into.record(protocol="smtp", connection=number, kind=kind, **facts)


def seqs(entries):
    return [entry["seq"] for entry in entries]


# --- order ------------------------------------------------------------------------------------------------------------


def test_an_entry_is_a_dict_with_its_place_its_time_and_its_facts():
    mine = ledger(clock=lambda: 42)
    mine.record(
        protocol="smtp",
        connection=7,
        kind="accepted",
        mail_from="a@b.test",
        rcpt_to=["c@d.test"],
        size_bytes=9,
        sha256="00",
        message_id="<x@y>",
        header="From: a\r\n",
        replied=False,
    )
    assert mine.after(0, limit=9) == [
        {
            "seq": 1, "time_ns": 42, "protocol": "smtp", "connection": 7, "kind": "accepted", "mail_from": "a@b.test",
            "rcpt_to": ["c@d.test"], "size_bytes": 9, "sha256": "00", "message_id": "<x@y>", "header": "From: a\r\n",
            "replied": False,
        }
    ]  # fmt: skip


def test_entries_of_all_rings_come_in_one_order():
    mine = ledger()
    kinds = ["connect", "accepted", "served", "fault", "refused", "timeline", "login", "disconnect", "whatever"] * 3
    for number, kind in enumerate(kinds):
        mine.record(protocol="imap", connection=number, kind=kind)
    entries = mine.after(0, limit=99)
    assert seqs(entries) == list(range(1, 28))
    assert [entry["kind"] for entry in entries] == kinds
    assert [entry["time_ns"] for entry in entries] == list(range(1, 28))


def test_pages_meet_each_other():
    mine = ledger()
    for kind in ("connect", "accepted", "refused", "disconnect") * 5:
        mine.record(protocol="smtp", connection=1, kind=kind)
    after, pages = 0, []
    while page := mine.after(after, limit=3):
        pages += page
        after = page[-1]["seq"]
    assert seqs(pages) == list(range(1, 21))
    assert mine.after(20, limit=3) == mine.after(99, limit=3) == mine.after(0, limit=0) == []


def test_the_last_entries_come_oldest_first():
    mine = ledger()
    for kind in ("connect", "accepted", "refused") * 4:
        mine.record(protocol="smtp", connection=1, kind=kind)
    assert seqs(mine.last(5)) == [8, 9, 10, 11, 12]
    assert seqs(mine.last(2, kind="connect")) == [7, 10]
    assert mine.last(0) == []


def test_connections_have_numbers_of_their_own():
    mine = ledger()
    assert [mine.open_connection() for _ in range(3)] == [1, 2, 3]
    mine.clear()
    assert mine.open_connection() == 4


def test_numbers_go_on_after_clear_and_counts_begin_anew():
    mine = ledger(capacity=2)
    fill(mine, 3)
    mine.clear()
    assert (mine.dropped, mine.counts, mine.size_bytes, mine.after(0, limit=9)) == (0, {}, 0, [])
    fill(mine, 1, kind="connect")
    assert seqs(mine.after(0, limit=9)) == [4]
    assert mine.counts == {"connect": 1}


def test_what_the_caller_changes_later_changes_no_entry():
    mine = ledger()
    recipients, nested = ["a@x"], {"deep": ["a"]}
    mine.record(protocol="smtp", connection=1, kind="accepted", rcpt_to=recipients, facts=nested)
    recipients.append("b@x")
    nested["deep"].append("b")
    read = mine.after(0, limit=1)[0]
    assert (read["rcpt_to"], read["facts"]) == (["a@x"], {"deep": ["a"]})
    read["rcpt_to"].append("c@x")
    assert mine.after(0, limit=1)[0]["rcpt_to"] == ["a@x"]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_oldest_entries_make_room_and_are_counted():
    mine = ledger(capacity=5)
    fill(mine, 8)
    assert mine.dropped == 3
    assert mine.dropped_by_ring == dict.fromkeys(RINGS, 0) | {"mail": 3}
    assert seqs(mine.after(1, limit=9)) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("flood", ["served", "connect", "disconnect", "login", "timeline", "whatever", "refused"])
def test_a_flood_never_pushes_out_what_proves_something(flood):
    mine = ledger(capacity=1000, bytes_max=400_000)
    kept = [kind for kind in ("accepted", "refused", "fault") if kind != flood]
    for kind in kept:
        fill(mine, 50, kind=kind)
    fill(mine, 20_000, kind=flood)
    for kind in kept:
        assert len(mine.after(0, limit=99, kind=kind)) == 50
    assert mine.counts == dict.fromkeys(kept, 50) | {flood: 20_000}
    assert mine.dropped == sum(mine.dropped_by_ring.values()) >= 19_000


def test_each_ring_is_bounded_by_its_bytes():
    mine = ledger(bytes_max=1_000_000)
    fill(mine, 2_000, header="x" * 5_000)
    assert mine.size_bytes <= 500_000
    assert 80 <= len(mine.after(0, limit=9_999)) <= 100
    assert mine.after(0, limit=9_999)[-1]["seq"] == 2_000


def test_an_entry_larger_than_its_ring_is_dropped_and_counted():
    mine = ledger(bytes_max=10_000)
    fill(mine, 1, header="x" * 50_000)
    assert (mine.dropped, mine.counts, mine.after(0, limit=9)) == (1, {"accepted": 1}, [])


@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_estimate_is_not_less_than_what_the_memory_says(ascii_only):
    """A bound on estimates is one on memory: measured, with headers as mail has them."""
    letter = "x" if ascii_only else "\N{CYRILLIC SMALL LETTER ZHE}"
    mine = Ledger(bytes_max=4_000_000)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    number = 0
    while not mine.dropped:
        number += 1
        facts = {"mail_from": f"{number}@b.test", "rcpt_to": [f"{number}@c.test"], "message_id": f"<{number}@y>"}
        mine.record(
            protocol="smtp", connection=number, kind="accepted", header=letter * 700, size_bytes=number, **facts
        )
        mine.record(protocol="smtp", connection=number, kind="connect")
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert number > 1_000
    assert 0.5 * mine.size_bytes <= taken <= 1.05 * mine.size_bytes <= 4_200_000


def test_a_flood_is_read_page_by_page_to_its_end():
    mine = Ledger()
    for number in range(200_000):
        mine.record(protocol="imap", connection=number, kind="served", command="UID FETCH", user="a@x", folder="INBOX")
    assert mine.dropped > 0
    after, read = 0, 0
    while page := mine.after(after, limit=1_000):
        after, read = page[-1]["seq"], read + len(page)
    assert read == 200_000 - mine.dropped


# --- questions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy():
    mine = ledger()
    record = mine.record
    record(protocol="smtp", connection=1, kind="connect")
    record(protocol="imap", connection=2, kind="connect")
    record(protocol="imap", connection=2, kind="login", user="ann@x.test", mechanism="PLAIN", success=True)
    record(protocol="imap", connection=2, kind="served", user="ann@x.test", command="UID FETCH", folder="INBOX")
    record(protocol="smtp", connection=1, kind="refused", command="RCPT", reply_code=451, recipient="b@x.test")
    record(protocol="smtp", connection=1, kind="accepted", mail_from="a@x.test", rcpt_to=["b@x.test", "c@x.test"])
    record(protocol="imap", connection=2, kind="served", user="ann@x.test", commands={"NOOP": 3})
    record(protocol="smtp", connection=1, kind="fault", fault_id="grey", point="smtp.rcpt")
    return mine


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"kind": "connect"}, [1, 2]),
        ({"kind": "nothing"}, []),
        ({"protocol": "imap"}, [2, 3, 4, 7]),
        ({"connection": 1}, [1, 5, 6, 8]),
        ({"connection": 1, "kind": "refused"}, [5]),
        ({"user": "ANN@X.test"}, [3, 4, 7]),
        ({"user": None, "kind": None, "connection": 2}, [2, 3, 4, 7]),
        ({"command": "uid fetch"}, [4]),
        ({"commands": "NOOP"}, [7]),
        ({"since_ns": 6}, [6, 7, 8]),
        ({"fault_id": "grey"}, [8]),
        ({"success": True}, [3]),
        ({"rcpt_to": "c@x.test"}, [6]),
        ({"rcpt_to": "c@x"}, []),
        ({"rcpt_to": ["b@x.test", "c@x.test"]}, [6]),
        ({"reply_code": 451, "recipient": "b@x.test"}, [5]),
        ({"no_such_fact": 1}, []),
    ],
)
def test_a_filter_says_which_entries_are_meant(busy, filters, expected):
    assert seqs(busy.after(0, limit=99, **filters)) == expected
    assert seqs(busy.last(99, **filters)) == expected
    assert seqs(busy.after(3, limit=1, **filters)) == [seq for seq in expected if seq > 3][:1]
    exported = b"".join(busy.export(**filters))
    assert seqs(map(json.loads, exported.splitlines())) == expected


def test_counts_by_kind_are_never_forgotten_until_clear(busy):
    small = ledger(capacity=1)
    fill(small, 500, kind="connect")
    assert small.counts == {"connect": 500}
    assert busy.counts == {"connect": 2, "login": 1, "served": 2, "refused": 1, "accepted": 1, "fault": 1}


def test_an_export_is_json_lines_of_what_is_there_when_it_begins():
    mine = ledger()
    fill(mine, 1_700, kind="connect")
    chunks = mine.export()
    found = [next(chunks)]
    fill(mine, 100)
    found += chunks
    assert len(found) > 1
    assert seqs(map(json.loads, b"".join(found).splitlines())) == list(range(1, 1_701))
    assert len(list(map(json.loads, b"".join(mine.export(after=1_000)).splitlines()))) == 800


# --- what a value may be ----------------------------------------------------------------------------------------------


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("caf\xe9 \N{PILE OF POO}", "caf\xe9 \N{PILE OF POO}"),
        ("\udcff\udcfe@x", "\\udcff\\udcfe@x"),
        (b"caf\xc3\xa9 \xff", "caf\xe9 \\xff"),
        (frozenset({"b", "a"}), ["a", "b"]),
        (("a", (1, None)), ["a", [1, None]]),
        ({"a": {"b": [1.5]}}, {"a": {"b": [1.5]}}),
        ({1: "x"}, {"1": "x"}),
        (OrderedDict(a=1), {"a": 1}),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (2**70, 2**70),
        (True, True),
        (None, None),
        (Colour.RED, "red"),
        (Path("x"), "x"),
        ([Path("x"), Colour.RED], ["x", "red"]),
    ],
)
def test_whatever_is_recorded_can_be_read_as_json(value, read):
    mine = ledger()
    mine.record(protocol="smtp", connection=1, kind="refused", value=value)
    (entry,) = mine.after(0, limit=1)
    assert entry["value"] == read
    assert type(entry["value"]) is type(read)
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    json.dumps(entry, ensure_ascii=False).encode("utf-8")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(value=_VALUES)
def test_fuzz_every_value_comes_out_as_json_in_utf_8(value):
    mine = ledger()
    mine.record(protocol="smtp", connection=1, kind="served", value=value)
    json.dumps(mine.after(0, limit=1), allow_nan=False, ensure_ascii=False).encode("utf-8")


# --- what never enters ------------------------------------------------------------------------------------------------


def test_a_login_says_who_how_and_whether_and_nothing_else():
    mine = ledger()
    mine.record(protocol="imap", connection=1, kind="login", user="a@x", mechanism="PLAIN", success=False)
    with pytest.raises(ValueError, match="'login' must not say 'argument'"):
        mine.record(protocol="imap", connection=1, kind="login", user="a@x", argument="canary")
    assert mine.counts == {"login": 1}


@pytest.mark.parametrize(
    "name", ["password", "token", "secret", "credentials", "authorization", "initial_response", "seq"]
)
def test_no_entry_says_what_could_be_a_secret_or_its_own_place(name):
    with pytest.raises(ValueError, match=f"must not say '{name}'"):
        ledger().record(protocol="imap", connection=1, kind="served", **{name: "x"})


def sasl(*parts):
    return base64.b64encode("\0".join(parts).encode()).decode()


def test_no_secret_is_in_what_a_conversation_leaves_in_the_ledger():
    """Every way to say a password or a token, right, wrong and broken, and every public way to read.

    Who gives a password in the place of the user's name is not protected: that name is what a login is about.
    """
    from imap_transcript import PASSWORD, USER, Transcript  # noqa: PLC0415  # the IMAP core's own harness

    xoauth2 = base64.b64encode(f"user={USER}\1auth=Bearer canary-token\1\1".encode()).decode()
    lines = [
        f"a LOGIN {USER} canary-wrong-password",
        "a LOGIN canary-wrong-password",
        f'a LOGIN {USER} "canary-wrong-password',
        f"a LOGIN {{{len(USER)}+}}\r\n{USER} {{21+}}\r\ncanary-wrong-password",
        f"a LOGINX {USER} canary-wrong-password",
        f"a AUTHENTICATE PLAIN {sasl('', USER, 'canary-wrong-password')}",
        f"a AUTHENTICATE PLAIN\r\n{sasl('', USER, 'canary-wrong-password')}",
        f"a AUTHENTICATE XOAUTH2 {xoauth2}",
        f"a AUTHENTICATE XOAUTH2\r\n{xoauth2}\r\n",
        "a AUTHENTICATE PLAIN canary-wrong-password",
        f"a LOGIN {USER} {PASSWORD}",
        f"a LOGIN {USER} {PASSWORD}",
    ]
    mine = ledger()
    for line in lines:
        talk = Transcript()
        talk.send(line.encode() + b"\r\n")
        for note in talk.notes:
            mine.record(protocol="imap", connection=1, **note)
    assert PASSWORD in SECRETS
    logins = mine.after(0, limit=999, kind="login")
    assert {entry["success"] for entry in logins} == {True, False}
    for entry in logins:
        assert set(entry) <= {"seq", "time_ns", "protocol", "connection", "kind", "user", "mechanism", "success"}
    told = [repr(mine.after(0, limit=999)), repr(mine.last(999)), b"".join(mine.export()).decode(), repr(mine.counts)]
    for text in told:
        assert not [secret for secret in SECRETS if secret in text]
