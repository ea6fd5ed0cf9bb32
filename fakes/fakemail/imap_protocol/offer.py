"""Which capabilities a client is told of, and when (RFC 3501 section 7.2.1). Pure.

Called by: connection, auth, session, and serving for what can be switched off.
"""

from __future__ import annotations

from typing import Final

from fakemail.imap_protocol.context import NOT_AUTHENTICATED, Context

#: Capability -> where it is defined. In the order in which they are told.
ALWAYS: Final = {
    "IMAP4rev1": "RFC 3501",
    "LITERAL+": "RFC 7888",
    "SASL-IR": "RFC 4959",
    "ID": "RFC 2971",
    "ENABLE": "RFC 5161",
}
BEFORE_LOGIN: Final = {
    "STARTTLS": "RFC 3501 section 6.2.1, RFC 2595",
    "LOGINDISABLED": "RFC 3501 section 6.2.3",
    "AUTH=PLAIN": "RFC 4616",
    "AUTH=XOAUTH2": "Google and Microsoft",
    "AUTH=OAUTHBEARER": "RFC 7628",
}
AFTER_LOGIN: Final = {
    "IDLE": "RFC 2177",
    "NAMESPACE": "RFC 2342",
    "CHILDREN": "RFC 3348",
    "MULTIAPPEND": "RFC 3502",
    "BINARY": "RFC 3516",
    "UNSELECT": "RFC 3691",
    "UIDPLUS": "RFC 4315",
    "ESEARCH": "RFC 4731",
    "SEARCHRES": "RFC 5182",
    "SORT": "RFC 5256",
    "THREAD=ORDEREDSUBJECT": "RFC 5256",
    "THREAD=REFERENCES": "RFC 5256",
    "LIST-EXTENDED": "RFC 5258",
    "LIST-STATUS": "RFC 5819",
    "SPECIAL-USE": "RFC 6154",
    "CREATE-SPECIAL-USE": "RFC 6154",
    "MOVE": "RFC 6851",
    "CONDSTORE": "RFC 7162",
    "QRESYNC": "RFC 7162",
    "STATUS=SIZE": "RFC 8438",
}
#: Everything but IMAP itself can be switched off.
CAPABILITIES: Final = {**ALWAYS, **BEFORE_LOGIN, **AFTER_LOGIN}
#: What makes no sense without another.
NEEDS: Final = {
    "QRESYNC": ("CONDSTORE", "ENABLE"),
    "LIST-STATUS": ("LIST-EXTENDED",),
    "CREATE-SPECIAL-USE": ("SPECIAL-USE",),
    "SEARCHRES": ("ESEARCH",),
}


def announced(context: Context) -> str:
    """The capabilities of this moment, separated by spaces; a fault may hide some of them."""
    told = [*ALWAYS, *(BEFORE_LOGIN if context.state == NOT_AUTHENTICATED else AFTER_LOGIN)]
    action = context.decide("imap.capability")
    unfit = {name.upper() for name in action.strip} if action is not None else set()
    options = context.options
    if not options.starttls or context.tls:
        unfit.add("STARTTLS")
    if not options.require_tls or context.tls:
        unfit.add("LOGINDISABLED")
    else:
        unfit.update(name for name in told if name.startswith("AUTH="))
    return " ".join(name for name in told if name not in unfit and context.has(name))


def without(names: frozenset[str]) -> frozenset[str]:
    """These capabilities and all that need one of them."""
    found = set(names)
    while more := {name for name, needed in NEEDS.items() if found & set(needed)} - found:
        found |= more
    return frozenset(found)
