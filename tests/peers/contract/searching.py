"""SEARCH and ESEARCH: every key (RFC 3501 section 6.4.4, RFC 4731)."""

from __future__ import annotations

from typing import Any

from raw_imap import RawImap, Reply

from contract.box import Box
from contract.cases import case
from contract.mails import lines


def _found(imap: RawImap, keys: str | bytes, *, uid: bool = False) -> list[int]:
    command = (b"UID SEARCH " if uid else b"SEARCH ") + (keys if isinstance(keys, bytes) else keys.encode())
    (numbers,) = imap.ok(command).named(b"SEARCH")
    return sorted(int(number) for number in numbers)


def _expect(imap: RawImap, expected: dict[str, list[int]]) -> None:
    found = {keys: _found(imap, keys) for keys in expected}
    assert found == expected


def _mail(*head: str, body: str | bytes = "text") -> bytes:
    return lines(*head, "", body)


def _five(box: Box) -> RawImap:
    """Five letters, each unlike the others."""
    box.append(
        _mail(
            "From: Ann <ann@a.example>",
            "To: Bob <bob@b.example>",
            "Subject: Quarterly report",
            "Date: Fri, 01 Jan 2021 23:30:00 -0500",
            body="The numbers are in.",
        ),
        flags=[r"\Seen", r"\Answered"],
        date="02-Jan-2021 10:00:00 +0000",
    )
    box.append(
        _mail("From: carl@c.example", "Cc: dora@d.example", "Subject: lunch", "Date: Tue, 5 Jan 2021 12:00:00 +0000"),
        flags=[r"\Flagged", "$Work"],
        date="05-Jan-2021 23:59:59 +0000",
    )
    box.append(
        _mail("From: eve@e.example", "Bcc: bob@b.example", "Subject: re: LUNCH", body="x" * 5_000),
        flags=[r"\Draft"],
        date="06-Jan-2021 00:00:01 +0000",
    )
    box.append(
        _mail("From: spam@s.example", "X-Spam: yes", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", body="Grüße".encode()),
        flags=[r"\Deleted"],
        date="07-Jan-2021 10:00:00 +0000",
    )
    box.append(_mail("Subject:", "X-Spam:", body="numbers again"), date="08-Jan-2021 10:00:00 +0000")
    box.imap.ok("SELECT INBOX")
    return box.imap


@case("SEARCH")
def keys_of_flags(box: Box) -> None:
    imap = _five(box)
    _expect(
        imap,
        {
            "ALL": [1, 2, 3, 4, 5],
            "ANSWERED": [1],
            "UNANSWERED": [2, 3, 4, 5],
            "DELETED": [4],
            "UNDELETED": [1, 2, 3, 5],
            "DRAFT": [3],
            "UNDRAFT": [1, 2, 4, 5],
            "FLAGGED": [2],
            "UNFLAGGED": [1, 3, 4, 5],
            "SEEN": [1],
            "UNSEEN": [2, 3, 4, 5],
            "KEYWORD $Work": [2],
            "KEYWORD $work": [2],
            "UNKEYWORD $Work": [1, 3, 4, 5],
            "KEYWORD $Nothing": [],
        },
    )


@case("SEARCH")
def old_is_not_recent_and_new_is_recent_and_unseen(box: Box) -> None:
    imap = _five(box)
    everything, recent = _found(imap, "ALL"), _found(imap, "RECENT")
    assert sorted(recent + _found(imap, "OLD")) == everything
    assert _found(imap, "NEW") == sorted(set(recent) & set(_found(imap, "UNSEEN")))


@case("SEARCH")
def keys_of_addresses_and_subjects_find_parts_in_any_case(box: Box) -> None:
    imap = _five(box)
    _expect(
        imap,
        {
            "FROM ann": [1],
            'FROM "ANN@A.EXAMPLE"': [1],
            "TO bob": [1],
            "CC dora": [2],
            "BCC bob": [3],
            "SUBJECT lunch": [2, 3],
            'SUBJECT "quarterly REPORT"': [1],
            "SUBJECT nothing": [],
        },
    )


@case("SEARCH")
def header_finds_any_field_and_with_an_empty_string_its_presence(box: Box) -> None:
    imap = _five(box)
    _expect(
        imap,
        {
            "HEADER X-Spam yes": [4],
            'HEADER X-Spam ""': [4, 5],
            'HEADER x-none ""': [],
            'HEADER CC ""': [2],
        },
    )


@case("SEARCH")
def body_looks_into_the_body_and_text_also_into_the_head(box: Box) -> None:
    imap = _five(box)
    _expect(imap, {"BODY numbers": [1, 5], "BODY quarterly": [], "TEXT quarterly": [1], "TEXT numbers": [1, 5]})


@case("SEARCH")
def body_is_searched_as_it_reads_not_as_it_is_encoded(box: Box) -> None:
    """RFC 3501 section 6.4.4 leaves it open; both peers' clients rely on it."""
    mail = lines(
        "Subject: encoded",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: base64",
        "",
        "YSBzZWNyZXQgd29yZA==",
    )
    box.selected(mail)
    _expect(box.imap, {"BODY secret": [1], "BODY YSBzZWNyZXQ": []})


@case("SEARCH")
def sizes_are_compared_without_the_number_itself(box: Box) -> None:
    imap = _five(box)
    size = int(imap.ok("FETCH 3 RFC822.SIZE").row()[b"RFC822.SIZE"])
    _expect(
        imap,
        {
            f"LARGER {size - 1}": [3],
            f"LARGER {size}": [],
            f"SMALLER {size}": [1, 2, 4, 5],
            f"SMALLER {size + 1}": [1, 2, 3, 4, 5],
        },
    )


@case("SEARCH")
def dates_of_arrival_disregard_the_time(box: Box) -> None:
    imap = _five(box)
    _expect(
        imap,
        {
            "BEFORE 6-Jan-2021": [1, 2],
            "ON 6-Jan-2021": [3],
            "SINCE 6-Jan-2021": [3, 4, 5],
            'SINCE "06-Jan-2021"': [3, 4, 5],
            "BEFORE 1-Jan-2000": [],
        },
    )


@case("SEARCH")
def dates_of_sending_are_the_heads_own_without_zone(box: Box) -> None:
    """RFC 3501 section 6.4.4: disregarding time and timezone: 23:30 -0500 is still the first."""
    imap = _five(box)
    assert _found(imap, "SENTON 1-Jan-2021 FROM ann") == [1]
    assert _found(imap, "SENTBEFORE 2-Jan-2021 FROM ann") == [1]
    assert 2 in _found(imap, "SENTSINCE 5-Jan-2021")
    assert 1 not in _found(imap, "SENTSINCE 2-Jan-2021")


@case("SEARCH")
def keys_side_by_side_must_all_hold(box: Box) -> None:
    imap = _five(box)
    _expect(
        imap,
        {
            "SUBJECT lunch FLAGGED": [2],
            "OR SEEN FLAGGED": [1, 2],
            "NOT SEEN": [2, 3, 4, 5],
            "OR (SUBJECT lunch NOT FLAGGED) DELETED": [3, 4],
            "NOT (OR SEEN FLAGGED)": [3, 4, 5],
            "(SEEN ANSWERED)": [1],
            "NOT NOT SEEN": [1],
        },
    )


@case("SEARCH")
def sets_of_numbers_and_of_uids_are_keys(box: Box) -> None:
    imap = _five(box)
    uids = box.uids()
    _expect(
        imap, {"2:3": [2, 3], "1,4:*": [1, 4, 5], f"UID {uids[1]}": [2], f"UID {uids[4] + 9}": [], "NOT 1:3": [4, 5]}
    )


@case("SEARCH")
def uid_search_answers_uids(box: Box) -> None:
    imap = _five(box)
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    imap.ok("EXPUNGE")
    uids = box.uids()
    assert len(uids) == 3
    assert _found(imap, "SUBJECT lunch", uid=True) == uids[:2]


@case("SEARCH")
def a_search_that_finds_nothing_says_so(box: Box) -> None:
    imap = _five(box)
    assert imap.ok("SEARCH KEYWORD $Nothing").named(b"SEARCH") == [[]]


@case("SEARCH")
def a_charset_and_a_literal_find_what_is_not_ascii(box: Box) -> None:
    imap = _five(box)
    word = "grüße".encode()
    assert _found(imap, b"CHARSET UTF-8 SUBJECT {%d}\r\n%s" % (len(word), word)) == [4]


@case("SEARCH")
def an_unknown_charset_is_refused_by_its_code(box: Box) -> None:
    imap = _five(box)
    assert imap.no("SEARCH CHARSET X-NOBODY SUBJECT lunch").code.startswith(b"BADCHARSET")


@case("SEARCH")
def an_unknown_key_is_wrong(box: Box) -> None:
    imap = _five(box)
    for keys in ("NOBODY", "SUBJECT", "OR SEEN", "NOT", "(SEEN", "LARGER many", "BEFORE yesterday", "ON 6-Jan"):
        imap.bad(f"SEARCH {keys}")


def _extended(reply: Reply, tag: bytes | None = None) -> dict[bytes, Any]:
    """The result options of the only ESEARCH answer, and whether it is of UIDs."""
    (values,) = reply.named(b"ESEARCH")
    assert values[0][0].upper() == b"TAG"
    assert tag is None or values[0][1] == tag
    rest = values[1:]
    found: dict[bytes, Any] = {b"UID": bool(rest) and rest[0] == b"UID"}
    rest = rest[found[b"UID"] :]
    return found | {key.upper(): value for key, value in zip(rest[::2], rest[1::2], strict=True)}


@case("ESEARCH", "ESEARCH")
def results_are_summed_up_as_asked(box: Box) -> None:
    """RFC 4731 section 3.1."""
    imap = _five(box)
    reply = imap.ok("SEARCH RETURN (MIN MAX COUNT ALL) UNSEEN")
    assert _extended(reply) == {b"UID": False, b"MIN": b"2", b"MAX": b"5", b"COUNT": b"4", b"ALL": b"2:5"}
    assert reply.named(b"SEARCH") == []


@case("ESEARCH", "ESEARCH")
def the_answer_names_the_commands_tag(box: Box) -> None:
    imap = _five(box)
    tag = imap.send("SEARCH RETURN (COUNT) ALL")
    assert _extended(imap.finish(tag), tag)[b"COUNT"] == b"5"


@case("ESEARCH", "ESEARCH")
def an_empty_list_of_options_means_all(box: Box) -> None:
    imap = _five(box)
    assert _extended(imap.ok("SEARCH RETURN () OR SEEN DRAFT")) == {b"UID": False, b"ALL": b"1,3"}


@case("ESEARCH", "ESEARCH")
def uid_search_is_marked_and_answers_uids(box: Box) -> None:
    imap = _five(box)
    uids = box.uids()
    found = _extended(imap.ok("UID SEARCH RETURN (MIN MAX) UNSEEN"))
    assert found == {b"UID": True, b"MIN": b"%d" % uids[1], b"MAX": b"%d" % uids[4]}


@case("ESEARCH", "ESEARCH")
def nothing_found_has_neither_min_nor_max_nor_all(box: Box) -> None:
    imap = _five(box)
    assert _extended(imap.ok("SEARCH RETURN (MIN MAX ALL COUNT) KEYWORD $None")) == {b"UID": False, b"COUNT": b"0"}
    assert _extended(imap.ok("SEARCH RETURN (ALL) KEYWORD $None")) == {b"UID": False}


@case("ESEARCH", "ESEARCH")
def an_unknown_result_option_is_wrong(box: Box) -> None:
    _five(box).bad("SEARCH RETURN (NOBODY) ALL")


@case("ESEARCH", "ESEARCH", "CONDSTORE")
def results_by_modseq_tell_the_highest_of_the_found(box: Box) -> None:
    """RFC 7162 section 3.1.10 with RFC 4731 section 3.2."""
    imap = _five(box)
    imap.ok("ENABLE CONDSTORE")
    found = _extended(imap.ok("SEARCH RETURN (ALL COUNT) MODSEQ 1"))
    assert found[b"COUNT"] == b"5"
    assert int(found[b"MODSEQ"]) == box.modseq()
