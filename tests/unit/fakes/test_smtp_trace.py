"""Return-Path and Received."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest

from fakemail.smtp_server.trace import Way, trace_fields, with_protocol

WAY = Way(
    hello="client.test",
    peer="192.0.2.1",
    hostname="mx.test",
    protocol="ESMTPS",
    connection=7,
    received=datetime(2024, 2, 29, 12, 0, 5, tzinfo=UTC),
)


def test_both_fields_are_fields():
    parsed = message_from_bytes(trace_fields("bob@x.test", WAY) + b"\r\n", policy=policy.default)
    assert parsed["Return-Path"] == "<bob@x.test>"
    assert parsed["Received"] == (
        "from client.test ([192.0.2.1])\tby mx.test with ESMTPS id 7;\tThu, 29 Feb 2024 12:00:05 +0000"
    )
    assert parsed.defects == []


def test_an_address_of_ipv6_says_so():
    """RFC 5321 section 4.1.3."""
    way = Way(**{**{name: getattr(WAY, name) for name in WAY.__dataclass_fields__}, "peer": "2001:db8::1"})
    assert b"([IPv6:2001:db8::1])" in trace_fields("", way)


def test_a_bounce_returns_to_nobody():
    assert trace_fields("", WAY).startswith(b"Return-Path: <>\r\n")


@pytest.mark.parametrize("hello", ["a\r\nEvil: x", "a(b)c", "a\\b", "\x00", "\udcff"])
def test_what_a_client_calls_itself_stays_in_its_place(hello):
    way = Way(**{**{name: getattr(WAY, name) for name in WAY.__dataclass_fields__}, "hello": hello})
    wire = trace_fields("bob@x.test", way)
    assert wire.count(b"\r\n") == 4
    assert wire.replace(b"\r\n", b"").find(b"\n") < 0
    assert b"?" in wire


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ((False, False, False, False), "SMTP"),
        ((True, False, False, False), "ESMTP"),
        ((True, False, True, False), "ESMTPS"),
        ((True, False, False, True), "ESMTPA"),
        ((True, False, True, True), "ESMTPSA"),
        ((True, True, False, False), "UTF8SMTP"),
        ((True, True, True, True), "UTF8SMTPSA"),
    ],
)
def test_the_protocol_has_the_name_of_its_rfc(facts, name):
    extended, smtputf8, tls, login = facts
    assert with_protocol(extended=extended, smtputf8=smtputf8, tls=tls, login=login) == name
