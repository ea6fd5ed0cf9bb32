"""The SMTP reader: what it finds does not depend on how the bytes arrive."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakemail.smtp_server.reader import BARE, LINE_BYTES_MAX, OVERSIZE, TOO_LONG, Reader

LIMIT = 10_000
#: Bytes of which ends and dots are made, so that they come often.
tricky = st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\x00", b"\r\n.", b"\r\n..", b"\n.\n"])).map(
    b"".join
)


def pieces(data, cuts):
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def message(reader, parts, *, limit=LIMIT):
    reader.start_message(limit=limit)
    found = reader.message()
    for part in parts:
        assert found is None, "it ended too early"
        reader.feed(part)
        found = reader.message()
    return found


def slow_message(wire):
    """RFC 5321 section 4.5.2 by the letter: line by line; (message, rest), or None without an end."""
    lines, rest = [], wire
    while True:
        line, end, behind = rest.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            return b"".join(lines), behind
        lines.append(line.removeprefix(b".") + end)
        rest = behind


def stuffed(raw):
    return re.sub(rb"(\A|\r\n)\.", rb"\1..", raw) + b".\r\n"


@given(tricky, st.lists(st.integers(0, 200)))
@example(b".", [])
@example(b"\r\n.\r\n", [])
@example(b"", [])
def test_property_a_message_comes_back_from_any_pieces(text, cuts):
    raw = text if not text or text.endswith(b"\r\n") else text + b"\r\n"
    assert message(Reader(), pieces(stuffed(raw), cuts)) == raw


@given(tricky, st.lists(st.integers(0, 200)))
def test_property_the_fast_way_and_the_letter_of_the_rfc_agree(text, cuts):
    expected = slow_message(text)
    reader = Reader()
    reader.start_message(limit=LIMIT)
    found = reader.message()
    for part in pieces(text, cuts):
        reader.feed(part)
        if found is None:
            found = reader.message()
    if expected is None:
        assert found is None
    else:
        assert found == expected[0]
        assert reader.pending_bytes == len(expected[1])
        reader.feed(b"")
        reader.start_chunk(len(expected[1]), limit=LIMIT)
        assert reader.chunk() == expected[1]


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.integers(0, 200)))
def test_property_lines_come_back_from_any_pieces(texts, cuts):
    lines = [re.sub(rb"[\r\n]", b"-", text) for text in texts]
    reader, found = Reader(), []
    for part in pieces(b"".join(line + b"\r\n" for line in lines), cuts):
        reader.feed(part)
        while (line := reader.line()) is not None:
            found.append(line)
    assert found == lines
    assert reader.pending_bytes == 0


@given(tricky, st.lists(st.integers(0, 200)))
def test_property_lines_of_nonsense_are_the_same_in_any_pieces(text, cuts):
    def read(parts):
        reader, found = Reader(), []
        for part in parts:
            reader.feed(part)
            while (line := reader.line()) is not None:
                found.append(line)
        return found, reader.pending_bytes

    assert read(pieces(text, cuts)) == read([text])


@given(st.binary(max_size=60), st.integers(0, 60), st.lists(st.integers(0, 200)))
def test_property_a_chunk_is_so_many_octets_whatever_they_are(data, size, cuts):
    size = min(size, len(data))
    reader = Reader()
    reader.start_chunk(size, limit=LIMIT)
    found = reader.chunk()
    for part in pieces(data, cuts):
        reader.feed(part)
        if found is None:
            found = reader.chunk()
    assert found == data[:size]
    assert reader.pending_bytes == len(data) - size


@pytest.mark.parametrize("wire", [b"a\n", b"\n", b"a\rb\r\n", b"\r\r\n", b"a\r\r\n"])
def test_a_line_ends_with_cr_lf_and_holds_neither_by_itself(wire):
    reader = Reader()
    reader.feed(wire + b"next\r\n")
    assert reader.line() is BARE
    assert reader.line() == b"next"


def test_a_line_may_be_as_long_as_the_longest_verb_allows():
    reader = Reader()
    reader.feed(b"x" * (LINE_BYTES_MAX - 2) + b"\r\n")
    assert reader.line() == b"x" * (LINE_BYTES_MAX - 2)
    reader.feed(b"x" * (LINE_BYTES_MAX - 1) + b"\r\nnext\r\n")
    assert reader.line() is TOO_LONG
    assert reader.line() == b"next"


def test_a_line_without_end_is_not_kept():
    reader = Reader()
    for _ in range(1_000):
        reader.feed(b"x" * 10_000)
        assert reader.line() is None
        assert reader.pending_bytes < 2 * LINE_BYTES_MAX
    reader.feed(b"\r\nnext\r\n")
    assert reader.line() is TOO_LONG
    assert reader.line() == b"next"


@pytest.mark.parametrize("size", [98, 99, 100, 101, 102, 150, 500])
@pytest.mark.parametrize("step", [1, 7, 1_000])
def test_a_message_is_kept_up_to_its_limit(size, step):
    raw = b"x" * (size - 2) + b"\r\n"
    found = message(Reader(), [stuffed(raw)[at : at + step] for at in range(0, size + 3, step)], limit=100)
    assert found == (raw if size <= 100 else OVERSIZE)


def test_what_is_refused_for_its_size_is_not_kept():
    reader = Reader()
    reader.start_message(limit=1_000)
    for _ in range(1_000):
        reader.feed(b"x" * 10_000)
        assert reader.message() is None
        assert sum(map(len, reader._pieces)) < 20_000
    reader.feed(b"\r\n.\r\nNOOP\r\n")
    assert reader.message() is OVERSIZE
    assert reader.line() == b"NOOP"
    assert message(reader, [b"x\r\n.\r\n"]) == b"x\r\n"


def test_dots_at_the_limit_are_counted_without_their_stuffing():
    raw = b".\r\n" * 100
    assert message(Reader(), [stuffed(raw)], limit=300) == raw
    assert message(Reader(), [stuffed(raw)], limit=299) is OVERSIZE


def test_a_chunk_beyond_the_limit_is_read_to_its_end():
    reader = Reader()
    reader.start_chunk(10, limit=9)
    reader.feed(b"0123456789NOOP\r\n")
    assert reader.chunk() is OVERSIZE
    assert reader.line() == b"NOOP"


def test_a_chunk_of_nothing_is_there_at_once():
    reader = Reader()
    reader.start_chunk(0, limit=LIMIT)
    assert reader.chunk() == b""


def test_what_came_before_tls_is_forgotten():
    reader = Reader()
    reader.feed(b"x" * 20_000)
    assert reader.line() is None
    reader.clear()
    reader.feed(b"NOOP\r\n")
    assert reader.line() == b"NOOP"


def test_how_much_of_a_body_has_come_is_known_at_any_time():
    reader = Reader()
    reader.start_message(limit=LIMIT)
    for part, come in ((b"abc", 3), (b"..", 5), (b"\r\n", 7)):
        reader.feed(part)
        assert reader.message() is None
        assert reader.body_bytes == come
