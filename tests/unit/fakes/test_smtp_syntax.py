"""Paths and parameters of MAIL and RCPT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakemail.mime import field_value, header_block
from fakemail.smtp_server.handler import message_id
from fakemail.smtp_server.options import KEYWORDS
from fakemail.smtp_server.syntax import (
    NO_MAIL_PARAMETERS,
    NO_RECIPIENT_PARAMETERS,
    RefusedError,
    domain_of,
    parse_mail_parameters,
    parse_path,
    parse_recipient_parameters,
    plain,
)

ALL = frozenset(KEYWORDS)


def refusal(function, *arguments):
    with pytest.raises(RefusedError) as caught:
        function(*arguments)
    return caught.value.reply


GOOD = [
    "a@b", "a@b.test", "first.last+tag@sub.example.test", "!#$%&'*+-/=?^_`{|}~@x.test", "x@1.2.3", "x@a-b.test",
    '""@x.test', '" "@x.test', r'"a\"b"@x.test', r'"a\\"@x.test', '"a@b"@x.test', '"<>"@x.test', "ü@x.test",
    '"ü"@x.test', "x@ü.test", "用户@例子.广告", "x@[127.0.0.1]", "x@[IPv6:::1]", "x@[ipv6:2001:db8::1]", "x@[tag:text]",
    "x" * 900 + "@x.test",
]  # fmt: skip
BAD = [
    "", "a", "@", "a@", "@b", "a@@b", ".a@b", "a.@b", "a..b@c", "a@.b", "a@b.", "a@b..c", "a@-b", "a@b-", "a b@c",
    "a@b c", '"a@b', 'a"b@c', '"a"b@c', '"a\n"@b', "a@[1.2.3]", "a@[1.2.3.4.5]", "a@[IPv6:1.2.3.4]", "a@[IPv6:x]",
    "a@[]", "a@[nothing]", "a@[tag:]", "a@b_c", "a\udcff@b", "a@b\udcff", '"\udcff"@b', "a\x00@b", "a@b\x7f", "a,b@c",
    "a@b,c@d", "<a@b>", "a@b>",
]  # fmt: skip


@pytest.mark.parametrize("mailbox", GOOD)
@pytest.mark.parametrize("keyword", ["FROM:", "TO:"])
def test_a_mailbox_is_given_back_as_it_was_written(keyword, mailbox):
    assert parse_path(f"{keyword}<{mailbox}>", keyword) == (mailbox, "")
    assert parse_path(f"{keyword.lower()} <{mailbox}> SIZE=1  X", keyword) == (mailbox, " SIZE=1  X")


@pytest.mark.parametrize("mailbox", BAD)
def test_what_is_no_mailbox_is_refused(mailbox):
    assert refusal(parse_path, f"TO:<{mailbox}>", "TO:") == "501 5.1.3 Bad recipient address syntax"
    if mailbox:
        assert refusal(parse_path, f"FROM:<{mailbox}>", "FROM:") == "501 5.1.7 Bad sender address syntax"


@pytest.mark.parametrize(
    "text", ["FROM:a@b", "FROM:<a@b", "FROM:a@b>", "FROM:<a@b>x", "FROM:<a@b>\tSIZE=1", "FROM:< a@b>"]
)
def test_a_path_stands_in_angle_brackets(text):
    assert refusal(parse_path, text, "FROM:").startswith("501 5.1.7 ")


@pytest.mark.parametrize("text", ["", "FROM", "FROM <a@b>", "FROM :<a@b>", "TO:<a@b>", "<a@b>"])
def test_a_verb_has_its_keyword(text):
    assert refusal(parse_path, text, "FROM:") == "501 5.5.4 Syntax: MAIL FROM:<address> [SP parameters]"


@pytest.mark.parametrize("route", ["@a.test:", "@a.test,@b.test:", "@a,@b,@c:"])
def test_a_source_route_is_ignored(route):
    assert parse_path(f"TO:<{route}x@y.test>", "TO:") == ("x@y.test", "")


@pytest.mark.parametrize("route", ["a.test:", "@:", "@a.test", "@a.test,b.test:", "@a.test,:"])
def test_a_broken_source_route_is_refused(route):
    assert refusal(parse_path, f"TO:<{route}x@y.test>", "TO:").startswith("501 5.1.3 ")


def test_the_null_path_is_for_senders():
    assert parse_path("FROM:<>", "FROM:") == ("", "")
    assert parse_path("FROM:<> SIZE=1", "FROM:") == ("", " SIZE=1")
    assert refusal(parse_path, "FROM:<>x", "FROM:").startswith("501 ")
    assert refusal(parse_path, "TO:<>", "TO:").startswith("501 ")


def test_postmaster_is_for_recipients():
    assert parse_path("TO:<pOstmaster>", "TO:") == ("pOstmaster", "")
    assert refusal(parse_path, "FROM:<postmaster>", "FROM:").startswith("501 ")


def reply_or_result(function, *arguments):
    try:
        return "", function(*arguments)
    except RefusedError as err:
        return err.reply, None


@given(st.text(max_size=40))
def test_property_any_text_is_a_path_or_refused(text):
    for keyword in ("FROM:", "TO:"):
        for whole in (text, f"{keyword}{text}", f"{keyword}<{text}>", f"{keyword}<a@b.test> {text}"):
            reply, found = reply_or_result(parse_path, whole, keyword)
            if found is None:
                assert reply.startswith("501 5.")
            else:
                assert not {"\r", "\n", "\x00"} & set(found[0])


@given(st.text(max_size=60))
def test_property_any_text_is_parameters_or_refused(text):
    for parse in (parse_mail_parameters, parse_recipient_parameters):
        reply, found = reply_or_result(parse, text, ALL)
        assert found is not None or reply[:9] in {"501 5.5.4", "555 5.5.4"}
        assert reply.isascii()


@pytest.mark.parametrize(
    ("mailbox", "same"),
    [
        ('"ann"@x.test', "ann@x.test"),
        ('"a.b"@x.test', "a.b@x.test"),
        (r'"a\n\n"@x.test', "ann@x.test"),
        ('"a b"@x.test', '"a b"@x.test'),
        ('".a"@x.test', '".a"@x.test'),
        ('""@x.test', '""@x.test'),
        ('"a@b"@x.test', '"a@b"@x.test'),
        ("ann@x.test", "ann@x.test"),
        ("postmaster", "postmaster"),
    ],
)
def test_quotes_that_say_nothing_are_taken_away(mailbox, same):
    assert plain(mailbox) == same


@pytest.mark.parametrize(("mailbox", "domain"), [("a@B.Test", "b.test"), ('"a@b"@C', "c"), ("postmaster", "")])
def test_a_domain_is_what_follows_the_last_at(mailbox, domain):
    assert domain_of(mailbox) == domain


def test_no_parameters_cost_nothing():
    assert parse_mail_parameters("", ALL) is NO_MAIL_PARAMETERS
    assert parse_recipient_parameters("", ALL) is NO_RECIPIENT_PARAMETERS


def test_all_parameters_of_mail():
    text = " size=12345678901234567890 body=8bitmime SMTPUTF8 ret=full envid=a+2Bb auth=ann+40x.test"
    found = parse_mail_parameters(text, ALL)
    assert (found.size_bytes, found.body, found.smtputf8) == (12345678901234567890, "8BITMIME", True)
    assert (found.ret, found.envid, found.auth) == ("FULL", "a+b", "ann@x.test")
    assert parse_mail_parameters("AUTH=<>", ALL).auth == "<>"


def test_all_parameters_of_rcpt():
    found = parse_recipient_parameters(" notify=success,failure ORCPT=rfc822;a+2Bb", ALL)
    assert (found.notify, found.orcpt) == (("SUCCESS", "FAILURE"), "rfc822;a+b")


@pytest.mark.parametrize(
    ("parameter", "keyword"),
    [("SIZE=1", "SIZE"), ("BODY=7BIT", "8BITMIME"), ("SMTPUTF8", "SMTPUTF8"), ("RET=FULL", "DSN"), ("AUTH=<>", "AUTH")],
)
def test_a_parameter_is_known_where_its_keyword_was_offered(parameter, keyword):
    name = parameter.partition("=")[0]
    said = f"555 5.5.4 Parameter {name} not recognized or not offered"
    assert refusal(parse_mail_parameters, parameter, ALL - {keyword}) == said


HEADER_LINES = [b"Message-ID: <1@x>", b"message-id:<2@x>", b"MESSAGE-ID :  <3@x> ", b"Message-ID:", b"Subject: x",
    b" folded", b"\tfolded", b"X-Message-ID: <4@x>", b"Message-IDs: <5@x>", b"nonsense", b"", b"\xff"]  # fmt: skip
LINE_ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""]
headers = st.lists(st.tuples(st.sampled_from(HEADER_LINES), st.sampled_from(LINE_ENDS)).map(b"".join)).map(b"".join)


@given(headers)
def test_property_the_fast_message_id_is_the_same(raw):
    header = header_block(raw)
    assert message_id(header) == field_value(header, "message-id")
