"""HTML and SVG, built so that text can't become markup.

Rule 1: ``element`` escapes every child and every attribute's value; only ``Markup`` goes in as it is.
Rule 2: ``Markup(...)`` around anything but a literal or another function's result of this module is a defect.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final, TypeAlias

from mailrig.report.words import clean

#: HTML elements without an end tag, and SVG shapes that are written without one.
_VOID: Final = frozenset({"meta", "link", "br"})
_SHAPES: Final = frozenset({"rect", "line", "circle", "path"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = str | int | Iterable["Child"] | None


def escape(text: object) -> Markup:
    """Text as markup, harmless also inside quotes."""
    return Markup(html.escape(clean(text, limit=None), quote=True))


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """``<name attributes>children</name>``.

    Attributes: ``class_`` is class, ``_`` becomes ``-``; None and False leave one out, True writes its name alone.
    """
    start = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}"
    if name in _SHAPES:
        return Markup(f"{start}/>")
    if name in _VOID:
        return Markup(f"{start}>")
    return Markup(f"{start}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other; None is nothing, iterables are flattened."""
    return Markup("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return escape(child)
    return join(child)


def _attribute(key: str, value: str | float | bool | None) -> str:  # noqa: FBT001  # HTML has attributes without a value
    if value is None or value is False or (key == "class_" and not value):
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
    return f' {name}="{escape(text)}"'
