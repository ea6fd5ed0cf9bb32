"""SEARCH and UID SEARCH (RFC 3501 section 6.4.4, RFC 4731, RFC 5182)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imap_transcript import MAIL, SHORT, USER, Transcript, another, selected

from fakemail.imap_protocol import Pause
from fakemail.mailbox import SEEN


@pytest.fixture
def imap():
    """Selected INBOX: 1 is MAIL, 2 is SHORT and seen, 3 is SHORT and flagged; their UIDs are 2, 3 and 5."""
    client = selected(b"gone", MAIL, SHORT, b"gone", SHORT)
    client.inbox.expunge(client.inbox.uids.between(1, 1) | client.inbox.uids.between(4, 4))
    client.inbox.set_flags(3, {SEEN})
    client.inbox.set_flags(5, {"\\Flagged", "$Work"})
    client.ok("NOOP")
    return client


def found(client, keys, *, uid=False):
    lines = client.ok(f"{'UID ' * uid}SEARCH {keys}")
    assert lines[0].startswith("* SEARCH")
    return lines[0].removeprefix("* SEARCH").strip()


# --- keys ---


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("ALL", "1 2 3"),
        ("all", "1 2 3"),
        ("2:*", "2 3"),
        ("*", "3"),
        ("*:9", "3"),
        ("9:*", "3"),
        ("9", ""),
        ("1,3", "1 3"),
        ("3,1:2", "1 2 3"),
        ("UID 5", "3"),
        ("UID 2,9", "1"),
        ("UID 9:*", "3"),
        ("UID 1:4", "1 2"),
        ("UID 999", ""),
        ("2 UID 3", "2"),
        ("(2) UID 3", "2"),
        ("2 (UID 3)", "2"),
        ("2 UID 5", ""),
        ("SEEN", "2"),
        ("UNSEEN", "1 3"),
        ("ANSWERED", ""),
        ("UNANSWERED", "1 2 3"),
        ("DELETED", ""),
        ("UNDELETED", "1 2 3"),
        ("DRAFT", ""),
        ("UNDRAFT", "1 2 3"),
        ("FLAGGED", "3"),
        ("UNFLAGGED", "1 2"),
        ("KEYWORD $work", "3"),
        ("UNKEYWORD $Work", "1 2"),
        ("KEYWORD never", ""),
        ("SUBJECT short", "2 3"),
        ("SUBJECT SHORT", "2 3"),
        ("SUBJECT grüße", "1"),
        ("SUBJECT GRÜSSE", "1"),
        ('SUBJECT "\\"quoted\\""', "1"),
        ('SUBJECT ""', "1 2 3"),
        ('FROM "müller"', "1"),
        ("FROM ann@example.test", "1"),
        ("TO carl", "1"),
        ("TO bob@", "1"),
        ("CC carl", ""),
        ("BCC carl", ""),
        ("HEADER Message-ID 1@example", "1"),
        ('HEADER Message-ID ""', "1"),
        ('HEADER message-id "<1@"', "1"),
        ('NOT HEADER Message-ID ""', "2 3"),
        ("SINCE 14-Nov-2023", "1 2 3"),
        ("SINCE 15-Nov-2023", ""),
        ("BEFORE 14-Nov-2023", ""),
        ("BEFORE 15-Nov-2023", "1 2 3"),
        ("ON 14-nov-2023", "1 2 3"),
        ('ON "14-Nov-2023"', "1 2 3"),
        ("SENTON 1-Jan-2024", "1"),
        ("SENTON 01-Jan-2024", "1"),
        ("SENTBEFORE 2-Jan-2024", "1"),
        ("SENTSINCE 1-Jan-2024", "1"),
        ("SENTSINCE 2-Jan-2024", ""),
        ("NOT SENTON 1-Jan-2024", "2 3"),
        ("SMALLER 24", ""),
        ("SMALLER 25", "2 3"),
        ("LARGER 24", "1"),
        ("LARGER 0", "1 2 3"),
        ("NOT SEEN", "1 3"),
        ("NOT NOT SEEN", "2"),
        ("NOT SEEN NOT FLAGGED", "1"),
        ("SEEN UNSEEN", ""),
        ("OR SEEN FLAGGED", "2 3"),
        ("OR (SEEN) (NOT SUBJECT short)", "1 2"),
        ("OR NOT SEEN SEEN", "1 2 3"),
        ("OR OR 1 2 3", "1 2 3"),
        ("(SEEN) SUBJECT short", "2"),
        ("((SEEN)) (SUBJECT short)", "2"),
        ("NOT (OR SEEN FLAGGED)", "1"),
        ("NOT (SEEN SUBJECT short)", "1 3"),
        ("NOT (UNSEEN FLAGGED)", "1 2"),
        ("NOT DELETED SUBJECT SMALLER 5", ""),
        ("SUBJECT NIL", ""),
        ("BODY nil", ""),
        ("BODY within", "1"),
        ("BODY inner", "1"),
        ("BODY quoted", ""),
        ("NOT NOT BODY within", "1"),
        ("TEXT short", "2 3"),
        ("TEXT within", "1"),
        ("TEXT Message-ID", "1"),
        ("CHARSET UTF-8 ALL", "1 2 3"),
        ("charset utf-8 all", "1 2 3"),
        ("CHARSET US-ASCII SUBJECT short", "2 3"),
        ('CHARSET "utf-8" SUBJECT grüße', "1"),
        ("SUBJECT {5+}\r\nshort", "2 3"),
        ("OR SUBJECT {5+}\r\nshort FROM {3+}\r\nann", "1 2 3"),
        ("ALL ", "1 2 3"),
    ],
)
def test_search(imap, keys, expected):
    assert found(imap, keys) == expected
    assert found(imap, keys, uid=True) == expected.translate({ord("1"): "2", ord("2"): "3", ord("3"): "5"})


@pytest.mark.parametrize(
    "keys",
    [
        "", " ", "COLOUR", "NOT", "OR SEEN", "OR SEEN ", "(SEEN", "SEEN)", "()", "( SEEN)", "(SEEN )",
        "SINCE yesterday",
        "SINCE 31-Feb-2024", "SINCE 1-Foo-2024", "ON 2024-01-01", "SINCE", "LARGER x", "LARGER", "0", "1:", "1:2:3",
        "-1",
        "UID 0", "UID", "UID x", "KEYWORD", "KEYWORD \\Seen", 'KEYWORD "x"', "HEADER x", "HEADER", "SUBJECT",
        "UNRECENT",
        "UNALL", "CHARSET UTF-8", "CHARSET", "SEEN  SEEN", "RETURN", "RETURN ALL", "RETURN () ", "RETURN (COLOUR) ALL",
        "RETURN (PARTIAL 1:3) ALL", "RETURN (UPDATE) ALL", "RETURN (ALL  MIN) ALL", "ALL RETURN (ALL)", "X-GM-RAW x",
    ],
)  # fmt: skip
def test_a_malformed_search_is_bad(imap, keys):
    imap.step(f"1 SEARCH {keys}", "1 BAD <any>")
    imap.step(f"2 UID SEARCH {keys}", "2 BAD <any>")


def test_nothing_found_is_still_a_line(imap):
    imap.step("1 SEARCH DELETED", "* SEARCH", "1 OK <any>")
    selected().step("1 SEARCH *", "* SEARCH", "1 OK <any>")
    selected().step("1 SEARCH 1:* UID 1:*", "* SEARCH", "1 OK <any>")


# --- character sets ---


def test_an_unknown_charset_is_refused_by_its_code(imap):
    imap.step("1 SEARCH CHARSET KOI8-R ALL", "1 NO [BADCHARSET (US-ASCII UTF-8)] <any>")
    imap.step("2 NOOP", "2 OK <any>")


@pytest.mark.parametrize("keys", [b"CHARSET US-ASCII SUBJECT \xc3\xbc", b"CHARSET UTF-8 SUBJECT \xff", b"SUBJECT \xff"])
def test_a_string_in_another_charset_than_it_says_is_bad(imap, keys):
    assert imap.send(b"1 SEARCH " + keys + b"\r\n").startswith(b"1 BAD")


def test_a_string_in_eight_bits_is_utf8_where_nothing_says_otherwise(imap):
    assert found(imap, "SUBJECT {7+}\r\nGrüße") == "1"


@pytest.mark.parametrize(
    ("mail", "text"),
    [
        ("Subject: x\n\nSmile ☺ now\n", "☺"),
        (
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nSmile =E2=98=BA\n",
            "☺",
        ),
        ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n4pi6IGhlbGxv\n", "☺ HELLO"),
        ("Content-Transfer-Encoding: base64\n\n4pi6IGhlbGxv!!!\n", "hello"),
        ("Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nJ=F6\n", "jÖ"),
        ("Content-Type: text/plain; charset=x-unheard-of\n\nplain ☺\n", "☺"),
        ("Content-Type: text/plain; charset=idna\n\nplain ☺\n", "☺"),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\nContent-Type: text/html\n\n<b>two\n--b--\n",
            "<B>TWO",
        ),
        ("Content-Type: multipart/mixed\n\nno boundary here\n", "boundary here"),
        ("Content-Type: message/rfc822\n\nSubject: =?utf-8?q?J=C3=B6?=\n\nwithin\n", "jö"),
    ],
)
def test_bodies_are_compared_as_a_person_would_read_them(mail, text):
    imap = selected(mail.replace("\n", "\r\n").encode(), SHORT)
    assert found(imap, f'BODY "{text}"') == "1"
    assert found(imap, f'TEXT "{text}"') == "1"
    assert found(imap, 'BODY "µ"') == ""


@pytest.mark.parametrize(
    ("field", "key", "text"),
    [
        ("From: ann (x)@ (y) host.org", "FROM", "ann@host.org"),
        ("From: ann@host.org (Ann)", "FROM", "ann"),
        ("From: ann@host.org (Comment)", "FROM", "comment"),
        ("From: Ann Bell <a@b.test>", "FROM", "ann bell <a@b.test>"),
        ('From: "Bell, Ann" <a@b.test>', "FROM", "bell, ann"),
        ("From: =?utf-8?q?J=C3=B6?= <j@x>", "FROM", "JÖ"),
        ("To: staff: a@x.org, b@y.org;", "TO", "staff"),
        ("To: staff: a@x.org, b@y.org;", "TO", "b@y.org"),
        ("Cc: a@x.org,\n b@y.org", "CC", "b@y.org"),
        ("Bcc: a@x.org\nBcc: b@y.org", "BCC", "b@y.org"),
        ("Subject: a\n folded one", "SUBJECT", "a folded one"),
        ("Subject: =?utf-8?b?w7Y=?= =?utf-8?b?w7Y=?=", "SUBJECT", "öö"),
        ("Subject: =?x-unheard?q?abc?=", "SUBJECT", "=?x-unheard?q?abc?="),
        ("Subject: =?utf-8?b?broken", "SUBJECT", "broken"),
        ("Subject: roh ü", "SUBJECT", "ROH Ü"),
        ("X-Dup: one\nX-Dup: two\n folded", "HEADER X-DUP", "two folded"),
        ("X-Empty:", "HEADER X-Empty", ""),
    ],
)
def test_header_fields_are_compared_as_a_person_would_read_them(field, key, text):
    imap = selected(field.replace("\n", "\r\n").encode() + b"\r\n\r\nbody\r\n", b"\r\nnothing")
    assert found(imap, f'{key} "{text}"') == "1"
    assert found(imap, f'NOT {key} "{text}"') == "2"


# --- dates ---


def test_the_day_of_arrival_is_that_of_the_zone_it_was_given_in():
    imap = selected()
    for text in ("25-Mar-2007 00:00:00 +0200", "24-Mar-2007 23:59:59 -1100", "26-Mar-2007 00:30:00 +0000"):
        imap.send(f'1 APPEND INBOX "{text}" {{1+}}\r\nx\r\n'.encode())
    assert found(imap, "ON 25-Mar-2007") == "1"
    assert found(imap, "ON 24-Mar-2007") == "2"
    assert found(imap, "SINCE 25-Mar-2007") == "1 3"
    assert found(imap, "BEFORE 25-Mar-2007") == "2"


@pytest.mark.parametrize(
    "text", ["01-Jan-0001 00:00:00 +0000", "31-Dec-9999 23:59:59 +0000", " 1-Jan-0002 00:00:00 -1200"]
)
def test_days_at_the_ends_of_time_can_be_searched(text):
    imap = selected()
    imap.send(f'1 APPEND INBOX "{text}" {{1+}}\r\nx\r\n'.encode())
    assert found(imap, f"ON {text[:11].strip()}") == "1"


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("Tue, 22 Feb 2008 23:06:23 -0800", "22-Feb-2008"),
        ("22 Feb 2008 00:06 +1200", "22-Feb-2008"),
        ("Fri, 22 Feb 08 17:06:23 GMT", "22-Feb-2008"),
        ("Fri, 22 Feb 2008 17:06:23 +0200 (EET)", "22-Feb-2008"),
    ],
)
def test_the_day_of_sending_is_the_one_that_is_written_there(value, day):
    imap = selected(f"Date: {value}\r\n\r\n".encode())
    assert found(imap, f"SENTON {day}") == "1"


@pytest.mark.parametrize(
    "value", ["", "bad date", "Tue, 99 Feb 2008 10:00:00 +0000", ",", "1 Jan", "Fri,  ", "0", "\xff"]
)
def test_a_date_that_can_not_be_read_matches_no_day(value):
    imap = selected(f"Date: {value}\r\n\r\n".encode("latin-1"), b"\r\nno date")
    for key in ("SENTON", "SENTBEFORE", "SENTSINCE"):
        assert found(imap, f"{key} 22-Feb-2008") == ""
        assert found(imap, f"NOT {key} 22-Feb-2008") == "1 2"


@given(st.text(st.sampled_from('0129 ,:+-FebMonTZ()"\\.\t'), max_size=30))
@settings(deadline=None)
def test_no_date_field_breaks_a_search(value):
    imap = selected(f"Date: {value}\r\nSubject: =?{value}?=\r\nFrom: {value}\r\n\r\n".encode())
    found(imap, "OR SENTON 1-Jan-2024 OR SUBJECT x FROM y")


# --- \\Recent ---


def test_recent_old_and_new():
    imap = selected(SHORT)
    assert (found(imap, "RECENT"), found(imap, "OLD"), found(imap, "NEW")) == ("", "1", "")
    imap.append(SHORT)
    imap.append(SHORT, flags="(\\Seen)")
    assert (found(imap, "RECENT"), found(imap, "OLD"), found(imap, "NEW")) == ("2 3", "1", "2")
    assert (found(imap, "NOT RECENT"), found(imap, "NOT NEW")) == ("1", "1 3")
    assert found(another(imap), "RECENT") == ""


# --- against a plain evaluation ---

LEAVES = {
    "SEEN": lambda m: SEEN in m["flags"],
    "UNFLAGGED": lambda m: "\\Flagged" not in m["flags"],
    "KEYWORD $a": lambda m: "$a" in m["flags"],
    "2:4": lambda m: 2 <= m["number"] <= 4,
    "UID 1:3,6": lambda m: m["uid"] in {1, 2, 3, 6},
    "SMALLER 30": lambda m: m["size"] < 30,
    "SUBJECT odd": lambda m: m["uid"] % 2 == 1,
    "BODY x": lambda m: m["size"] > 30,
    "ALL": lambda m: True,
}
KEYS = st.recursive(
    st.sampled_from(sorted(LEAVES)).map(lambda leaf: (leaf,)),
    lambda inner: st.one_of(
        inner.map(lambda key: ("NOT", key)),
        st.tuples(inner, inner).map(lambda pair: ("OR", *pair)),
        st.lists(inner, min_size=1, max_size=3).map(lambda keys: ("AND", *keys)),
    ),
    max_leaves=8,
)


def written(key):
    match key:
        case ("NOT", inner):
            return f"NOT {written(inner)}"
        case ("OR", one, two):
            return f"OR {written(one)} {written(two)}"
        case ("AND", *keys):
            return f"({' '.join(map(written, keys))})"
    return key[0]


def holds(key, message):
    match key:
        case ("NOT", inner):
            return not holds(inner, message)
        case ("OR", one, two):
            return holds(one, message) or holds(two, message)
        case ("AND", *keys):
            return all(holds(each, message) for each in keys)
    return LEAVES[key[0]](message)


@pytest.fixture(scope="module")
def varied():
    client = selected()
    for uid in range(1, 9):
        flags = " ".join(name for bit, name in enumerate(("\\Seen", "\\Flagged", "$a")) if uid >> bit & 1)
        subject = b"odd" if uid % 2 else b"even"
        client.append(b"Subject: " + subject + b"\r\n\r\n" + b"x" * 20 * (uid % 3 == 0), flags=f"({flags})")
    client.inbox.expunge(client.inbox.uids.between(5, 5))
    client.ok("NOOP")
    return client


@given(KEYS, st.booleans())
@settings(deadline=None)
def test_keys_in_any_nesting_mean_what_they_say(varied, key, uid):
    inbox = varied.inbox
    messages = [
        {"number": number, "uid": each, "flags": inbox.flags(each), "size": inbox.size(each)}
        for number, each in enumerate(inbox.uids, 1)
    ]
    expected = [message["uid" if uid else "number"] for message in messages if holds(key, message)]
    assert found(varied, written(key), uid=uid) == " ".join(map(str, expected))


def test_a_long_search_gives_others_a_turn():
    imap = Transcript().login()
    imap.inbox.seed(count=5000, seed=1, profile="small", gaps=1)
    imap.select()
    assert found(imap, "SUBJECT qqqqqqq") == ""
    assert 5 <= sum(isinstance(event, Pause) for event in imap.events) <= 20


# --- ESEARCH (RFC 4731) ---


@pytest.mark.parametrize(
    ("returns", "keys", "items"),
    [
        ("", "ALL", " ALL 1:3"),
        ("ALL", "OR 1 3", " ALL 1,3"),
        ("MIN", "ALL", " MIN 1"),
        ("MAX", "ALL", " MAX 3"),
        ("MIN MAX", "ALL", " MIN 1 MAX 3"),
        ("MAX MIN COUNT ALL", "ALL", " MIN 1 MAX 3 COUNT 3 ALL 1:3"),
        ("COUNT", "SEEN", " COUNT 1"),
        ("count min", "SEEN", " MIN 2 COUNT 1"),
        ("", "DELETED", ""),
        ("MIN MAX ALL", "DELETED", ""),
        ("COUNT MIN", "DELETED", " COUNT 0"),
        ("", "1000", ""),
        ("ALL", "CHARSET UTF-8 SUBJECT short", " ALL 2:3"),
    ],
)
def test_results_are_summed_up_as_asked(imap, returns, keys, items):
    imap.step(f"12.345 SEARCH RETURN ({returns}) {keys}", f'* ESEARCH (TAG "12.345"){items}', "12.345 OK <any>")


def test_uid_search_is_marked_and_its_ranges_never_run_over_a_hole(imap):
    imap.step("1 UID SEARCH RETURN () ALL", '* ESEARCH (TAG "1") UID ALL 2:3,5', "1 OK <any>")
    imap.step("2 UID SEARCH RETURN (MIN MAX COUNT) ALL", '* ESEARCH (TAG "2") UID MIN 2 MAX 5 COUNT 3', "2 OK <any>")
    imap.step("3 UID SEARCH RETURN () DELETED", '* ESEARCH (TAG "3") UID', "3 OK <any>")


# --- SEARCHRES (RFC 5182) ---


def test_a_result_is_saved_and_used(imap):
    imap.step("1 SEARCH RETURN (SAVE) SUBJECT short", "1 OK <any>")
    imap.step("2 FETCH $ UID", "* 2 FETCH (UID 3)", "* 3 FETCH (UID 5)", "2 OK <any>")
    imap.step("3 UID FETCH $ UID", "* 2 FETCH (UID 3)", "* 3 FETCH (UID 5)", "3 OK <any>")
    assert found(imap, "$ SEEN") == "2"
    assert found(imap, "UID $") == "2 3"
    assert found(imap, "NOT $") == "1"
    imap.step("4 STORE $ +FLAGS.SILENT (\\Deleted)", "4 OK <any>")
    assert imap.code("UID COPY $ Sent").endswith(" 3,5 1:2")
    imap.step("5 UID EXPUNGE $", "* 3 EXPUNGE", "* 2 EXPUNGE", "5 OK <any>")
    imap.step("6 FETCH $ UID", "6 OK <any>")


@pytest.mark.parametrize(
    ("returns", "saved"),
    [
        ("SAVE", "1 2 3"),
        ("SAVE SAVE", "1 2 3"),
        ("SAVE ALL", "1 2 3"),
        ("COUNT SAVE", "1 2 3"),
        ("MIN SAVE", "1"),
        ("SAVE MAX", "3"),
        ("MIN SAVE MAX", "1 3"),
        ("MIN MAX ALL SAVE", "1 2 3"),
    ],
)
def test_what_is_saved_depends_on_what_is_returned(imap, returns, saved):
    imap.ok(f"SEARCH RETURN ({returns}) ALL")
    assert found(imap, "$") == saved


def test_a_saved_result_loses_what_is_expunged_and_keeps_its_messages(imap):
    imap.ok("SEARCH RETURN (SAVE) 2:3")
    another(imap).ok("UID STORE 3 +FLAGS (\\Deleted)")
    imap.inbox.expunge(imap.inbox.uids.between(3, 3))
    imap.ok("NOOP")
    imap.step("1 FETCH $ UID", "* 2 FETCH (UID 5)", "1 OK <any>")


def test_a_saved_result_is_empty_at_first_and_after_a_select_and_after_a_no(imap):
    assert found(imap, "$") == ""
    imap.ok("SEARCH RETURN (SAVE) ALL")
    imap.step("1 SEARCH RETURN (SAVE) COLOUR", "1 BAD <any>")
    assert found(imap, "$") == "1 2 3"
    imap.step("2 SEARCH CHARSET KOI8-R ALL", "2 NO <any>")
    assert found(imap, "$") == "1 2 3"
    imap.step("3 SEARCH RETURN (SAVE) CHARSET KOI8-R ALL", "3 NO <any>")
    assert found(imap, "$") == ""
    imap.ok("SEARCH RETURN (SAVE) ALL")
    imap.select()
    assert found(imap, "$") == ""


def test_a_dollar_stands_alone(imap):
    for numbers in ("1,$", "$,1", "$:3"):
        imap.step(f"1 FETCH {numbers} UID", "1 BAD <any>")


# --- news ---


def test_search_tells_no_expunge_and_uid_search_tells_it_behind_the_result(imap):
    imap.inbox.expunge(imap.inbox.uids.between(2, 2))
    imap.step("1 SEARCH ALL", "* SEARCH 1 2 3", "1 OK <any>")
    imap.step("2 UID SEARCH ALL", "* SEARCH 2 3 5", "* 1 EXPUNGE", "2 OK <any>")
    imap.store.deliver([USER], SHORT)
    imap.step("3 SEARCH ALL", "* SEARCH 1 2", "* 3 EXISTS", "* 1 RECENT", "3 OK <any>")


def test_a_search_of_many_finds_all_of_them():
    imap = Transcript().login()
    imap.inbox.seed(count=10_000, seed=1, profile="small")
    imap.select()
    assert found(imap, "ALL").split() == [str(number) for number in range(1, 10_001)]
    seen = [uid for uid in imap.inbox.uids if SEEN in imap.inbox.flags(uid)]
    assert found(imap, "SEEN", uid=True).split() == [str(uid) for uid in seen]
    (line,) = imap.ok("SEARCH RETURN (COUNT) LARGER 10000")
    assert int(re.search(r"COUNT (\d+)", line)[1]) == sum(imap.inbox.size(uid) > 10_000 for uid in imap.inbox.uids)
