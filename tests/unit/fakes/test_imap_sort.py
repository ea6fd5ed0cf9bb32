"""SORT and THREAD (RFC 5256)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imap_transcript import SHORT, USER, Transcript, selected

from fakemail.imap_protocol import Pause
from fakemail.imap_protocol.subjects import Subject, base_subject, collated
from fakemail.imap_protocol.threads import Node, Threaded, by_references, by_subject, written


def folder(*headers):
    """A client that has INBOX selected with a message for each of these headers."""
    return selected(*(header.replace("\n", "\r\n").encode() + b"\r\n\r\nbody\r\n" for header in headers))


def sorted_by(client, criteria, keys="ALL", *, uid=False):
    lines = client.ok(f"{'UID ' * uid}SORT ({criteria}) UTF-8 {keys}")
    assert lines[0].startswith("* SORT")
    return lines[0].removeprefix("* SORT").strip()


def threaded(client, algorithm, keys="ALL", *, uid=False):
    lines = client.ok(f"{'UID ' * uid}THREAD {algorithm} UTF-8 {keys}")
    assert lines[0].startswith("* THREAD")
    return lines[0].removeprefix("* THREAD").strip()


# --- base subjects (RFC 5256 section 2.1) ---


@pytest.mark.parametrize(
    ("text", "base", "is_reply"),
    [
        ("plain", "plain", False),
        ("", "", False),
        ("  a \t b\r\n c ", "a b c", False),
        ("Re: x", "x", True),
        ("RE : x", "x", True),
        ("re:x", "x", True),
        ("Fw: x", "x", True),
        ("FWD: x", "x", True),
        ("Re: Fwd: re: x", "x", True),
        ("Re [2]: x", "x", True),
        ("Re[2]: x", "x", True),
        ("[list] x", "x", False),
        ("[list] Re: x", "x", True),
        ("Re: [list] x", "x", True),
        ("[a] [b] Re: [c] re: x", "x", True),
        ("[a][b]x", "x", False),
        ("[list]", "[list]", False),
        ("[a] [b]", "[b]", False),
        ("Re: [a]", "[a]", True),
        ("[a] Re:", "", True),
        ("x (fwd)", "x", True),
        ("x (FWD) (fwd) ", "x", True),
        ("(fwd)", "", True),
        ("[fwd: x]", "x", True),
        ("[Fwd: [fwd: Re: x (fwd)]]", "x", True),
        ("[fwd: x] y", "y", False),
        ("[fwd:]", "", True),
        ("Re:", "", True),
        ("Regarding: x", "Regarding: x", False),
        ("Re x", "Re x", False),
        ("Forward: x", "Forward: x", False),
        ("AW: x", "AW: x", False),
        ("[unclosed x", "[unclosed x", False),
        ("x [tag]", "x [tag]", False),
    ],
)
def test_the_base_of_a_subject(text, base, is_reply):
    assert base_subject(text) == Subject(base, is_reply)


@pytest.mark.parametrize(
    "text", ["[]" * 30_000 + "x", "(fwd)" * 12_000 + "x", "re:" * 20_000, "[fwd:" * 5000 + "]" * 5000, "[a" * 30_000]
)
def test_no_subject_takes_long(text):
    base_subject(text)


@given(st.text(st.sampled_from("re:fwd[]() \t"), max_size=20))
def test_a_base_subject_is_its_own_base(text):
    base = base_subject(text).base
    assert base_subject(base).base == base
    assert base == base.strip()


def test_text_is_compared_without_regard_to_case():
    assert collated("straße ÄÖ ﬁ") == collated("STRAßE äö ﬁ")
    assert collated("a") < collated("B") < collated("c")
    assert collated("e\u0301") == collated("\u00e9")


# --- SORT ---

MIXED = (
    "From: Carl <zoe@x.test>\nTo: b@x.test\nCc: a@x.test\nSubject: Re: banana\nDate: Mon, 01 Jan 2024 12:00:00 +0200",
    'From: "Ann" <Bob@x.test>\nTo: c@x.test, a@x.test\nSubject: apple\nDate: Mon, 01 Jan 2024 11:00:00 +0000\nX-A: b',
    "From: a@x.test\nSubject: [list] Banana\nDate: Sun, 31 Dec 2023 23:30:00 -0400",
    "Subject: =?utf-8?q?=C3=84pfel?=",
)


@pytest.fixture
def mixed():
    client = folder(*MIXED)
    client.inbox._own = {
        uid: type(mail)(raw=mail.raw, received_s=1_000_000_000 + uid % 3, zone_min=uid * 60)
        for uid, mail in client.inbox._own.items()
    }
    return client


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ("ARRIVAL", "3 1 4 2"),
        ("REVERSE ARRIVAL", "2 1 4 3"),
        ("CC", "2 3 4 1"),
        ("FROM", "4 3 2 1"),
        ("from", "4 3 2 1"),
        ("TO", "3 4 1 2"),
        ("REVERSE TO", "2 1 3 4"),
        ("SUBJECT", "2 4 1 3"),
        ("REVERSE SUBJECT", "1 3 4 2"),
        ("DATE", "4 3 1 2"),
        ("REVERSE DATE", "2 1 3 4"),
        ("SIZE", "4 3 1 2"),
        ("SUBJECT REVERSE DATE", "2 4 1 3"),
        ("SUBJECT DATE", "2 4 3 1"),
        ("SUBJECT REVERSE ARRIVAL", "2 4 1 3"),
        ("CC REVERSE SIZE", "2 3 4 1"),
    ],
)
def test_messages_are_sorted(mixed, criteria, expected):
    assert sorted_by(mixed, criteria) == expected


def test_what_is_equal_stays_in_the_order_of_numbers_also_in_reverse():
    client = folder(*["Subject: x"] * 4)
    assert sorted_by(client, "SUBJECT") == sorted_by(client, "REVERSE SUBJECT") == "1 2 3 4"


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (["Mon, 01 Jan 2024 10:00:00 +0000", "Mon, 01 Jan 2024 10:30:00 +0100"], "2 1"),
        (["Mon, 01 Jan 2024 00:00:01 +0000", "Mon, 01 Jan 2024 99:00:00 +0000"], "2 1"),
        (["bad date", "Fri, 01 Jan 2100 00:00:00 +0000", "Thu, 01 Jan 1970 00:00:00 +0000"], "3 1 2"),
        (["Wed, 31 Feb 2024 10:00:00 +0000", "Thu, 01 Jan 1970 00:00:00 +0000"], "2 1"),
        (["1 Jan 24 10:00 GMT", "1 Jan 2024 10:00 -0100"], "1 2"),
    ],
)
def test_dates_are_compared_as_moments_and_one_that_can_not_be_read_is_that_of_arrival(dates, expected):
    assert sorted_by(folder(*(f"Date: {date}" for date in dates)), "DATE") == expected


def test_only_what_the_keys_find_is_sorted(mixed):
    assert sorted_by(mixed, "SUBJECT", "NOT SUBJECT banana") == "2 4"
    assert sorted_by(mixed, "SUBJECT", "DELETED") == ""
    mixed.step("1 SORT (SUBJECT) US-ASCII DELETED", "* SORT", "1 OK <any>")


def test_uid_sort_gives_uids_and_its_sets_are_still_numbers(mixed):
    mixed.inbox.expunge(mixed.inbox.uids.between(1, 1))
    mixed.ok("NOOP")
    assert sorted_by(mixed, "SUBJECT", uid=True) == "2 4 3"
    assert sorted_by(mixed, "SUBJECT", "1:2", uid=True) == "2 3"
    assert sorted_by(mixed, "SUBJECT", "1:2") == "1 2"


def test_a_modseq_among_the_keys_is_answered_by_the_highest():
    client = folder("Subject: b", "Subject: a")
    client.step(
        "1 SORT (SUBJECT) UTF-8 MODSEQ 1", "* OK [HIGHESTMODSEQ 3] <any>", "* SORT 2 1 (MODSEQ 3)", "1 OK <any>"
    )
    client.step("2 SORT (SUBJECT) UTF-8 MODSEQ 9", "* SORT", "2 OK <any>")


def test_a_charset_must_be_named_and_known(mixed):
    mixed.step("1 SORT (SUBJECT) KOI8-R ALL", "1 NO [BADCHARSET (US-ASCII UTF-8)] <any>")
    mixed.step("2 SORT (SUBJECT) ALL", "2 BAD <any>")
    assert sorted_by(mixed, "SUBJECT", 'SUBJECT "äpf"') == "4"


@pytest.mark.parametrize(
    "arguments",
    [
        "", "SUBJECT UTF-8 ALL", "() UTF-8 ALL", "(COLOUR) UTF-8 ALL", "(REVERSE) UTF-8 ALL", "(DATE UTF-8 ALL",
        "(REVERSE REVERSE DATE) UTF-8 ALL", "(DATE  SIZE) UTF-8 ALL", "(DATE) UTF-8", "(DATE) UTF-8 COLOUR",
        "RETURN () (DATE) UTF-8 ALL",
    ],
)  # fmt: skip
def test_a_malformed_sort_is_bad(mixed, arguments):
    mixed.step(f"1 SORT {arguments}", "1 BAD <any>")


def test_sort_and_thread_tell_no_expunge_and_by_uid_they_do(mixed):
    mixed.inbox.expunge(mixed.inbox.uids.between(4, 4))
    mixed.step("1 SORT (SIZE) UTF-8 ALL", "* SORT 4 3 1 2", "1 OK <any>")
    mixed.step("2 THREAD ORDEREDSUBJECT UTF-8 1", "* THREAD (1)", "2 OK <any>")
    mixed.step("3 SORT (SIZE) X-BAD ALL", "3 NO <any>")
    mixed.step("4 UID SORT (SIZE) UTF-8 1", "* SORT 1", "* 4 EXPUNGE", "4 OK <any>")


def test_a_long_sort_gives_others_a_turn():
    client = Transcript().login()
    client.inbox.seed(count=3000, seed=1, profile="small")
    client.select()
    order = [int(number) for number in sorted_by(client, "REVERSE SIZE", uid=True).split()]
    sizes = [client.inbox.size(uid) for uid in order]
    assert sizes == sorted(sizes, reverse=True)
    assert len(order) == 3000
    assert sum(isinstance(event, Pause) for event in client.events) >= 5


# --- THREAD ---


def mail(number, *, subject=None, references="", in_reply_to="", message_id=None):
    """The header of a message that was sent at minute ``number``."""
    lines = [f"Date: Mon, 01 Jan 2024 10:{number:02d}:00 +0000"]
    lines.append(f"Message-ID: {message_id or f'<{number}@x>'}")
    lines.append(f"Subject: {subject if subject is not None else f'subject {number}'}")
    lines += [f"References: {references}"] * bool(references) + [f"In-Reply-To: {in_reply_to}"] * bool(in_reply_to)
    return "\n".join(lines)


def test_ordered_subject_puts_all_of_one_subject_below_its_first():
    client = folder(
        mail(5, subject="b"), mail(3, subject="a"), mail(4, subject="Re: b"), mail(9, subject="c"),
        mail(6, subject="[x] fwd: B"), mail(1, subject="Re: a"),
    )  # fmt: skip
    assert threaded(client, "ORDEREDSUBJECT") == "(6 2)(3 (1)(5))(4)"
    assert threaded(client, "orderedsubject", "2:4") == "(2)(3)(4)"
    assert threaded(client, "ORDEREDSUBJECT", "DELETED") == ""


REFERENCES = {
    "no references": ([mail(2), mail(1)], "(2)(1)"),
    "an answer": ([mail(1), mail(2, references="<1@x>")], "(1 2)"),
    "an answer by In-Reply-To": ([mail(1), mail(2, in_reply_to="<1@x> and more <9@x>")], "(1 2)"),
    "References before In-Reply-To": ([mail(1), mail(2), mail(3, references="<1@x>", in_reply_to="<2@x>")], "(1 3)(2)"),
    "References without an identifier": ([mail(1), mail(2, references="nothing", in_reply_to="<1@x>")], "(1 2)"),
    "a chain": ([mail(1), mail(2, references="<1@x>"), mail(3, references="<1@x> <2@x>")], "(1 2 3)"),
    "a chain by its last link": ([mail(1), mail(2, references="<1@x>"), mail(3, references="<2@x>")], "(1 2 3)"),
    "two answers": ([mail(1), mail(3, references="<1@x>"), mail(2, references="<1@x>")], "(1 (3)(2))"),
    "two answers and their answers": (
        [mail(1), mail(2, references="<1@x>"), mail(3, references="<1@x> <2@x>"), mail(4, references="<1@x>")],
        "(1 (2 3)(4))",
    ),
    "an answer that came first": ([mail(2, references="<1@x>"), mail(1)], "(2 1)"),
    "a missing parent of one": ([mail(2, references="<1@x>")], "(1)"),
    "a missing parent of two": ([mail(3, references="<1@x>"), mail(2, references="<1@x>")], "((2)(1))"),
    "a missing one in the middle": ([mail(1), mail(3, references="<1@x> <2@x>")], "(1 2)"),
    "a missing one in the middle of two": (
        [mail(1), mail(3, references="<1@x> <2@x>"), mail(4, references="<1@x> <2@x>")],
        "(1 (2)(3))",
    ),
    "a loop of two": ([mail(1, references="<2@x>"), mail(2, references="<1@x>")], "(2 1)"),
    "a loop of itself": ([mail(1, references="<1@x>")], "(1)"),
    "a loop in the references": ([mail(1), mail(2, references="<1@x> <2@x> <1@x>")], "(1 2)"),
    "an identifier twice": ([mail(1), mail(2, message_id="<1@x>"), mail(3, references="<1@x>")], "(1 3)(2)"),
    "no identifier": ([mail(1, message_id="none"), mail(2, references="<none>")], "(1)(2)"),
    "a truncated list is corrected": (
        [mail(4, references="<1@x> <3@x>"), mail(1), mail(2, references="<1@x>"), mail(3, references="<1@x> <2@x>")],
        "(2 3 4 1)",
    ),
    "quotes make no difference": ([mail(1, message_id='<"a.b"@x>'), mail(2, references="<a.b@x>")], "(1 2)"),
    "siblings by date": (
        [mail(1), *(mail(number, references="<1@x>") for number in (5, 3, 4))],
        "(1 (3)(4)(2))",
    ),
    "an answer by its subject alone": ([mail(1, subject="a"), mail(2, subject="Re: a")], "(1 2)"),
    "two answers by their subject alone": (
        [mail(1, subject="a"), mail(3, subject="Re: a"), mail(2, subject="re: A")],
        "(1 (3)(2))",
    ),
    "two of one subject that are no answers": ([mail(2, subject="a"), mail(1, subject="A")], "((2)(1))"),
    "three of one subject that are no answers": ([mail(number, subject="a") for number in (1, 2, 3)], "((1)(2)(3))"),
    "answers of one subject without the original": ([mail(2, subject="Re: a"), mail(1, subject="Re: a")], "((2)(1))"),
    "the original that came last": ([mail(1, subject="Re: a"), mail(2, subject="a")], "(2 1)"),
    "no subject is none in common": ([mail(1, subject=""), mail(2, subject="Re:")], "(1)(2)"),
    "a thread and one of its subject": (
        [mail(1, subject="a"), mail(2, subject="Re: a", references="<1@x>"), mail(3, subject="Re: a")],
        "(1 (2)(3))",
    ),
    "two missing parents of one subject": (
        [
            mail(1, subject="a", references="<m@x>"), mail(2, subject="b", references="<m@x>"),
            mail(3, subject="Re: a", references="<n@x>"), mail(4, subject="c", references="<n@x>"),
        ],
        "((1)(2)(3)(4))",
    ),
    "a missing parent and one of its subject": (
        [mail(2, subject="a", references="<m@x>"), mail(3, subject="b", references="<m@x>"), mail(1, subject="a")],
        "((3)(1)(2))",
    ),
    "threads by the date of their first": (
        [mail(9), mail(5, references="<m@x>"), mail(8, references="<m@x>"), mail(7)],
        "((2)(3))(4)(1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFERENCES)
def test_references_make_threads(case):
    headers, expected = REFERENCES[case]
    assert threaded(folder(*headers), "REFERENCES") == expected


def test_only_what_the_keys_find_is_in_a_thread():
    client = folder(mail(1), mail(2, references="<1@x>"), mail(3, references="<1@x> <2@x>"))
    assert threaded(client, "REFERENCES", "1,3") == "(1 3)"
    assert threaded(client, "REFERENCES", "2:3") == "(2 3)"
    client.inbox.expunge(client.inbox.uids.between(1, 1))
    client.ok("NOOP")
    assert threaded(client, "REFERENCES", uid=True) == "(2 3)"
    assert threaded(client, "REFERENCES") == "(1 2)"


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "REFERENCES",
        "REFERENCES UTF-8",
        "COLOUR UTF-8 ALL",
        "REFS UTF-8 ALL",
        "REFERENCES  UTF-8 ALL",
        "REFERENCES ALL",
    ],
)
def test_a_malformed_thread_is_bad(arguments):
    folder(mail(1)).step(f"1 THREAD {arguments}", "1 BAD <any>")


def test_a_thread_in_an_unknown_charset_is_no():
    folder(mail(1)).step("1 THREAD REFERENCES KOI8-R ALL", "1 NO [BADCHARSET <any>] <any>")


def tree(text):
    """A thread list as nested pairs: (number, children)."""
    found, stack = [], []
    stack.append(found)
    for token in re.findall(r"\(|\)|\d+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(int(token))
    return found


def flat(items):
    return [each for item in items for each in (flat(item) if isinstance(item, list) else [item])]


PLANS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 9), max_size=4),
        st.integers(1, 9),
        st.sampled_from(["a", "Re: a", "b", ""]),
        st.integers(0, 5),
    ),
    max_size=12,
)


@given(PLANS)
@settings(deadline=None)
def test_every_message_is_in_one_thread_whatever_refers_to_what(plans):
    messages = [
        Threaded(
            number=number,
            sent_s=sent,
            subject=base_subject(subject),
            message_id=f"{own}@x" if own < 9 else "",
            references=tuple(f"{each}@x" for each in references),
        )
        for number, (references, own, subject, sent) in enumerate(plans, 1)
    ]
    for build in (by_references, by_subject):
        text = b"".join(map(written, build(messages))).decode()
        assert sorted(flat(tree(text))) == [message.number for message in messages]
        assert re.sub(r"\(\d+( \d+)*( (?=\())?", "(", text).count("(") == text.count("(")


def test_a_thread_may_be_as_deep_as_a_folder_is_long():
    messages = [
        Threaded(
            number=number,
            sent_s=number,
            subject=Subject("x", is_reply=True),
            message_id=f"{number}@x",
            references=(f"{number - 1}@x",) if number > 1 else (),
        )
        for number in range(1, 3001)
    ]
    (root,) = by_references(messages)
    assert written(root) == f"({' '.join(str(number) for number in range(1, 3001))})".encode()


def test_a_missing_root_is_written_as_parentheses_alone():
    leaf = Threaded(number=7, sent_s=0, subject=Subject("", is_reply=False))
    assert written(Node(children=[Node(leaf), Node(leaf)])) == b"((7)(7))"


def test_synthesised_threads_come_out_as_they_were_made():
    client = Transcript().login()
    client.inbox.seed(count=400, seed=1, profile="small")
    client.select()
    source = client.inbox._segments[0].source
    threads = tree(threaded(client, "REFERENCES", uid=True))
    together = {each: number for number, thread in enumerate(threads) for each in flat([thread])}
    assert sorted(together) == list(client.inbox.uids)
    answers = [uid for uid in client.inbox.uids if (parent := source.facts(uid).parent) and parent >= 1]
    assert len(answers) > 40
    assert sum(together[uid] == together[source.facts(uid).parent] for uid in answers) == len(answers)


def test_news_come_behind_a_thread():
    client = folder(mail(1))
    client.store.deliver([USER], SHORT)
    client.step("1 THREAD REFERENCES UTF-8 ALL", "* THREAD (1)", "* 2 EXISTS", "* 1 RECENT", "1 OK <any>")
