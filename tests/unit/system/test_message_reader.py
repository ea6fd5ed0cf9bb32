"""Reading mail: both readers say the same, ordinary mail is read the fast way, hostile mail costs what it weighs."""

import base64
import quopri
import time
from datetime import datetime, timedelta, timezone
from email.header import decode_header
from email.utils import format_datetime, getaddresses
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from email_service.message import fields, parse, patient, reader, texts
from fakemail.faults import GARBLES, spoil
from fakemail.synthesis import PROFILES, synthesise


def read_fast(raw):
    """What the fast reader says, or None where it leaves the message to the other."""
    try:
        return reader._Reader(raw).read()
    except reader._OddError:
        return None
    except patient.TooMuchError:
        return None


def agree(raw):
    """Both readers say the same of what the fast one takes; whether it took it."""
    fast = read_fast(raw)
    if fast is not None:
        assert fast == patient.read(raw)
    return fast is not None


def made(uid, *, folder="INBOX", profile="small"):
    return synthesise(seed=7, address="ann@a.example", folder=folder, uid=uid, profile=profile)


# --- two readers, one meaning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_both_readers_say_the_same_of_synthetic_mail_and_the_fast_one_reads_nearly_all_of_it(profile):
    taken = [agree(made(uid, profile=profile)) for uid in range(1, 150)]
    assert sum(taken) >= 0.97 * len(taken)


def test_both_readers_say_the_same_with_either_line_end():
    for uid in range(1, 60):
        raw = made(uid)
        agree(raw.replace(b"\r\n", b"\n"))


_PIECES = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"--", b";", b'"', b"=", b"=\r\n", b"=0D\r\n", b"\xc3\xa9", b"\0", b":", b"(",
    b"<", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"From ", b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Type: text/plain; charset=utf-16\r\n", b"Content-Type: message/rfc822\r\n",
    b"Content-Disposition: attachment; filename*0=a; filename*1=b\r\n",
    b"Content-Type: multipart/digest; boundary=b\r\n",
)  # fmt: skip


def mutated(chance, raw):
    """A message with something changed in its header or at a boundary, where meaning is decided."""
    lines = raw.splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.startswith(b"--") or line[:8].lower() == b"content-"]
    at = chance.choice(places) if places and chance.random() < 0.6 else chance.randrange(len(lines))
    line = lines[at]
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(chance.randrange(len(lines)), line)
        case 2:
            lines.insert(at, chance.choice(_PIECES))
        case 3:
            cut = chance.randrange(len(line) + 1)
            lines[at] = line[:cut] + chance.choice(_PIECES) + line[cut:]
        case 4:
            del lines[at:]
        case _:
            cut = chance.randrange(len(line))
            lines[at] = line[:cut] + bytes([chance.randrange(256)]) + line[cut + 1 :]
    return b"".join(lines) or b"\r\n"


@pytest.mark.parametrize("seed", range(4))
def test_both_readers_say_the_same_of_spoilt_mail(seed):
    chance = Random(seed)
    sources = [raw for uid in range(1, 80) if len(raw := made(uid + 100 * seed)) < 20_000]
    taken = 0
    for _ in range(400):
        raw = chance.choice(sources)
        raw = spoil(chance.choice(sorted(GARBLES)), raw) if chance.random() < 0.15 else raw
        for _ in range(chance.randint(1, 3)):
            raw = mutated(chance, raw)
        taken += agree(raw)
    # Otherwise the comparison says nothing.
    assert taken > 80


_TEXTS = st.text(st.sampled_from("aZ9 \t\n.=-_éßж中😀"), max_size=80)
_CHARSETS = st.sampled_from(
    ["utf-8", "UTF-8", "iso-8859-1", "windows-1252", "utf-16", "gb18030", "koi8-r", "us-ascii", "nope"]
)
_NAMES = st.sampled_from(
    [
        "",
        '; filename="a.txt"',
        "; filename=b.bin",
        '; filename="x;y.txt"',
        '; filename="a\\"b"',
        "; filename*=utf-8''%e2%82%ac.pdf",
        '; filename="=?utf-8?b?w6Q=?=.pdf"',
        ';\r\n filename="folded name.doc"',
    ]
)


