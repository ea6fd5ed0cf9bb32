"""Building mail: pictures, threads and names; nothing that a value holds becomes a field of its own."""

import email
import email.policy
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from email_service.errors import InvalidRequestError
from email_service.message import InlinePart, OutgoingMessage, build, parse, parse_message_id

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
LOGO = InlinePart(content_id="logo@example.org", filename="logo.png", content_type="image/png", data=PNG)


def outgoing(**changes):
    fields = {
        "message_id": "<1@example.org>",
        "date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "mail_from": "ann@example.org",
        "to": ("bob@example.org",),
        "subject": "hello",
        "text": "text\n",
    }
    return OutgoingMessage(**{**fields, **changes})


def modern(raw):
    return email.message_from_bytes(raw, policy=email.policy.default)


def kinds(raw):
    return [part.get_content_type() for part in modern(raw).walk()]


# --- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_stand_beside_the_html_that_shows_them():
    raw = build(
        outgoing(
            html='<img src="cid:logo@example.org">',
            inline=(LOGO,),
            attachments=(("a.pdf", "application/pdf", b"%PDF"),),
        )
    )
    assert kinds(raw) == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    related = next(part for part in modern(raw).walk() if part.get_content_type() == "multipart/related")
    # RFC 2387 section 3.1: the type of the part that is shown.
    assert related.get_param("type") == "text/html"
    assert modern(raw).get_body(("related", "html")) is not None


def test_a_picture_is_parsed_back_with_its_id():
    (picture,) = parse(build(outgoing(html="<img>", inline=(LOGO,)))).attachments
    assert (picture.content_id, picture.inline, picture.filename, picture.content_type, picture.data) == (
        "logo@example.org",
        True,
        "logo.png",
        "image/png",
        PNG,
    )


def test_without_html_a_picture_is_attached():
    raw = build(outgoing(inline=(LOGO,)))
    assert kinds(raw) == ["multipart/mixed", "text/plain", "image/png"]


def test_angle_brackets_around_a_content_id_make_no_difference():
    plain = build(outgoing(html="x", inline=(LOGO,)))
    bracketed = InlinePart(content_id="<logo@example.org>", filename="logo.png", content_type="image/png", data=PNG)
    assert build(outgoing(html="x", inline=(bracketed,))) == plain


@pytest.mark.parametrize("content_id", ["", "a b", "a\r\nBcc: x", "<>", "a>b", "ä", "x" * 201])
def test_a_content_id_is_a_word(content_id):
    part = InlinePart(content_id=content_id, filename="a", content_type="image/png", data=b"")
    with pytest.raises(InvalidRequestError):
        build(outgoing(html="x", inline=(part,)))


# --- threads and names ----------------------------------------------------------------------------------------------


def test_an_answer_names_what_it_answers_and_the_thread():
    raw = build(
        outgoing(in_reply_to="<2@x.org>", references=("<1@x.org>", "<2@x.org>"), reply_to=("office@example.org",))
    )
    assert modern(raw)["In-Reply-To"] == "<2@x.org>"
    assert modern(raw)["References"] == "<1@x.org> <2@x.org>"
    assert modern(raw)["Reply-To"] == "office@example.org"
    parsed = parse(raw)
    assert (parsed.in_reply_to, parsed.references, parsed.reply_to) == (
        "<2@x.org>",
        ("<1@x.org>", "<2@x.org>"),
        ("office@example.org",),
    )


def test_an_answer_without_a_thread_begins_one():
    assert parse(build(outgoing(in_reply_to="<2@x.org>"))).references == ("<2@x.org>",)


def test_a_long_thread_keeps_its_beginning_and_its_end():
    ids = tuple(f"<{n}@x.org>" for n in range(500))
    found = parse(build(outgoing(references=ids))).references
    assert len(found) == 50
    assert (found[0], found[1:]) == (ids[0], ids[-49:])


@pytest.mark.parametrize(("text", "found"), [("<a@b>", "<a@b>"), ("a@b", "<a@b>"), (" <bare> ", "<bare>")])
def test_a_message_id_may_lack_its_brackets(text, found):
    assert parse_message_id(text) == found


@pytest.mark.parametrize("text", ["", "<>", "a b", "<a@b>\r\nBcc: x", "<a><b>", "<a@b\u2028>", "x" * 901])
def test_what_is_no_message_id_is_refused(text):
    with pytest.raises(InvalidRequestError):
        parse_message_id(text)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Ann", "Ann <ann@example.org>"),
        ("Ann B. Cole", '"Ann B. Cole" <ann@example.org>'),
        ("Cole, Ann", '"Cole, Ann" <ann@example.org>'),
        ("ceo@bank.example", '"ceo@bank.example" <ann@example.org>'),
        ("", "ann@example.org"),
        (None, "ann@example.org"),
    ],
)
def test_a_plain_name_is_shown_as_it_is(name, field):
    assert f"From: {field}\r\n".encode() in build(outgoing(from_name=name))


