"""What takes data apart: mail, faults, configuration. It answers or refuses; it never fails, and its answers agree."""

from __future__ import annotations

import json
from itertools import pairwise

import fuzz_data
import fuzz_imap_replies as imap_replies
import hypothesis
import pytest
from fuzz_campaign import Campaign, raw, seconds, text
from fuzz_core import CoreWire, store
from hypothesis import strategies as st

from fakemail.config import parse_config
from fakemail.config.model import ConfigError
from fakemail.faults import GARBLES, POINTS, PRESETS, FaultError, Plan, parse_faults, spoil
from fakemail.synthesis import PROFILES, synthesise

#: Every fault of every preset: each point, schedule and action is in some.
GOOD_FAULTS = [fault.as_dict() for preset in PRESETS.values() for fault in preset]
CONFIG = """\
seed = 3
presets = ["greylisting"]

[limits]
connections = 10
connections_per_user = 2
line_bytes = 1000
literal_bytes = 1000
message_bytes = 1000
idle_timeout_s = 1.5

[imap]
without = ["IDLE", "CONDSTORE"]
require_tls = false

[smtp]
without = ["PIPELINING"]

[[user]]
address = "ann@example.test"
password = "secret"
token = "t"
seed = 3

[[user.folder]]
name = "Archive/2024"
seed = { count = 5, seed = 1, profile = "small", gaps = 2 }
timeline = { steps = 5, per_s = 1, profile = "small" }

[[fault]]
id = "one"
point = "smtp.rcpt"
when = { first = 3 }
action = { reply = "451 4.7.1 Later" }
match = { recipient = "*@x.test" }
"""


def whole(case):
    return raw("".join(case["steps"]))


# --- mail ---


def make_mail(chance):
    kind = chance.random()
    if kind < 0.1:
        return {"steps": [text(each) for each in fuzz_data.nested(chance)]}
    if kind < 0.3:
        made = synthesise(
            seed=chance.randrange(9), address="a@b.test", folder="INBOX", uid=chance.randrange(1, 999), profile="small"
        )
        name = chance.choice(sorted(GARBLES))
        return {"steps": [text(line) for line in spoil(name, made).splitlines(keepends=True)[:400]]}
    return {"steps": [text(each) for each in fuzz_data.mail(chance)]}


def check_mail(case):
    message = whole(case)
    if not message:
        return
    mail = store()
    account = mail.user("ann@example.test")
    mail.store(account.folder("Empty"), message)
    wire = CoreWire(mail)
    wire.send(b"a LOGIN ann@example.test canary-password\r\nb EXAMINE Empty\r\n")
    imap_replies.parse(wire.hear(bool))
    items = asked(wire, b"RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY BODY[] BODY[HEADER] BODY[TEXT] BODY[]<3.7>")
    assert items[b"BODY[]"] == message
    assert items[b"RFC822.SIZE"] == len(message)
    assert items[b"BODY[HEADER]"] + items[b"BODY[TEXT]"] == message
    assert items[b"BODY[]<3>"] == message[3:10]
    for path, octets in list(leaves(items[b"BODYSTRUCTURE"], ()))[:40]:
        name = b".".join(b"%d" % number for number in path)
        part = asked(wire, b"BODY[%s] BODY[%s.MIME]" % (name, name))
        # A part of which there is nothing may be none.
        body = part[b"BODY[%s]" % name] or b""
        assert len(body) == octets, f"BODYSTRUCTURE says {octets} bytes of {name!r}, BODY[{name!r}] has {len(body)}"
        assert body in message


def asked(wire, items):
    wire.send(b"c FETCH 1 (" + items + b")\r\n")
    rows = [reply for reply in imap_replies.parse(wire.hear(bool)) if reply.name == b"FETCH"]
    assert len(rows) == 1
    return rows[0].values


def leaves(node, path):
    """(path, octets) of each part that holds no others (RFC 3501 section 6.4.5)."""
    if isinstance(node[0], list):
        for number, child in enumerate(each for each in node if isinstance(each, list) and _is_body(each)):
            yield from leaves(child, (*path, number + 1))
    else:
        yield path or (1,), node[6]


def _is_body(node):
    return isinstance(node[0], list) or (len(node) >= 7 and isinstance(node[6], int))