@st.composite
def leaves(draw):
    charset = draw(_CHARSETS)
    data = draw(_TEXTS).encode("utf-8" if charset == "nope" else charset, "replace").replace(b"\n", b"\r\n")
    encoding = draw(st.sampled_from(["7bit", "8bit", "", "base64", "quoted-printable", "BASE64", "x-uuencode"]))
    if encoding.lower() == "base64":
        data = base64.encodebytes(data).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        data = quopri.encodestring(data)
    kind = draw(st.sampled_from(["text/plain", "TEXT/HTML", "image/png", "message/rfc822", "application/x"]))
    head = f'Content-Type: {kind}; charset="{charset}"\r\n'
    if encoding:
        head += f"Content-Transfer-Encoding: {encoding}\r\n"
    if draw(st.booleans()):
        head += (
            f"Content-Disposition: {draw(st.sampled_from(['inline', 'attachment', 'ATTACHMENT']))}{draw(_NAMES)}\r\n"
        )
    if draw(st.booleans()):
        head += "Content-ID: <1@x>\r\n"
    return head.encode() + b"\r\n" + data


def multipart(subtype, boundary, parts, ends):
    delimiter = b"--" + boundary.encode()
    body = b"preamble\r\n" * (ends % 2) + b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts)
    head = f'Content-Type: multipart/{subtype};\r\n\tboundary="{boundary}"\r\n\r\n'.encode()
    return head + body + (delimiter + b"--" + b" \t\r\nepilogue\r\n" if ends else delimiter + b"--\r\n")


_TREES = st.recursive(
    leaves(),
    lambda inner: st.builds(
        multipart,
        st.sampled_from(["mixed", "alternative", "related", "digest"]),
        st.sampled_from(["b", "bb", "c", "=_x'()+_,-./:=?"]),
        st.lists(inner, max_size=3),
        st.integers(0, 3),
    ),
    max_leaves=6,
)


@given(_TREES)
@example(b"Content-Type: text/plain\r\n\r\n")
@example(b"\r\nno header")
@example(b"")
def test_both_readers_say_the_same_of_any_tree_of_parts(tree):
    agree(b"Subject: tree\r\nMIME-Version: 1.0\r\n" + tree)
    agree(tree)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b--\n", "one\ntwo"),
        (b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--bb\n--b--x\n--b--\nend\n", "--bb\n--b--x"),
        (b"Content-Type: multipart/mixed; boundary=b\n\n--b  \t\n\none\n--b--  \n", "one"),
        (b"Content-Type: multipart/mixed; boundary=b\n\npreamble --b\n\n--b\n\none\n--b--", "one"),
        (b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nZ3I=\nIQ==\n", None),
    ],
)
def test_the_edges_of_parts_are_where_the_standard_library_sees_them(raw, text):
    for each in (raw, raw.replace(b"\n", b"\r\n")):
        agree(each)
        if text is not None:
            assert read_fast(each).text == text


# --- fields ---------------------------------------------------------------------------------------------------------

_ATOMS = st.text("abcXYZ019!#$&'*+-/=?^_`{|}~", min_size=1, max_size=8)
_BARE = st.builds("{}@{}.example".format, st.lists(_ATOMS, min_size=1, max_size=3).map(".".join), _ATOMS)
_MAILBOXES = st.one_of(
    _BARE,
    _BARE.map("<{}>".format),
    st.builds("{} <{}>".format, st.lists(_ATOMS, min_size=1, max_size=3).map(" ".join), _BARE),
    st.builds('"{}" <{}>'.format, st.text("ab ,.;:<>@()\u00e9", max_size=9), _BARE),
    st.builds('"a \\"b\\" c" <{}>'.format, _BARE),
    st.builds("{} (Robert Hill)".format, _BARE),
)


@given(st.lists(_MAILBOXES, min_size=1, max_size=5).map(", ".join))
def test_plain_lists_of_addresses_are_read_as_the_standard_library_reads_them(value):
    found = fields._plain_addresses(value)
    assert found is not None
    assert found == [address for _, address in getaddresses([value])]


@given(st.text('ab@.<>,;:"()\\ \t', max_size=30))
def test_a_list_of_addresses_that_is_not_plain_is_left_to_the_standard_library(value):
    value = value.strip()
    found = fields._plain_addresses(value)
    if found is not None:
        # A comma at the end says nothing (RFC 5322 section 4.4); from 3.13 on the standard library minds it.
        assert found == [address for _, address in getaddresses([value.removesuffix(",")]) if address]


