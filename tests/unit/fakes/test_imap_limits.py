"""Limits on what a client may send; what exceeds them is read past, and the connection goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imap_transcript import PASSWORD, SHORT, USER, Transcript, selected

from fakemail.imap_protocol import ImapOptions
from fakemail.imap_protocol.syntax import Continue, Framer, TooLong

SMALL = ImapOptions(line_bytes_max=200, literal_bytes_max=100)
TOOBIG = "BAD [TOOBIG] the literal is too long"


def client(options=SMALL):
    return Transcript(options=options)


# --- lines ---


def test_a_line_up_to_the_limit_is_taken_and_one_byte_more_is_not():
    imap = client()
    fits = f"1 LOGIN {USER} "
    imap.step(fits + "y" * (199 - len(fits)), "1 NO [AUTHENTICATIONFAILED] <any>")
    imap.step("2 NOOP " + "x" * 194, "2 BAD the line is too long")
    imap.step("3 NOOP", "3 OK <any>")


def test_a_line_without_an_end_takes_no_memory_and_is_answered_when_it_ends():
    imap = client()
    assert imap.send(b"1 NOOP ") == b""
    for _ in range(100):
        assert imap.send(b"x" * 1000) == b""
        assert imap.session.held_bytes < 1300
    assert imap.send(b"\r\n2 NOOP\r\n") == b"1 BAD the line is too long\r\n2 OK NOOP completed\r\n"


def test_a_line_too_long_that_announces_a_literal_is_read_past_with_it():
    imap = client()
    imap.step("1 NOOP " + "x" * 300 + " {10+}\r\n2 NOOP\r\nab more", "1 BAD the line is too long")
    imap.step("3 NOOP", "3 OK <any>")


def test_a_line_too_long_with_a_literal_that_waits_is_refused_instead_of_leave():
    imap = client()
    imap.step("1 NOOP " + "x" * 300 + " {10}", "1 BAD the line is too long")
    imap.step("2 NOOP", "2 OK <any>")


def test_a_line_too_long_without_a_tag_is_untagged_bad():
    imap = client()
    imap.step("x" * 300, "* BAD <any>")
    imap.step("+ " + "x" * 300, "* BAD <any>")


def test_a_line_too_long_ends_authenticate_and_idle():
    imap = client()
    imap.step("1 AUTHENTICATE PLAIN", "+ ")
    imap.step("x" * 300, "1 BAD the line is too long")
    imap.login().step("2 IDLE", "+ idling")
    imap.step("x" * 300, "2 BAD the line is too long")
    imap.step("3 NOOP", "3 OK <any>")


def test_the_text_of_a_command_has_a_limit_over_all_its_lines():
    imap = client()
    imap.login()
    imap.step("1 LIST {0+}\r\n " + "{0+}\r\n " * 40 + "*", "1 BAD the line is too long")
    imap.step("2 NOOP", "2 OK <any>")


# --- literals ---


def test_a_literal_up_to_the_limit_is_taken():
    imap = client().login()
    imap.step("1 APPEND INBOX {100+}\r\n" + "x" * 100, "1 OK <any>")
    imap.step("2 APPEND INBOX {100}", "+ <any>")
    imap.step("x" * 100, "2 OK <any>")


def test_a_literal_too_long_that_waits_is_refused_before_it_is_sent():
    imap = client().login()
    imap.step("1 APPEND INBOX {101}", f"1 {TOOBIG}")
    imap.step("2 APPEND INBOX {9999999999999999999}", f"2 {TOOBIG}")
    imap.step("3 NOOP", "3 OK <any>")


def test_a_literal_too_long_that_does_not_wait_is_read_past():
    imap = client().login()
    assert imap.send(b"1 APPEND INBOX {100000+}\r\n") == b""
    for _ in range(100):
        assert imap.send(b"2 NOOP\r\n" + b"x" * 992) == b""
        assert imap.session.held_bytes == 0
    assert imap.send(b" {3+}\r\nabc\r\n3 NOOP\r\n") == f"1 {TOOBIG}\r\n3 OK NOOP completed\r\n".encode()
    assert not imap.inbox.uids


def test_literals_have_a_limit_together():
    imap = client().login()
    imap.step("1 RENAME {60+}\r\n" + "x" * 60 + " {41+}\r\n" + "y" * 41, f"1 {TOOBIG}")
    imap.step("2 RENAME {60+}\r\n" + "x" * 60 + " {40+}\r\n" + "y" * 40, "2 NO [NONEXISTENT] <any>")


def test_before_login_a_literal_is_a_password_or_a_token_at_most():
    imap = client(ImapOptions())
    imap.step(f"1 LOGIN {USER} {{65536+}}\r\n" + "x" * 65536, "1 NO [AUTHENTICATIONFAILED] <any>")
    imap.step(f"2 LOGIN {USER} {{65537}}", f"2 {TOOBIG}")
    imap.login().step("3 APPEND INBOX {65537}", "+ <any>")


def test_a_literal_that_is_announced_within_a_line_is_none():
    imap = client().login()
    imap.step("1 CREATE {3}x", "1 BAD <any>")
    imap.step('2 CREATE "{3}"', "2 OK <any>")
    imap.step("3 CREATE {3 }", "3 BAD <any>")
    imap.step("4 CREATE {-3}", "4 BAD <any>")


def test_a_literal8_is_no_string():
    imap = client().login()
    imap.step("1 CREATE ~{3+}\r\nabc", "1 BAD <any>")
    imap.step("2 NOOP", "2 OK <any>")


# --- LITERAL+ switched off ---


def test_without_literal_plus_a_literal_that_does_not_wait_is_read_past_and_bad():
    imap = Transcript(off=["LITERAL+"])
    imap.step(f"1 LOGIN {USER} {{{len(PASSWORD)}+}}\r\n{PASSWORD}", "1 BAD a literal has to wait for leave")
    imap.step(f"2 LOGIN {USER} {{{len(PASSWORD)}}}", "+ <any>")
    imap.step(PASSWORD, "2 OK <any>")


# --- nesting and numbers ---


@pytest.mark.parametrize(
    "keys", ["(" * 33 + "ALL" + ")" * 33, "NOT " * 34 + "ALL", "OR ALL " * 5000 + "ALL", "(" * 60000]
)
def test_keys_may_be_nested_only_so_deep(keys):
    imap = selected(SHORT)
    imap.step(f"1 SEARCH {keys}", "1 BAD <any>")
    imap.step("2 NOOP", "2 OK <any>")


@pytest.mark.parametrize("keys", ["(" * 32 + "ALL" + ")" * 32, "NOT " * 32 + "ALL", "OR ALL " * 32 + "ALL"])
def test_keys_may_be_nested_as_deep_as_any_client_needs(keys):
    selected(SHORT).step(f"1 SEARCH {keys}", "* SEARCH 1", "1 OK <any>")


def test_keys_side_by_side_are_not_nested():
    selected(SHORT).step("1 SEARCH" + " ALL" * 5000, "* SEARCH 1", "1 OK <any>")


@pytest.mark.parametrize("number", ["4294967296", "99999999999999999999", "-1", "0x1", "1_0"])
def test_numbers_have_32_bits(number):
    imap = selected(SHORT)
    imap.step(f"1 SEARCH LARGER {number}", "1 BAD <any>")
    imap.step(f"2 UID FETCH {number} UID", "2 BAD <any>")
    imap.step(f"3 UID FETCH 1:{number} UID", "3 BAD <any>")


def test_the_largest_uid_can_be_named():
    selected(SHORT).step("1 UID FETCH 1:4294967295 UID", "* 1 FETCH (UID 1)", "1 OK <any>")


# --- the framer alone ---

PIECES = st.lists(
    st.sampled_from(
        [b"a", b" ", b"\r\n", b"\n", b"\r", b"{2}\r\n", b"{2+}\r\n", b"{0+}\r\n", b"{9+}\r\n", b"{", b"}", b"xyz" * 9]
    ),
    max_size=14,
).map(b"".join)


def framed(pieces, **limits):
    """All that a framer makes of these bytes."""
    framer = Framer(line_bytes_max=40, literal_bytes_max=8, **limits)
    found = []
    for piece in pieces:
        framer.feed(piece)
        while (command := framer.command()) is not None:
            found.append(command)
        assert framer.held_bytes <= 48 + 32 + len(piece)
    return found


@given(PIECES, st.integers(0, 60), st.booleans())
def test_where_the_bytes_are_cut_makes_no_difference(data, at, literal_plus):
    whole = framed([data], literal_plus=literal_plus)
    assert framed([data[:at], data[at:]], literal_plus=literal_plus) == whole
    assert framed([bytes([byte]) for byte in data], literal_plus=literal_plus) == whole


@given(PIECES)
def test_no_command_is_larger_than_the_limits(data):
    commands = framed([data])
    assert all(len(command) <= 48 for command in commands if isinstance(command, bytes))
    assert {type(command) for command in commands} <= {bytes, Continue, TooLong}


def test_what_came_before_tls_is_forgotten_whatever_it_was():
    framer = Framer(line_bytes_max=40, literal_bytes_max=8)
    for data in (b"half a", b"1 x {9+}\r\n", b"1 " + b"x" * 100, b"1 x {5+}\r\nab"):
        framer.feed(data)
        framer.command()
        framer.clear()
        framer.feed(b"2 y\r\n")
        assert framer.command() == b"2 y"
        assert framer.held_bytes == 0