@pytest.mark.timeout(seconds() + 60)
def test_fuzz_mail_is_described_as_it_is_fetched():
    Campaign("mail").run(make_mail, check_mail)


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_synthesised_mail_is_described_as_it_is_fetched(profile):
    for uid in range(1, 25):
        made = synthesise(seed=2, address="a@b.test", folder="INBOX", uid=uid, profile=profile)
        check_mail({"steps": [text(made)]})


# --- faults ---


def make_faults(chance):
    count = chance.randint(1, 3)
    return {"steps": [fuzz_data.spoilt(chance, chance.choice(GOOD_FAULTS)) for _ in range(count)]}


def taken_or_refused(value):
    """Faults, or what is wrong with them; anything else is a failure."""
    try:
        return parse_faults(value), ""
    except FaultError as err:
        return None, str(err)


def check_faults(case):
    faults, refusal = taken_or_refused(case["steps"])
    if faults is None:
        assert refusal.isprintable(), "a refusal is a line for people"
        return
    again = parse_faults([json.loads(json.dumps(fault.as_dict())) for fault in faults])
    assert again == faults
    plan = Plan(1, faults)
    for point in POINTS:
        for known in ({}, {"user": "ann@example.test", "recipient": ["a@b.test", "c@d.test"], "command": ("FETCH",)}):
            plan.decide(point, **known)


@pytest.mark.timeout(seconds() + 60)
def test_fuzz_faults_are_taken_or_refused():
    Campaign("faults").run(make_faults, check_faults, at_least=200)


def test_every_good_fault_is_taken():
    for fault in GOOD_FAULTS:
        check_faults({"steps": [fault]})
        assert parse_faults([fault])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMED = st.fixed_dictionaries(
    {"id": JSON, "point": st.sampled_from(sorted(POINTS)) | JSON, "when": JSON, "action": JSON},
    optional={"match": JSON, "scope": JSON},
)


@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(value=JSON | st.lists(NAMED, max_size=2))
def test_any_json_is_a_list_of_faults_or_refused(value):
    faults, refusal = taken_or_refused(value)
    assert (faults is None) == bool(refusal)


# --- configuration ---


def make_config(chance):
    lines = CONFIG.splitlines(keepends=True)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        match chance.randint(0, 4):
            case 0:
                del lines[at]
            case 1:
                lines.insert(chance.randrange(len(lines)), lines[at])
            case 2:
                name = lines[at].partition("=")[0]
                toml = "1", "-1", "1e400", "nan", "inf", '""', '"x"', "[]", "{}", "true", "2026-01-01", "[[]]", "9" * 50
                lines[at] = f"{name}= {chance.choice(toml)}\n"
            case 3:
                where = chance.randint(0, len(lines[at]))
                lines[at] = lines[at][:where] + chance.choice('[]{}="\n\\\x00\u00e4.,') + lines[at][where:]
            case _:
                lines[at] = chance.choice(
                    ("[user]\n", "[[limits]]\n", "[x]\n", "user = 1\n", "[[user.folder.seed]]\n", "fault = []\n")
                )
        lines = lines or [""]
    return {"steps": lines}


def check_config(case):
    source = "".join(case["steps"])
    refusal = "fakes.toml:1:"
    try:
        parse_config(source, "fakes.toml")
    except ConfigError as err:
        refusal = str(err)
    # File and line come first, so that an editor can go there.
    file, line, *_ = refusal.split(":")
    assert file == "fakes.toml"
    assert 1 <= int(line) <= source.count("\n") + 1, refusal


@pytest.mark.timeout(seconds() + 60)
def test_fuzz_configurations_are_taken_or_refused_with_their_line():
    parse_config(CONFIG, "fakes.toml")
    Campaign("config").run(make_config, check_config, at_least=200)


def test_pieces_of_mail_fit_together():
    """The generator is no use if its multiparts are never multiparts."""
    campaign = Campaign("mail")
    found = [b"".join(fuzz_data.mail(campaign.random(number))) for number in range(200)]
    assert sum(b"boundary=A" in each and b"\r\n--A\r\n" in each for each in found) > 5
    assert all(first != second for first, second in pairwise(found))
