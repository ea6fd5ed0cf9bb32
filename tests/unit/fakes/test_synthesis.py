"""Messages as functions of their names: the same bytes everywhere, sizes that agree, mail that parses."""

import ast
import email
import email.policy
import functools
import hashlib
import os
import subprocess
import sys
import tracemalloc
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import pytest

import fakemail.synthesis
from fakemail.synthesis import FIRST_DAY, PROFILES, Source, synthesise

ADDRESS = "ann@example.test"
FOLDERS = ["INBOX", "Junk", "Sent", "Drafts"]
UID_MAX = (1 << 32) - 1
#: What the standard library says of file names as mailers write them, and of nothing else.
KNOWN_DEFECTS = {
    "encoded word inside quoted string",
    "missing trailing whitespace after encoded-word",
    "duplicate parameter name; duplicate(s) ignored",
}
#: A change here changes every seeded mailbox that anyone has: say so in the changelog.
DIGESTS = {
    ("small", "INBOX"): "e623508503e942f98d718069105bacc3b3d6cc89cc317cdf222278203c765107",
    ("exchange", "INBOX"): "2669991e3cd3f08b558bad0a024b6d8e4e1e3086aee262e595e3488fac113ec7",
    ("heavy-tail", "INBOX"): "0e38ceb8c823e193610c461beb8825eb87957f22b9eb22a3b5cc7affb9b8a9d3",
    ("small", "Junk"): "6c3f1598409937679d706ec0feda4673df1281ee4c71cda6a831e7431be070ba",
    ("small", "Sent"): "bf55b11dfe5c0e89c6e67c1e042ee9c5b6cb7e02ca6d1ee371ee8e1c8c6f9031",
    ("small", "Drafts"): "a1d6d3baca3f58f4f086bf15bb3c732e90f3faf827b63f814492ac615ae65545",
}


def source(folder="INBOX", *, profile="small", seed=7, address=ADDRESS):
    return Source(seed=seed, address=address, folder=folder, profile=profile)


def digest(made, uids=range(1, 101)):
    return hashlib.sha256(b"".join(made.raw(uid) for uid in uids)).hexdigest()


def parsed(raw):
    return email.message_from_bytes(raw, policy=email.policy.default)


@functools.cache
def whole(folder="INBOX", count=300):
    """(UID, facts, message) of those that are not broken on purpose."""
    made = source(folder)
    facts = [(uid, made.facts(uid)) for uid in range(1, count + 1)]
    return [(uid, each, parsed(made.raw(uid))) for uid, each in facts if each.broken is None]


def headers(made, uids):
    """The same without the bodies, which take long to parse."""
    for uid in uids:
        if (facts := made.facts(uid)).broken is None:
            yield uid, facts, parsed(made.header(uid))


def of_structure(*structures, count):
    """So many messages that are made in this way."""
    made, found = source(), []
    for uid in range(1, 20_000):
        facts = made.facts(uid)
        if facts.structure in structures:
            found.append((facts, parsed(made.raw(uid))))
        if len(found) == count:
            return found
    raise AssertionError(f"there are {len(found)} of {structures}")


@pytest.mark.parametrize(("profile", "folder"), DIGESTS)
def test_a_message_is_the_same_on_every_machine(profile, folder):
    assert digest(source(folder, profile=profile)) == DIGESTS[profile, folder]


def test_neither_the_hash_seed_nor_the_locale_changes_a_message():
    program = (
        "import hashlib; from fakemail.synthesis import Source;"
        f"s = Source(seed=7, address={ADDRESS!r}, folder='INBOX', profile='small');"
        "print(hashlib.sha256(b''.join(map(s.raw, range(100, 0, -1)))).hexdigest())"
    )
    folder = Path(fakemail.synthesis.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "99", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(source(), range(100, 0, -1))


def test_nothing_is_imported_that_may_differ_from_machine_to_machine():
    allowed = {
        "__future__", "binascii", "collections", "dataclasses", "datetime", "fakemail", "functools", "hashlib",
        "itertools", "textwrap", "typing",
    }  # fmt: skip
    for file in Path(fakemail.synthesis.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in modules} <= allowed, file.name
        assert not [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, float)], (
            file.name
        )
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert not called & {"hash", "id", "float"}, file.name


def test_every_part_of_its_name_changes_a_message():
    base = {"seed": 7, "address": ADDRESS, "folder": "INBOX", "uid": 9}
    others = [{"seed": 8}, {"address": "bob@example.test"}, {"folder": "Archive"}, {"uid": 10}]
    assert len({synthesise(**(base | change)) for change in [{}, *others]}) == 5