@given(
    st.datetimes(datetime(1971, 1, 2), datetime(2070, 1, 1)),  # noqa: DTZ001  # the zone is drawn beside it
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["", " (CET)"]),
)
def test_plain_dates_are_read_as_the_standard_library_reads_them(moment, offset, comment):
    zone = timezone(timedelta(minutes=offset))
    value = format_datetime(moment.replace(microsecond=0, tzinfo=zone)) + comment
    assert fields.date(value) == fields._odd_date(value)
    assert fields.date(value.partition(", ")[2]) == fields._odd_date(value)


@pytest.mark.parametrize(
    "value", ["Mon, 31 Feb 2024 10:00:00 +0000", "Mon, 01 Jan 2024 24:00:00 +0000", "1 Jan 24 1:1 Z"]
)
def test_an_odd_date_is_what_the_standard_library_makes_of_it(value):
    assert fields.date(value) == fields._odd_date(value)


_ENCODED = st.builds(
    lambda text, charset, kind: (
        f"=?{charset}?b?{base64.b64encode(text.encode(charset)).decode()}?="
        if kind == "b"
        else f"=?{charset}?Q?{''.join(f'={byte:02X}' for byte in text.encode(charset))}?="
    ),
    st.text("aé ß_", min_size=1, max_size=12),
    st.sampled_from(["utf-8", "iso-8859-1", "ISO-8859-15"]),
    st.sampled_from("bq"),
)


@given(
    st.lists(_ENCODED | st.text("abc ", min_size=1, max_size=6), min_size=1, max_size=5).map(" ".join).map(str.strip)
)
def test_encoded_words_are_read_as_the_standard_library_reads_them(value):
    pieces = [
        piece.decode(charset or "ascii") if isinstance(piece, bytes) else piece
        for piece, charset in decode_header(value)
    ]
    decoder = texts.Decoder()
    assert decoder.words(value) == "".join(pieces)
    assert not decoder.broken


@pytest.mark.parametrize(
    ("value", "text", "broken"),
    [
        ("=?utf-8?q?what?_yes?=", "what? yes", False),
        ("=?utf-8*en?q?hi?=", "hi", False),
        ("=?utf-8?b?a?= =?utf-8?b?w6Q=?=", "=?utf-8?b?a?=ä", True),
        ("=?utf-8?b?w6Q?=", "ä", False),
        ("\\u0041 =?utf-8?q?b?=", "\\u0041 b", False),
        ("=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä", False),
        ("=?nope?q?=C3=A4?=", "ä", True),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?=", False),
    ],
)
def test_odd_encoded_words_are_read_as_people_meant_them(value, text, broken):
    decoder = texts.Decoder()
    assert (decoder.words(value), decoder.broken) == (text, broken)


def test_no_module_is_imported_because_a_mail_names_it():
    decoder = texts.Decoder()
    assert decoder.text(b"x", "antigravity") == "x"
    assert decoder.broken
    import sys  # noqa: PLC0415  # what it has loaded now

    assert "antigravity" not in sys.modules
    assert "encodings.antigravity" not in sys.modules


def test_threads_and_answers_are_read():
    parsed = parse(
        b"In-Reply-To: <2@x.org> (yesterday)\nReferences: <1@x.org>\n\t<2@x.org>\nReply-To: Office <o@x.org>, p@x.org\n"
        b"Bcc: hidden@x.org\n\nx"
    )
    assert (parsed.in_reply_to, parsed.references) == ("<2@x.org>", ("<1@x.org>", "<2@x.org>"))
    assert (parsed.reply_to, parsed.bcc) == (("o@x.org", "p@x.org"), ("hidden@x.org",))


def test_a_message_within_the_message_is_the_bytes_that_came():
    inner = (
        b"From x\r\nsubject:  odd   spaces\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nhi\r\n--c--"
    )
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n%b\r\n--b--\r\n"
    for broken in (b"", b"Odd: a\r b\r\n"):
        (part,) = parse(broken + raw % inner).attachments
        assert (part.data, part.content_type) == (inner, "message/rfc822")


@pytest.mark.parametrize("kind", ["/", "text", "a/b\r\n c/d", "a/b/c", "text/plain\x00", "x/" + "y" * 200])
def test_a_type_that_is_none_is_never_passed_on(kind):
    raw = f"Content-Type: {kind}\r\nContent-Disposition: attachment; filename=a\r\n\r\nx".encode()
    (part,) = parse(raw).attachments
    assert part.content_type in {"application/octet-stream", "text/plain"}


