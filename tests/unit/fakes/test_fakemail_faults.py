import pytest

from fakemail.faults import POINTS, FaultError, Plan, parse_fault, parse_faults


def fault(**changes):
    base = {"id": "f", "point": "smtp.rcpt", "when": {"first": 1}, "action": {"reply": "451 4.3.0 Try again later"}}
    return base | changes


def fired(plan, times, point="smtp.rcpt", **context):
    return [plan.decide(point, **context) is not None for _ in range(times)]


def plan_of(*faults, seed=1):
    return Plan(seed, parse_faults(list(faults)))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"first": 2}, [True, True, False, False, False]),
        ({"nth": 3}, [False, False, True, False, False]),
        ({"every": 2}, [False, True, False, True, False]),
        ({"probability": 0}, [False] * 5),
        ({"probability": 1.0}, [True] * 5),
    ],
)
def test_a_schedule_says_which_events_are_hit(when, expected):
    assert fired(plan_of(fault(when=when)), 5) == expected


def test_the_same_seed_gives_the_same_faults():
    flip = fault(when={"probability": 0.3})
    first, again, other = (fired(plan_of(flip, seed=seed), 200) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert 30 < sum(first) < 90


def test_a_fault_counts_only_what_it_matches():
    plan = plan_of(fault(when={"first": 2}, match={"recipient": "*@SLOW.test"}))
    assert fired(plan, 3, recipient="x@quick.test") == [False, False, False]
    assert fired(plan, 3, recipient="X@slow.test") == [True, True, False]
    assert plan.counters == {"f": {"seen": 3, "fired": 2}}


def test_one_matching_recipient_of_many_is_enough():
    plan = plan_of(fault(point="smtp.accepted", match={"recipient": "b@*"}))
    assert plan.decide("smtp.accepted", recipient=["a@x.test", "b@x.test"]) is not None


def test_a_match_on_something_unsaid_does_not_apply():
    assert plan_of(fault(match={"user": "*"})).decide("smtp.rcpt", recipient="a@x.test") is None


def test_the_first_fault_wins_and_the_second_still_counts():
    plan = plan_of(fault(id="a"), fault(id="b", when={"nth": 2}, action={"drop": True}))
    assert plan.decide("smtp.rcpt").fault_id == "a"
    assert plan.decide("smtp.rcpt").fault_id == "b"


def test_other_points_are_left_alone():
    plan = plan_of(fault())
    assert all(plan.decide(point) is None for point in POINTS if point != "smtp.rcpt")


def test_an_unknown_point_is_a_slip_of_the_programmer():
    with pytest.raises(KeyError):
        plan_of().decide("smtp.nowhere")


@pytest.mark.parametrize(
    "given",
    [
        fault(),
        fault(match={"recipient": "*"}, action={"drop": True}),
        fault(when={"probability": 0.5}, action={"delay_ms": 20}),
    ],
)
def test_what_is_read_can_be_written_and_read_again(given):
    assert parse_fault(given).as_dict() == given
    assert parse_fault(parse_fault(given).as_dict()) == parse_fault(given)


@pytest.mark.parametrize(
    ("broken", "where", "names"),
    [
        ("x", "faults[0]", "a table"),
        ({}, "faults[0]", "action, id, match, point, when"),
        (fault(extra=1), "faults[0]", "'extra'"),
        (fault(id=""), "faults[0].id", "not empty"),
        (fault(point="smtp.vrfy"), "faults[0].point", "smtp.connect"),
        (fault(when={}), "faults[0].when", "every, first, nth, probability"),
        (fault(when={"first": 1, "nth": 2}), "faults[0].when", "2 keys"),
        (fault(when={"first": 0}), "faults[0].when.first", "from 1 up"),
        (fault(when={"every": True}), "faults[0].when.every", "from 1 up"),
        (fault(when={"probability": 1.5}), "faults[0].when.probability", "from 0 to 1"),
        (fault(action={"reply": "250 fine"}), "faults[0].action.reply", "4xx or 5xx"),
        (fault(action={"reply": "451 a\r\n250 b"}), "faults[0].action.reply", "4xx or 5xx"),
        (fault(action={"drop": False}), "faults[0].action.drop", "true"),
        (fault(action={"delay_ms": -1}), "faults[0].action.delay_ms", "from 0 up"),
        (fault(match={"command": "FETCH"}), "faults[0].match", "recipient, sender, user"),
        (fault(point="smtp.connect", match={"user": "*"}), "faults[0].match", "nothing at this point"),
        (fault(point="imap.command"), "faults[0].action.reply", "NO, BAD or BYE"),
    ],
)
def test_a_broken_fault_says_where_and_what_is_allowed(broken, where, names):
    with pytest.raises(FaultError) as caught:
        parse_faults([broken])
    assert caught.value.where == where
    assert names in str(caught.value)


def test_an_id_may_be_used_once():
    with pytest.raises(FaultError, match=r"faults\[1\]\.id: 'f' is taken"):
        parse_faults([fault(), fault()])
