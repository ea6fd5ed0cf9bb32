"""The client's requests fit the control's endpoints, whatever an address or a folder is called."""

from __future__ import annotations

import inspect
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from fakemail.client import FakeMail
from fakemail.control.application import ROUTES

ANN = "a/b+c?@example.test"
#: What is asked for by each method, beside ``self``.
CALLS = {
    "smtp": (), "smtps": (), "imap": (), "imaps": (), "index": (), "health": (), "stats": (), "ca_pem": (), "users": (),
    "add_user": (ANN, "secret"),
    "remove_user": (ANN,),
    "mailbox": (ANN,),
    "create_folder": (ANN, "A&B/C"),
    "delete_folder": (ANN, "A&B/C"),
    "seed": (ANN,),
    "load": (ANN, "/some/path"),
    "reset_uidvalidity": (ANN,),
    "advance": (ANN, 3),
    "run_timeline": (ANN,),
    "append": (ANN, b"raw"),
    "messages": (ANN,),
    "message": (ANN, 7),
    "set_flags": (ANN, 7, ["\\Seen"]),
    "expunge": (ANN, [1, 2]),
    "put_faults": ([],),
    "faults": (), "fault_counts": (), "clear_faults": (),
    "put_fault": ("smtp.rcpt",),
    "fault": ("smtp.rcpt",),
    "remove_fault": ("a b/c",),
    "preset": ("greylisting",),
    "presets": (), "limits": (),
    "set_limits": (),
    "connections": (), "cut": (),
    "ledger": (), "last": (),
    "wait_for": ("accepted",),
    "news": (), "reset": (),
}  # fmt: skip
#: Keywords that a method needs.
KEYWORDS = {
    "seed": {"count": 1, "seed": 1, "digests": False},
    "advance": {"weights": {"arrive": 1}},
    "run_timeline": {"per_s": 1},
    "append": {"flags": ["\\Seen", "x"], "received_s": 5},
    "put_fault": {"fault_id": "x", "match": {"user": "x"}, "scope": "user", "first": 1, "drop": True},
    "fault": {"drop": True},
    "set_limits": {"connections": None},
    "connections": {"user": ANN},
    "cut": {"user": ANN},
    "ledger": {"kind": "x", "protocol": "x", "connection": 1, "user": ANN, "rcpt_to": ANN, "since_ns": 1},
    "wait_for": {"rcpt_to": ANN, "timeout_s": 0},
    "news": {"after": 1, "user": ANN},
    "reset": {"to_start": True, "connections": True},
}
#: What is enough for every method to go on.
ANSWER = {
    "servers": {name: {"host": "0.0.0.0", "port": 1} for name in ("smtp", "smtps", "imap", "imaps")}, "users": [],
    "messages": [], "next": 0, "more": False, "faults": [], "counters": {}, "presets": [], "connections": [], "cut": 0,
    "entries": [], "id": "x",
}  # fmt: skip


class Recorded(FakeMail):
    def __init__(self):
        super().__init__("http://127.0.0.1:1")
        self.asked = []

    def _request(self, method, path, body=None):
        self.asked.append((method, path, body))
        entries = {"entries": [{"seq": 1}]} if "wait_s" in path else {}
        return json.dumps(ANSWER | entries).encode()


def public():
    return [name for name in vars(FakeMail) if not name.startswith("_")]


def test_every_method_is_tried_here():
    assert set(CALLS) == set(public())


@pytest.mark.parametrize("name", CALLS)
def test_a_request_fits_an_endpoint_and_its_parameters(name):
    client = Recorded()
    if isinstance(inspect.getattr_static(FakeMail, name), property):
        getattr(client, name)
    else:
        answer = getattr(client, name)(*CALLS[name], **KEYWORDS.get(name, {}))
        if name == "fault":
            answer.__enter__()
        elif inspect.isgenerator(answer):
            list(answer)
    assert client.asked
    for method, target, body in client.asked:
        parts = urlsplit(target)
        patterns = {route: re.sub(r"\{\w+\}", "([^/]+)", route.path) for route in ROUTES if route.method == method}
        (route,) = [each for each, pattern in patterns.items() if re.fullmatch(pattern, parts.path)]
        given = set(parse_qs(parts.query))
        if route.body == "object":
            given |= set(body or {})
        assert given <= set(route.names), f"{method} {target}"
        assert (body is not None) <= bool(route.body), f"{method} {target} has a body that nobody reads"
        for found in re.fullmatch(patterns[route], parts.path).groups():
            assert unquote(found) in {ANN, "7", "a b/c", "greylisting", "x"}


def test_every_endpoint_but_the_export_has_a_method():
    client, reached = Recorded(), set()
    for name, positional in CALLS.items():
        if not isinstance(inspect.getattr_static(FakeMail, name), property):
            answer = getattr(client, name)(*positional, **KEYWORDS.get(name, {}))
            if name == "fault":
                with answer:
                    pass
            elif inspect.isgenerator(answer):
                list(answer)
    client.cut(5)
    for method, target, _ in client.asked:
        path = urlsplit(target).path
        reached |= {
            (route.method, route.path)
            for route in ROUTES
            if route.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path)
        }
    assert {(route.method, route.path) for route in ROUTES} - reached == {("GET", "/ledger.jsonl")}


def test_a_server_on_every_address_is_reached_where_its_control_is():
    client = Recorded()
    assert client.imap == ("127.0.0.1", 1)
    assert len(client.asked) == 1
    assert client.smtps == ("127.0.0.1", 1)
    assert len(client.asked) == 1, "asked once"