# --- hostile mail ---------------------------------------------------------------------------------------------------

_MULTIPART = b"Content-Type: multipart/mixed; boundary=b\n\n"
HOSTILE = {
    "fields": lambda n: b"a:\n" * (n // 3),
    "parts": lambda n: _MULTIPART + b"--b\n\nx\n" * (n // 7) + b"--b--\n",
    "boundaries": lambda n: _MULTIPART + b"--b\n" * (n // 4),
    "nearly boundaries": lambda n: _MULTIPART + b"--b\n\n" + b"--bb\n" * (n // 5) + b"--b--",
    "one boundary in itself": lambda n: (_MULTIPART + b"--b\n") * (n // 46),
    "levels": lambda n: b"".join(_MULTIPART.replace(b"=b", b"=b%d" % i) + b"--b%d\n" % i for i in range(n // 55)),
    "lines below open levels": lambda n: (
        b"".join(_MULTIPART.replace(b"=b", b"=b%dx" % i) + b"--b%dx\n" % i for i in range(40))
        + b"\n"
        + b"x\n" * (n // 2)
    ),
    "words without an end": lambda n: b"Subject: " + b"=?a?q? " * (n // 7) + b"\n\n",
    "half words": lambda n: b"Subject: " + b"=?" * (n // 2) + b"\n\n",
    "semicolons": lambda n: b"Content-Type: text/plain" + b";" * n + b"\n\n",
    "quotes": lambda n: b'Content-Type: text/plain; a="' + b'\\"' * (n // 2) + b"\n\n",
    "continued names": lambda n: (
        b"Content-Disposition: attachment" + b"".join(b";\n filename*%d=a" % i for i in range(n // 16)) + b"\n\n"
    ),
    "brackets": lambda n: b"To: " + b"(" * n + b"\n\n",
    "comments": lambda n: b"To: " + b"(a)" * (n // 3) + b"\n\n",
    "angles": lambda n: b"To: " + b"<" * n + b"\n\n",
    "addresses without commas": lambda n: b"To: " + b"a@b " * (n // 4) + b"\n\n",
    "commas": lambda n: b"To: " + b"," * n + b"\n\n",
    "ids": lambda n: b"References: <" + b"a@" * (n // 2) + b"\n\n",
    "slashes": lambda n: b"Content-Disposition: attachment; filename=" + b"/" * n + b"\n\n",
    "returns": lambda n: b"Subject: x\n\n" + b"\r" * n,
    "uuencoded": lambda n: b"Content-Transfer-Encoding: uuencode\n\nbegin 644 x\n" + b"x\n" * (n // 2),
}


def cpu_s(raw):
    begun = time.process_time()
    parse(raw)
    return time.process_time() - begun


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_mail_costs_what_it_weighs(kind):
    """Eight times the mail is far from 64 times the work: a ratio, so that the machine does not matter."""
    small, large = HOSTILE[kind](25_000), HOSTILE[kind](200_000)
    unit = max(min(cpu_s(small) for _ in range(3)), 0.004)
    assert min(cpu_s(large) for _ in range(2)) < 24 * unit


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (b"a: b\n" * (patient.FIELDS_MAX + 5) + b"\nbody", patient.FIELDS_MAX),
        (b"a: b\r" * (patient.FIELDS_MAX + 5) + b"\rbody", patient.FIELDS_MAX),
        (_MULTIPART + b"--b\n\nx\n" * (patient.PARTS_MAX + 1) + b"--b--\n", 1),
        (_MULTIPART + b"--b\n\nx\n" * (patient.PARTS_MAX + 1) + b"--b\n", 1),
    ],
)
def test_beyond_the_limits_a_message_is_a_header_and_a_text(raw, count):
    parsed = parse(raw)
    assert parsed.broken
    assert len(parsed.headers) == count
    assert not parsed.attachments
    assert parsed.text


def test_up_to_the_limits_all_of_a_message_is_read():
    parsed = parse(_MULTIPART + b"--b\n\nx\n" * (patient.PARTS_MAX - 1) + b"--b--\n")
    assert not parsed.broken
    assert parsed.text.count("x") == patient.PARTS_MAX - 1


def test_more_encoded_words_than_anybody_needs_are_left_as_they_came():
    words = " ".join(["=?utf-8?q?a?="] * 1001)
    parsed = parse(f"Subject: {words}\n\n".encode())
    assert (parsed.subject, parsed.broken) == (words, True)
