"""How a fault is written, and how a wrong one is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakemail.faults import (
    ACTIONS,
    POINTS,
    PRESETS,
    SCHEDULES,
    SCOPES,
    FaultError,
    Plan,
    parse_fault,
    parse_faults,
)


def fault(**changes):
    base = {"id": "f", "point": "smtp.rcpt", "when": {"first": 1}, "action": {"reply": "451 4.3.0 Try again later"}}
    return base | changes


@pytest.mark.parametrize(
    "given_fault",
    [
        fault(),
        fault(match={"recipient": "*"}, action={"drop": True}),
        fault(when={"probability": 0.5}, action={"delay_ms": 20}),
        fault(when={"always": True}, action={"delay_ms": 0}),
        fault(when={"window": [1, 2]}, action={"delay_ms": 20, "jitter_ms": 5, "reply": "451 x", "close": True}),
        fault(when={"window_s": [0, 2.5]}, action={"stall": True}, scope="recipient"),
        fault(when={"bucket": {"capacity": 1, "per_s": 0.5}}, scope="sender-recipient"),
        fault(point="smtp.body", action={"after_bytes": 0, "drop": True}),
        fault(point="smtp.body", action={"bytes_per_s": 1}),
        fault(point="smtp.ehlo", action={"strip": ["STARTTLS", "SIZE"]}),
        fault(point="smtp.tls", action={"certificate": "expired"}),
        fault(point="imap.tls", action={"alert": True, "delay_ms": 5}),
        fault(point="imap.auth", action={"expired_token": True}, match={"mechanism": "XOAUTH2"}),
        fault(point="imap.message", action={"garble": "base64"}),
        fault(point="imap.select", action={"omit": ["UIDNEXT"]}, scope="folder"),
        fault(point="imap.command", action={"mailbox": "arrive"}),
        fault(point="imap.literal", action={"after_bytes": 9, "delay_ms": 5}),
    ],
)
def test_what_is_read_can_be_written_and_read_again(given_fault):
    assert parse_fault(given_fault).as_dict() == given_fault
    assert parse_fault(parse_fault(given_fault).as_dict()) == parse_fault(given_fault)


def test_every_action_can_be_said_at_every_point_that_allows_it():
    replies = {"smtp": "451 4.3.0 Later", "imap": "BYE later"}
    for name, point in POINTS.items():
        arguments = {
            "reply": replies[name[:4]], "close": True, "drop": True, "stall": True, "delay_ms": 2, "jitter_ms": 1,
            "after_bytes": 1, "bytes_per_s": 1, "strip": ["STARTTLS"], "certificate": "expired", "alert": True,
            "expired_token": True, "garble": "nul", "omit": ["UIDNEXT"], "mailbox": "reset-uidvalidity",
        }  # fmt: skip
        assert set(arguments) == set(ACTIONS)
        for action in point.actions:
            beside = next((other for other in ACTIONS[action].beside if other in point.actions), None)
            said = {action: arguments[action]} | ({beside: arguments[beside]} if beside else {})
            assert parse_fault(fault(point=name, action=said)).as_dict()["action"] == said


def test_names_are_read_in_any_case_of_letters_and_kept_as_they_are_known():
    action = parse_fault(fault(point="imap.capability", action={"strip": ["starttls", "Auth=Plain"]})).action
    assert action.strip == ("STARTTLS", "AUTH=PLAIN")


BROKEN = [
    ("x", "faults[0]", "unknown preset 'x'; allowed: gmail-connection-limit"),
    ("grey-listing", "faults[0]", "(did you mean 'greylisting'?)"),
    (7, "faults[0]", "a table"),
    ({}, "faults[0]", "'id' is missing; allowed: id, point, when, action, match, scope"),
    (fault(extra=1), "faults[0]", "unknown key 'extra'"),
    (fault(macth={}), "faults[0]", "unknown key 'macth' (did you mean 'match'?)"),
    ({**fault(), "wen": {}} | {"when": {}}, "faults[0]", "unknown key 'wen' (did you mean 'when'?)"),
    ({key: value for key, value in fault(wen={}).items() if key != "when"}, "faults[0]", "(is 'wen' meant to be it?)"),
    (fault(id=""), "faults[0].id", "not empty"),
    (fault(point="smtp.vrfy"), "faults[0].point", "smtp.connect"),
    (fault(point="smtp.rcpd"), "faults[0].point", "unknown point 'smtp.rcpd' (did you mean 'smtp.rcpt'?)"),
    (fault(when=3), "faults[0].when", "a table"),
    (fault(when={}), "faults[0].when", "every, first, nth"),
    (fault(when={"fist": 1}), "faults[0].when", "(did you mean 'first'?)"),
    (fault(when={"first": 1, "nth": 2}), "faults[0].when", "2 keys"),
    (fault(when={"first": 0}), "faults[0].when.first", "from 1 up"),
    (fault(when={"every": True}), "faults[0].when.every", "from 1 up"),
    (fault(when={"always": False}), "faults[0].when.always", "allowed: true"),
    (fault(when={"window": [3, 2]}), "faults[0].when.window[1]", "from 3 up"),
    (fault(when={"window": [0, 2]}), "faults[0].when.window[0]", "from 1 up"),
    (fault(when={"window": [1]}), "faults[0].when.window", "a list of two"),
    (fault(when={"window": 1}), "faults[0].when.window", "a list of two"),
    (fault(when={"window_s": [1, 1]}), "faults[0].when.window_s[1]", "above 1"),
    (fault(when={"window_s": [-1, 1]}), "faults[0].when.window_s[0]", "from 0"),
    (fault(when={"window_s": [0, float("nan")]}), "faults[0].when.window_s[1]", "above 0"),
    (fault(when={"probability": 1.5}), "faults[0].when.probability", "from 0 to 1"),
    (fault(when={"probability": True}), "faults[0].when.probability", "from 0 to 1"),
    (fault(when={"bucket": 5}), "faults[0].when.bucket", "a table"),
    (fault(when={"bucket": {"capacity": 5}}), "faults[0].when.bucket", "'per_s' is missing"),
    (fault(when={"bucket": {"capacity": 0, "per_s": 1}}), "faults[0].when.bucket.capacity", "from 1 up"),
    (fault(when={"bucket": {"capacity": 1, "per_s": 0}}), "faults[0].when.bucket.per_s", "above 0"),
    (fault(when={"bucket": {"capacity": 1, "per_s": 10**400}}), "faults[0].when.bucket.per_s", "above 0"),
    (fault(action={}), "faults[0].action", "no action given; allowed: reply, close, drop, stall"),
    (fault(action={"replay": "451 x"}), "faults[0].action", "(did you mean 'reply'?)"),
    (fault(action={"strip": ["SIZE"]}), "faults[0].action", "'strip' has no meaning at smtp.rcpt; allowed: reply"),
    (fault(action={"reply": "250 fine"}), "faults[0].action.reply", "4xx or 5xx"),
    (fault(action={"reply": "451 a\r\n250 b"}), "faults[0].action.reply", "4xx or 5xx"),
    (fault(action={"drop": False}), "faults[0].action.drop", "true"),
    (fault(action={"drop": True, "stall": True}), "faults[0].action", "drop and stall given together"),
    (fault(action={"delay_ms": -1}), "faults[0].action.delay_ms", "from 0 to 86400000"),
    (fault(action={"jitter_ms": 1}), "faults[0].action.jitter_ms", "beside delay_ms"),
    (fault(action={"delay_ms": 1, "jitter_ms": 2}), "faults[0].action.jitter_ms", "from 0 to delay_ms (1)"),
    (fault(action={"drop": True, "close": True}), "faults[0].action.close", "beside reply"),
    (
        fault(point="smtp.body", action={"after_bytes": 5}),
        "faults[0].action.after_bytes",
        "beside drop or stall or delay_ms",
    ),
    (fault(point="smtp.body", action={"after_bytes": -5, "drop": True}), "faults[0].action.after_bytes", "from 0 up"),
    (fault(point="smtp.body", action={"bytes_per_s": 0}), "faults[0].action.bytes_per_s", "from 1 up"),
    (fault(point="smtp.ehlo", action={"strip": []}), "faults[0].action.strip", "a list of PIPELINING"),
    (fault(point="smtp.ehlo", action={"strip": ["SISE"]}), "faults[0].action.strip[0]", "(did you mean 'SIZE'?)"),
    (fault(point="smtp.tls", action={"certificate": "old"}), "faults[0].action.certificate", "expired, wrong-host"),
    (fault(point="imap.message", action={"garble": "base63"}), "faults[0].action.garble", "(did you mean 'base64'?)"),
    (fault(point="imap.select", action={"mailbox": "arrive"}), "faults[0].action.mailbox", "reset-uidvalidity"),
    (fault(match={"command": "FETCH"}), "faults[0].match", "recipient, sender, user"),
    (fault(match={"recipient": 3}), "faults[0].match.recipient", "a pattern"),
    (fault(point="smtp.connect", match={"user": "*"}), "faults[0].match", "nothing at this point"),
    (fault(point="imap.command"), "faults[0].action.reply", "NO, BAD or BYE"),
    (fault(scope="users"), "faults[0].scope", "(did you mean 'user'?)"),
    (fault(point="smtp.connect", scope="user"), "faults[0].scope", "allowed: server, connection"),
    (fault(scope="folder"), "faults[0].scope", "'folder' is not known at smtp.rcpt"),
]


@pytest.mark.parametrize(("broken", "where", "names"), BROKEN)
def test_a_broken_fault_says_where_what_was_given_and_what_is_allowed(broken, where, names):
    with pytest.raises(FaultError) as caught:
        parse_faults([broken])
    assert caught.value.where == where
    assert str(caught.value).startswith(f"{where}: ")
    assert names in str(caught.value)


def test_the_error_has_its_parts():
    with pytest.raises(FaultError) as caught:
        parse_fault(fault(extra=1))
    assert (caught.value.where, caught.value.key) == ("fault", "extra")
    assert caught.value.problem == "unknown key 'extra'"
    assert caught.value.allowed == "id, point, when, action, match, scope"


def test_faults_come_in_a_list():
    with pytest.raises(FaultError, match="faults: a table given; allowed: a list of faults"):
        parse_faults({})


def test_an_id_may_be_used_once():
    with pytest.raises(FaultError, match=r"faults\[1\]\.id: 'f' is taken"):
        parse_faults([fault(), fault()])
    with pytest.raises(FaultError, match=r"faults\[1\]\.id: 'greylisting' is taken"):
        parse_faults(["greylisting", "greylisting"])


def test_a_list_of_faults_may_name_presets():
    named = parse_faults([fault(), "slow-imap"])
    assert [each.id for each in named] == ["f", "slow-imap-commands", "slow-imap-literals"]


def test_all_presets_can_be_in_force_together():
    plan = Plan(1, parse_faults(list(PRESETS)))
    assert len(plan.faults) == sum(len(each.faults) for each in PRESETS.values())
    for each in plan.faults:
        assert parse_fault(each.as_dict()) == each


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KNOWN = st.fixed_dictionaries(
    {
        "id": st.just("f"),
        "point": st.sampled_from(list(POINTS)),
        "when": st.dictionaries(st.sampled_from(list(SCHEDULES)), _ANYTHING, max_size=2) | _ANYTHING,
        "action": st.dictionaries(st.sampled_from(list(ACTIONS)), _ANYTHING, max_size=3) | _ANYTHING,
    },
    optional={"match": _ANYTHING, "scope": st.sampled_from(list(SCOPES)) | _ANYTHING},
)


@given(value=_KNOWN | _ANYTHING)
def test_fuzz_whatever_is_given_is_a_fault_or_a_fault_error(value):
    try:
        read = parse_fault(value)
    except FaultError:
        return
    assert parse_fault(read.as_dict()) == read
