"""Mail as a function: message = f(seed, address, folder, uid), the same bytes on every machine. Pure.

Owns: what seeded mail looks like and how large it is. Never does: I/O, ``random``, clocks, the locale; it holds no
message, so that a mailbox of a million costs no more than one of ten.
Called by: mailbox (folders hold the name of a message, not the message).

    source      Source: raw, header, size, received, flags and facts of a UID
    layouts     which UID is what kind of mail, and answers which
    headers     Received, Date, Message-ID, Subject, what programs add;  people: senders and recipients
    plans       what bodies are made of: bodies, special, broken, attachments, put together by parts
    pools       the text and the noise that bodies are cut from, made once per seed;  words: the languages
    profiles    how large messages are;  encodings, draws, flags: tools and tables
"""

from __future__ import annotations

import functools

from fakemail.synthesis.draws import name_hash
from fakemail.synthesis.headers import FIRST_DAY
from fakemail.synthesis.profiles import PROFILES, Profile
from fakemail.synthesis.source import Facts, Source

__all__ = ["FIRST_DAY", "PROFILES", "Facts", "Profile", "Source", "name_hash", "synthesise"]


def synthesise(*, seed: int, address: str, folder: str, uid: int, profile: str = "small") -> bytes:
    """The message of this name: the same bytes in every process, on every machine, in any order."""
    return _source(seed, address, folder, profile).raw(uid)


@functools.lru_cache(maxsize=64)
def _source(seed: int, address: str, folder: str, profile: str) -> Source:
    return Source(seed=seed, address=address, folder=folder, profile=profile)