@given(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=120))
@example('Ann "the boss" \\ Cole')
@example("=?utf-8?q?x?=")
@example("  spaced  out ")
@example("x" * 300)
def test_a_name_is_parsed_back_and_never_moves_the_address(name):
    raw = build(outgoing(from_name=name))
    assert raw.isascii()
    (address,) = modern(raw)["From"].addresses
    assert (address.username, address.domain) == ("ann", "example.org")
    assert parse(raw).from_ == "ann@example.org"
    # Parsers normalise white space and drop what can't be shown; the letters are all there.
    letters = [each for each in name if each.isalnum()]
    assert [each for each in address.display_name if each.isalnum()] == letters
    assert max(map(len, raw.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 78


# --- injection ------------------------------------------------------------------------------------------------------

#: Everything that some parser takes for the end of a line, and what may stand before one.
_BREAKS = st.sampled_from([chr(c) for c in range(0x21)] + ["\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\u200b"])
_VALUE = st.lists(
    st.one_of(_BREAKS, st.sampled_from(["Bcc: eve@example.net", "a", ":", "<", ">", '"', "\\", "=?", "?=", "é", ";"])),
    max_size=8,
).map("".join)
_PLACES = st.sampled_from(
    [
        lambda value: {"subject": value},
        lambda value: {"from_name": value},
        lambda value: {"mail_from": f"ann{value}@example.org"},
        lambda value: {"to": (f"bob@example.org{value}",)},
        lambda value: {"cc": ("c@example.org", value)},
        lambda value: {"reply_to": (f"{value}@example.org",)},
        lambda value: {"in_reply_to": f"<{value}@x.org>"},
        lambda value: {"references": ("<1@x.org>", value)},
        lambda value: {"message_id": f"<{value}@example.org>"},
        lambda value: {"attachments": ((f"a{value}", "a/b", b"x"),)},
        lambda value: {"attachments": (("a", f"a/b{value}", b"x"),)},
        lambda value: {
            "html": "x",
            "inline": (InlinePart(content_id=value, filename="a", content_type="a/b", data=b""),),
        },
        lambda value: {
            "html": "x",
            "inline": (InlinePart(content_id="a", filename=value, content_type="a/b", data=b""),),
        },
        lambda value: {"text": value, "html": value},
    ]
)
_ALLOWED = {
    "from", "to", "cc", "reply-to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding",
}  # fmt: skip


@given(value=_VALUE, place=_PLACES)
def test_whatever_a_value_holds_no_parser_sees_a_field_of_its_own(*, value, place):
    """It is refused, or it stays what it was."""
    changes = place(value)
    try:
        raw = build(outgoing(**changes))
    except InvalidRequestError:
        return
    for parsed in (modern(raw), email.message_from_bytes(raw)):
        assert {name.lower() for name in parsed.keys()} <= _ALLOWED  # noqa: SIM118  # fields may be there twice
        assert len(parsed.keys()) == len({name.lower() for name in parsed.keys()})  # noqa: SIM118  # as above
        assert len(list(parsed.walk())) <= 5
    ours = parse(raw)
    assert {name.lower() for name, _ in ours.headers} <= _ALLOWED
    assert not ours.bcc
    assert ours.to[0].startswith("bob@example.")
    assert (len(ours.to), ours.from_.rpartition("@")[2]) == (1, "example.org")
    # Old programs end lines at these as well.
    head = raw.partition(b"\r\n\r\n")[0]
    assert not set(head.replace(b"\r\n", b"")) & set(b"\r\n\0\x0b\x0c\x1c\x1d\x1e\x85")


@pytest.mark.parametrize("mark", list("\r\n\0"))
@pytest.mark.parametrize("field", ["subject", "from_name", "in_reply_to"])
def test_a_line_break_or_a_nul_in_a_field_is_refused(field, mark):
    with pytest.raises(InvalidRequestError):
        build(outgoing(**{field: f"a{mark}Bcc: eve@example.net"}))


# --- size -----------------------------------------------------------------------------------------------------------


def test_a_message_to_many_is_folded_and_names_all_of_them():
    to = tuple(f"recipient-{n}@department-{n % 7}.example.org" for n in range(1000))
    raw = build(outgoing(to=to))
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert parse(raw).to == to


def test_only_an_address_beyond_ascii_makes_the_message_more_than_seven_bits():
    everything = outgoing(
        from_name="Jürgen", subject="Grüße", text="ä" * 2000, html="ö", inline=(LOGO,), attachments=(("ü", "a/b", PNG),)
    )
    assert build(everything).isascii()
    assert not build(outgoing(reply_to=("jürgen@example.org",))).isascii()
