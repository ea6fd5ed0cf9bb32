"""Folder names on the wire: modified UTF-7 (RFC 3501 section 5.1.3). Pure. Called by the commands that name folders."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

_ENCODED: Final = re.compile(r"&([A-Za-z0-9+,]*)-")
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")


def encode(name: str) -> str:
    """The name in printable ASCII."""

    def shifted(match: re.Match[str]) -> str:
        data = base64.b64encode(match[0].encode("utf-16-be", errors="surrogatepass")).rstrip(b"=")
        return f"&{data.decode('ascii').replace('/', ',')}-"

    return re.sub(r"[^\x20-\x7e]+", shifted, name.replace("&", "&-"))


def decode(name: str) -> str:
    """The name that was meant.

    Raises:
        ValueError: it is no modified UTF-7, or not the one form that a name may have.
    """
    if not _PLAIN.fullmatch(name):
        # Eight-bit names: what a client means that knows no UTF-7; UTF-8 came in as text already.
        if any("\udc80" <= each <= "\udcff" for each in name):
            raise ValueError(f"{name!r} is neither modified UTF-7 nor UTF-8")
        return name
    text = _ENCODED.sub(_unshifted, name)
    if "&" in _ENCODED.sub("", name) or encode(text) != name:
        raise ValueError(f"{name!r} is no modified UTF-7")
    return text


def _unshifted(match: re.Match[str]) -> str:
    if not match[1]:
        return "&"
    data = match[1].replace(",", "/")
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True).decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError) as err:
        raise ValueError(f"{match[0]!r} is no modified UTF-7") from err
