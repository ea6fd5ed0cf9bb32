"""Responses as values: an independent reading of RFC 3501's grammar, so that no server judges itself.

Owns: atoms (bytes), numbers (as bytes), strings (bytes), lists (list), NIL (None), FETCH items by name.
Never: does I/O.
Called by: raw_imap.
"""

from __future__ import annotations

import re
from typing import Any

_ATOM = re.compile(rb"[^ ()\"\r\n\[\]]+(?:\[[^\]]*\])?(?:<[0-9.]+>)?|\[[^\]]*\]")
_QUOTED = re.compile(rb'"((?:[^"\\\r\n]|\\.)*)"')
_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n")
_ITEM = re.compile(rb"([A-Za-z0-9.]+(?:\[(?:[^\]\"]|\"[^\"]*\")*\])?(?:<\d+>)?) ")


class GrammarError(AssertionError):
    """A response that RFC 3501 section 9 has no rule for."""


class Quoted(bytes):
    """A string that came in quotes: the word NIL in quotes is not NIL."""

    __slots__ = ()


def values(data: bytes) -> list[Any]:
    """All values of a response."""
    found, at = [], 0
    while at < len(data):
        value, at = _value(data, at)
        found.append(value)
        at = _space(data, at)
    return found


def fetched(data: bytes) -> dict[bytes, Any]:
    """The items of one FETCH response by name, in upper case: the parenthesised list behind ``FETCH``."""
    if not data.startswith(b"(") or not data.endswith(b")"):
        raise GrammarError(f"not a list: {data!r}")
    items: dict[bytes, Any] = {}
    at, end = 1, len(data) - 1
    while at < end:
        name = _ITEM.match(data, at)
        if name is None:
            raise GrammarError(f"no item at {at}: {data!r}")
        if name[1].upper() in items:
            raise GrammarError(f"{name[1]!r} twice: {data!r}")
        items[name[1].upper()], at = _value(data, name.end())
        at = at if at == end else _space(data, at)
    return items


def _value(data: bytes, at: int) -> tuple[Any, int]:
    if data.startswith(b"(", at):
        return _list(data, at + 1)
    if quoted := _QUOTED.match(data, at):
        return Quoted(re.sub(rb"\\(.)", rb"\1", quoted[1])), quoted.end()
    if literal := _LITERAL.match(data, at):
        end = literal.end() + int(literal[1])
        return Quoted(data[literal.end() : end]), end
    if atom := _ATOM.match(data, at):
        return (None if atom[0].upper() == b"NIL" else atom[0]), atom.end()
    raise GrammarError(f"no value at {at}: {data!r}")


def _list(data: bytes, at: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while not data.startswith(b")", at):
        value, at = _value(data, at)
        found.append(value)
        # The bodies of a multipart stand side by side without a space (RFC 3501 section 9, body-type-mpart).
        if not data.startswith((b")", b"("), at):
            at = _space(data, at)
    return found, at + 1


def _space(data: bytes, at: int) -> int:
    if at < len(data) and data[at : at + 1] != b" ":
        raise GrammarError(f"no space at {at}: {data!r}")
    return at + 1