def test_the_profile_changes_the_size_and_no_header():
    small, exchange = source(), source(profile="exchange")
    assert [small.header(uid) for uid in range(1, 200)] == [exchange.header(uid) for uid in range(1, 200)]
    assert [small.size(uid) for uid in range(1, 200)] != [exchange.size(uid) for uid in range(1, 200)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_size_and_header_agree_with_the_bytes(profile, folder):
    made = source(folder, profile=profile)
    for uid in [*range(1, 1200), *range(UID_MAX - 200, UID_MAX + 1)]:
        raw = made.raw(uid)
        assert made.size(uid) == len(raw), (uid, made.facts(uid))
        header = made.header(uid)
        assert raw.startswith(header), (uid, made.facts(uid))
        assert header.endswith(b"\r\n\r\n")
        assert raw.find(b"\r\n\r\n") == len(header) - 4
        assert b"\0" not in raw


def test_size_agrees_for_thousands_of_any_uids():
    made = source(profile="heavy-tail")
    for uid in range(1, UID_MAX, UID_MAX // 3000):
        assert made.size(uid) == len(made.raw(uid)), uid


def test_the_largest_message_is_below_25_mb_and_takes_no_more_memory_than_itself():
    made = source(profile="heavy-tail", seed=1)
    uid = max(range(1, 200_000), key=made.size)
    size = made.size(uid)
    assert 15_000_000 < size < 25_000_000
    tracemalloc.start()
    try:
        assert len(made.raw(uid)) == size
        assert tracemalloc.get_traced_memory()[1] < size + 200_000
        tracemalloc.reset_peak()
        made.header(uid)
        made.size(uid)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("folder", FOLDERS)
def test_mail_that_is_not_broken_has_no_defect_and_decodes(folder):
    for uid, facts, message in whole(folder):
        found = {str(defect) for part in message.walk() for defect in part.defects}
        fields = [value for part in message.walk() for value in part.values()]
        found |= {str(defect) for value in fields for defect in getattr(value, "defects", ())}
        assert found <= KNOWN_DEFECTS, (uid, facts)
        for part in message.walk():
            if part.get_content_maintype() == "text":
                assert "\ufffd" not in part.get_content(), (uid, facts)


@pytest.mark.parametrize("folder", FOLDERS)
def test_lines_of_mail_that_is_not_broken_end_with_crlf_and_are_short(folder):
    made = source(folder)
    for uid in range(1, 700):
        raw = made.raw(uid)
        if made.facts(uid).broken is None:
            assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
            assert raw.endswith(b"\r\n")
            assert max(map(len, raw.split(b"\r\n"))) <= 160, (uid, made.facts(uid))
            assert made.header(uid).isascii()


def test_subjects_and_senders_decode_to_what_they_are():
    for uid, facts, message in headers(source(), range(1, 700)):
        assert str(message["Subject"]) == facts.subject, uid
        assert message["From"].addresses[0].addr_spec.isascii()
    assert source().facts(3).subject


def test_an_encoded_word_has_at_most_75_bytes_and_its_line_76():
    """RFC 2047 section 2."""
    made = source()
    for uid in range(1, 1500):
        if made.facts(uid).broken is None:
            for line in made.header(uid).split(b"\r\n"):
                words = [word for word in line.split() if word.startswith(b"=?")]
                assert all(len(word) <= 76 for word in words), (uid, line)
                # What follows the last word, such as an address or a number, may go beyond.
                assert not words or line.index(words[-1]) + len(words[-1]) <= 77, (uid, line)


def test_every_language_charset_and_encoding_occurs():
    facts = [source().facts(uid) for uid in range(1, 3000)]
    assert {each.language for each in facts} == {"en", "emoji", "de", "fr", "ru", "ja", "ar", "zh"}
    assert {each.charset for each in facts} == {
        "us-ascii", "utf-8", "iso-8859-1", "windows-1252", "koi8-r", "iso-2022-jp",
    }  # fmt: skip
    assert {each.encoding for each in facts} == {"7bit", "8bit", "quoted-printable", "base64"}


@pytest.mark.parametrize(
    ("language", "word"),
    [
        ("de", "Straße"),
        ("fr", "déjà"),
        ("ru", "работа"),
        ("ja", "会議"),
        ("ar", "الاجتماع"),
        ("zh", "会议"),
        ("emoji", "🎉"),
    ],
)  # fmt: skip
def test_text_is_in_the_language_that_the_facts_name(language, word):
    made = source()
    found = [(uid, made.facts(uid)) for uid in range(1, 1000)]
    uids = [uid for uid, facts in found if facts.language == language and facts.structure.startswith("alternative")][:8]
    texts = [parsed(made.raw(uid)).get_body(("plain",)).get_content() for uid in uids]
    # One of sixty words in hundreds: a short text may lack it.
    assert sum(word in text for text in texts) > 4


def test_the_text_and_its_html_alternative_are_in_the_same_charset():
    for facts, message in of_structure("alternative", count=40):
        assert [part.get_content_charset() for part in message.iter_parts()] == [facts.charset] * 2


def test_html_shows_the_image_that_comes_with_it():
    for _, message in of_structure("related", "mixed-related", count=12):
        parts = list(message.walk())
        image = next(part for part in parts if part.get_content_type() == "image/png" and part["Content-ID"])
        page = next(part for part in parts if part.get_content_type() == "text/html").get_content()
        assert f"cid:{image['Content-ID'].strip('<>')}" in page
        assert image.get_content().startswith(b"\x89PNG")


def test_attachments_have_names_in_every_way_of_writing_them():
    names = {next(message.iter_attachments()).get_filename() for _, message in of_structure("mixed", count=150)}
    assert {
        "report-2024.pdf", "Prüfbericht März.pdf", "Protokoll der Besprechung, Grüße.docx", "IMG_0042.JPG", None,
        "Geschäftsbericht der Gesellschaft für Prüfverfahren, überarbeitete Fassung für München.pdf", "議事録.doc",
        "Отчет за неделю.xls", 'a "quoted" \\ name.tar.gz', "Réunion 🎉.gif",
    } <= names  # fmt: skip


def test_an_attachment_begins_as_its_type_does_and_its_base64_is_sound():
    begun = {"application/pdf": b"%PDF", "image/jpeg": b"\xff\xd8\xff", "application/zip": b"PK\x03\x04"}
    seen = set()
    for _, message in of_structure("mixed", count=60):
        part = next(message.iter_attachments())
        content = part.get_payload(decode=True)
        assert content.startswith(begun.get(part.get_content_type(), b""))
        assert content.endswith(b"\0\0\0\0end")
        seen.add(part.get_content_type())
    assert set(begun) <= seen


@pytest.mark.parametrize(
    ("structure", "types"),
    [
        ("calendar", {"text/calendar", "application/ics"}),
        ("report", {"multipart/report", "message/delivery-status"}),
        ("receipt", {"multipart/report", "message/disposition-notification"}),
        ("forward", {"message/rfc822"}),
        ("forward-file", {"message/rfc822"}),
        ("digest", {"multipart/digest", "message/rfc822"}),
        ("smime", {"multipart/signed", "application/pkcs7-signature"}),
        ("pgp", {"multipart/signed", "application/pgp-signature"}),
    ],
)
def test_special_mail_is_what_it_is_called(structure, types):
    for _, message in of_structure(structure, count=5):
        assert types <= {part.get_content_type() for part in message.walk()}
        inner = [part for part in message.walk() if part.get_content_type() == "message/rfc822"]
        assert all(part.get_payload(0)["Message-ID"] for part in inner)


def test_an_invitation_is_a_calendar_object_with_folded_lines():
    """RFC 5545 section 3.1."""
    made = source()
    uid = next(uid for uid in range(1, 500) if made.kind(uid) == "calendar")
    message = parsed(made.raw(uid))
    event = next(part for part in message.walk() if part.get_content_type() == "text/calendar")
    assert event["Content-Type"].params["method"] == "REQUEST"
    text = event.get_payload(decode=True)
    assert text.startswith(b"BEGIN:VCALENDAR\r\n")
    assert text.endswith(b"END:VCALENDAR\r\n")
    assert max(map(len, text.split(b"\r\n"))) <= 75


def test_list_mail_has_the_fields_of_a_list():
    for _, facts, message in headers(source(), range(1, 300)):
        assert ("List-Id" in message and "List-Post" in message) == (facts.kind in {"list", "digest"})
        if facts.kind == "newsletter":
            assert "List-Unsubscribe" in message


def test_the_user_is_written_to_in_every_way():
    fields = {"alone": 0, "many": 0, "group": 0, "copied": 0, "blind": 0}
    for _, facts, message in headers(source(), range(1, 600)):
        if facts.kind not in {"list", "digest"}:
            to, copies = message["To"], message["Cc"]
            names = {address.addr_spec for field in (to, copies) if field for address in field.addresses}
            assert ADDRESS in names or message["X-Envelope-To"] == ADDRESS
            fields["alone"] += len(to.addresses) == 1 and not copies
            fields["many"] += len(to.addresses) > 15
            fields["group"] += any(group.display_name == "Project team" for group in to.groups)
            fields["copied"] += bool(copies) and ADDRESS in {address.addr_spec for address in copies.addresses}
            fields["blind"] += message["X-Envelope-To"] == ADDRESS
    assert all(fields.values()), fields
    assert fields["alone"] == max(fields.values())


@pytest.mark.parametrize("folder", ["Sent", "Sent Items", "INBOX.Sent", "Mail/Sent Messages"])
def test_in_sent_the_user_is_the_sender_and_no_relay_saw_it(folder):
    for _, _, message in headers(source(folder), range(1, 200)):
        assert message["From"].addresses[0].addr_spec == ADDRESS
        assert message["To"]
        assert not {"Received", "Return-Path", "DKIM-Signature", "Delivered-To"} & set(message.keys())


def test_some_drafts_have_no_message_id_and_some_nobody_to_go_to():
    messages = [message for _, _, message in headers(source("Drafts"), range(1, 400))]
    assert 0.2 < sum("Message-ID" not in message for message in messages) / len(messages) < 0.45
    assert 0.15 < sum("To" not in message for message in messages) / len(messages) < 0.35
    assert all("Received" not in message for message in messages)


@pytest.mark.parametrize("folder", ["INBOX", "Junk"])
def test_spam_is_marked_and_other_mail_is_not(folder):
    for _, facts, message in headers(source(folder), range(1, 300)):
        assert (message["X-Spam-Flag"] == "YES") == facts.is_spam
        if facts.is_spam:
            assert message["X-Spam-Status"].startswith("Yes, score=")
            assert message["Return-Path"].strip("<>") != message["From"].addresses[0].addr_spec


def test_received_never_goes_back_up_to_the_last_uid():
    made = source()
    uids = sorted({*range(1, 3000), *range(16_000, 17_000), *range((1 << 20) - 500, (1 << 20) + 500),
                   *range(1, UID_MAX, UID_MAX // 5000), *range(UID_MAX - 500, UID_MAX + 1)})  # fmt: skip
    moments = [made.received(uid) for uid in uids]
    assert all(earlier <= later for earlier, later in pairwise(moments))
    assert moments[0] > FIRST_DAY.timestamp()
    assert moments[-1] < FIRST_DAY.timestamp() + 5 * 366 * 86_400


@pytest.mark.parametrize(
    "uids", [range(1, 400), range((1 << 20) - 50, (1 << 20) + 50), range(UID_MAX - 100, UID_MAX + 1)]
)
def test_mail_is_dated_before_its_relays_saw_it_and_they_saw_it_before_it_arrived(uids):
    made = source()
    for uid, facts, message in headers(made, uids):
        hops = [parsedate_to_datetime(field.rpartition(";")[2]) for field in message.get_all("Received")]
        assert hops == sorted(hops, reverse=True)
        assert hops[0].timestamp() <= made.received(uid)
        if facts.structure == "spam-late":
            assert message["Date"].datetime.year == 2038
        else:
            assert message["Date"].datetime <= hops[-1], (uid, facts)


@pytest.mark.parametrize("folder", FOLDERS)
def test_flags_come_from_a_table_that_a_mask_chooses_from(folder):
    made = source(folder)
    table = made.flags_table
    assert len(table) & len(table) - 1 == 0
    assert len(table) <= 256
    uids = [*range(1, 2000), UID_MAX]
    assert made.flags_indexes(uids) == [made.flags_index(uid) for uid in uids]
    assert all(made.flags(uid) is table[made.flags_index(uid)] for uid in uids)
    assert {made.flags_index(uid) for uid in uids} == set(range(len(table)))
    assert "\\Recent" not in frozenset().union(*table)


def test_an_old_mailbox_is_mostly_seen_and_partly_answered():
    made = source()
    flags = [made.flags(uid) for uid in range(1, 5001)]
    share = {flag: sum(flag in each for each in flags) / len(flags) for flag in frozenset().union(*flags)}
    assert 0.82 < share["\\Seen"] < 0.92
    assert 0.10 < share["\\Answered"] < 0.20
    assert 0.04 < share["\\Flagged"] < 0.12
    assert 0 < share["$Forwarded"] < 0.1
    assert all("\\Draft" in source("Drafts").flags(uid) for uid in range(1, 100))


def test_flags_differ_from_mailbox_to_mailbox():
    mine = [source().flags_index(uid) for uid in range(1, 200)]
    assert mine != [source(address="bob@example.test").flags_index(uid) for uid in range(1, 200)]
    assert mine != [source(seed=8).flags_index(uid) for uid in range(1, 200)]
