"""Scenario, contract and mutant files: what is wrong is said with file, line and what is allowed."""

import re
from pathlib import Path

import pytest

from email_service import policy
from mailrig.scenario import (
    MutantError,
    Patch,
    RigError,
    ScenarioError,
    UnknownNameError,
    apply_patches,
    load_contract,
    load_mutant,
    load_scenario,
    mutant_names,
    parse_scenario,
    with_overrides,
)

SMOKE = load_scenario("smoke")
SYSTEM = Path(policy.__file__).parent
FILE = Path("x.toml")


def line_of(text, part):
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_an_action_that_repeats_happens_every_so_often_until_its_end():
    text = SMOKE.text.replace("at_s = 13\n", "at_s = 13\nevery_s = 2.5\nuntil_s = 21\n")
    actions = parse_scenario(text, FILE).nemesis
    assert [action.at_s for action in actions] == [13, 15.5, 18, 20.5]
    assert {(action.action, action.options["queue"]) for action in actions} == {("lose-message", "send")}


@pytest.mark.parametrize(
    ("keys", "wrong"),
    {
        "every_s = 2\n": "nemesis.until_s is missing",
        "until_s = 20\n": "nemesis.every_s is missing",
        "every_s = 0\nuntil_s = 20\n": "nemesis.every_s = 0 is not allowed",
        "every_s = 2\nuntil_s = 12\n": "nemesis.until_s = 12 is not allowed; allowed: a number >= 13",
    }.items(),
)
def test_an_action_that_repeats_needs_both_its_pace_and_its_end(keys, wrong):
    with pytest.raises(ScenarioError, match=wrong):
        parse_scenario(SMOKE.text.replace("at_s = 13\n", f"at_s = 13\n{keys}"), FILE)


def test_smoke_is_what_the_demo_promises():
    assert SMOKE.load.total_s <= 25
    assert (SMOKE.population.tenants, SMOKE.population.mailboxes) == (2, 6)
    assert [n.action for n in SMOKE.nemesis] == ["lose-message"]
    assert [len(boxes) for boxes in SMOKE.population.addresses()] == [3, 3]
    assert len({address for boxes in SMOKE.population.addresses() for address in boxes}) == 6
    assert {gate.kind for gate in SMOKE.gates} == {"validity", "gate"}
    assert SMOKE.faults[1] == {
        "id": "greylist",
        "point": "smtp.rcpt",
        "when": {"first": 3},
        "action": {"reply": "451 4.7.1 Try again later"},
    }


WRONG = {
    (
        'arrivals = "poisson" ',
        'arrivals = "gauss" ',
    ): "load.arrivals = 'gauss' is not allowed; allowed: poisson, constant",
    ("rate_per_s = 12", 'rate_per_s = "12"'): "load.op.rate_per_s = '12' is not allowed; allowed: a number >= 0",
    ("cc_share = 0.4", "cc_share = 1.4"): "load.op.cc_share = 1.4 is not allowed; allowed: a number from 0 to 1",
    ("recipients_max = 4", "recipients = 4"): "load.op.recipients is not known; allowed: attachment_share, bcc_share",
    ("time_scale = 0.1 ", "time_scale = 0.01 "): "system.time_scale = 0.01 is not allowed; allowed: a number from 0.05",
    ('action = "lose-message"', 'action = "loose"'): "nemesis.action = 'loose' is not allowed; allowed: lose-message",
    ("when = { first = 16 }", "when = { at_s = 16 }"): "fault.when: unknown key 'at_s'; allowed: every, first, nth",
    ("when = { first = 3 }", "when = { first = 0 }"): "fault.when.first: 0 given; allowed: a whole number from 1 up",
    ('point = "smtp.rcpt"', 'point = "pop.retr"'): "fault.point: unknown point 'pop.retr'; allowed: smtp.connect",
    ("mailboxes = 6", "mailboxes = 1"): "population.mailboxes = 1 leaves a tenant without one; allowed: a whole number",
    ("tenants = 2", "tenants = true"): "population.tenants = True is not allowed; allowed: a number >= 1",
    ("seed = 20240607", "seed = 1.5"): "seed = 1.5 is not allowed; allowed: a whole number >= 0",
    ('severity = "warn"', 'severity = "info"'): "gate.severity = 'info' is not allowed; allowed: fail, warn",
}


@pytest.mark.parametrize(("change", "message"), WRONG.items())
def test_a_wrong_value_is_named_with_its_line_and_what_is_allowed(change, message):
    text = SMOKE.text.replace(*change, 1)
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, FILE)
    assert str(caught.value).startswith(f"x.toml:{line_of(text, change[1])}: {message}")
    assert caught.value.exit_code == 2


def test_two_gates_of_one_id_are_refused_at_the_second():
    text = SMOKE.text.replace('id = "running"', 'id = "held"')
    with pytest.raises(ScenarioError, match=r"gate\.id = 'held' is there twice; allowed: an id of its own") as caught:
        parse_scenario(text, FILE)
    assert caught.value.line == line_of(text, 'metric = "worker.running"') - 1


def test_an_unknown_table_is_refused_at_its_line():
    text = SMOKE.text + "\n[extra]\nx = 1\n"
    with pytest.raises(ScenarioError, match="extra is not known; allowed: description, drain, fault, gate") as caught:
        parse_scenario(text, FILE)
    assert caught.value.line == line_of(text, "[extra]")


def test_the_line_is_that_of_the_right_array_element():
    text = SMOKE.text.replace("rate_per_s = 1\n", "rate_per_s = -1\n")
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, FILE)
    assert caught.value.line == line_of(text, "rate_per_s = -1")


def test_a_missing_key_is_named_at_its_table():
    text = SMOKE.text.replace("timeout_s = 20\n", "")
    with pytest.raises(ScenarioError, match=r"drain\.timeout_s is missing; allowed: a number >= 1") as caught:
        parse_scenario(text, FILE)
    assert caught.value.line == line_of(text, "[drain]")


@pytest.mark.parametrize(
    ("text", "line"), [("name = \n", 1), ('a = 1\nb = "x\n', 2), ("a = 1\na = 2\n", 2), ("a = 1\nx = [1,\n", 2)]
)
def test_broken_toml_is_named_with_its_line(text, line):
    with pytest.raises(ScenarioError, match=rf"x\.toml:{line}: broken TOML: .*; allowed: TOML 1\.0"):
        parse_scenario(text, FILE)


def test_an_unknown_scenario_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"no scenario 'smok'; known: .*smoke") as caught:
        load_scenario("smok")
    assert isinstance(caught.value, RigError)


def test_a_file_that_is_not_there_or_not_text_is_one_clear_error(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere\.toml: can't be read: No such file"):
        load_scenario(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        load_scenario(str(tmp_path / "binary.toml"))


def test_overrides_are_written_into_the_text_that_a_run_keeps():
    changed = with_overrides(SMOKE, seed=7, nemesis=["kill-child@8", "kill-parent@12.5"])
    assert changed.seed == 7
    assert [(n.at_s, n.action) for n in changed.nemesis][1:] == [(8, "kill-child"), (12.5, "kill-parent")]
    assert parse_scenario(changed.text, SMOKE.file) == changed
    assert with_overrides(SMOKE) == SMOKE


@pytest.mark.parametrize("argument", ["kill-child", "kill-child@", "kill-child@soon", "kill@3", "kill-child@-1"])
def test_a_malformed_nemesis_argument_is_refused(argument):
    with pytest.raises(ScenarioError, match=r"allowed: ACTION@SECONDS with lose-message, kill-child, kill-parent"):
        with_overrides(SMOKE, nemesis=[argument])


def test_the_contract_and_the_policy_agree():
    """Two sources on purpose: the judge reads the one, the system the other, and this is where they meet."""
    contract = load_contract()
    assert contract.numbers("retry.delays_s") == tuple(policy.backoff_s(k) for k in range(5))
    assert contract.number("retry.cap_s") == policy.backoff_s(100) == policy.BACKOFF_CAP_S
    assert contract.number("limits.hard_s") == policy.TIME_LIMIT_S
    assert contract.number("limits.soft_s") == policy.SOFT_TIME_LIMIT_S
    assert contract.number("limits.gap_s_min") == policy.LIMIT_GAP_S_MIN
    for rule in policy.TASKS.values():
        assert contract.number(f"retries.{rule.name.rpartition('.')[2]}") == rule.max_retries
    for rule in policy.QUEUES.values():
        assert contract.number(f"priority.{rule.name}") == rule.message_priority


def test_a_broken_contract_is_named_with_its_line(tmp_path):
    file = tmp_path / "contract.toml"
    file.write_text("schema_version = 1\n[worker]\nconcurrency = true\n")
    with pytest.raises(ScenarioError, match=r"contract\.toml:3: worker\.concurrency = True is not allowed"):
        load_contract(file)
    file.write_text("schema_version = 2\n")
    with pytest.raises(ScenarioError, match=r":1: schema_version is not one that this version reads; allowed: 1"):
        load_contract(file)
    with pytest.raises(ScenarioError, match="is not a list of numbers"):
        load_contract().numbers("retry.cap_s")


def test_an_unknown_mutant_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"no mutant 'late-ack'; known: accepted-not-kept, "):
        load_mutant("late-ack")


@pytest.fixture
def package(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "celery_app.py").write_text('conf = {\n        "task_acks_late": True,\n}\n')
    (source / "__pycache__").mkdir()
    return source


def test_a_patch_changes_the_copy_and_never_the_source(package, tmp_path):
    before = (package / "celery_app.py").read_text()
    apply_patches(load_mutant("early-ack"), package, tmp_path / "target")
    assert '"task_acks_late": False' in (tmp_path / "target" / "celery_app.py").read_text()
    assert not (tmp_path / "target" / "__pycache__").exists()
    assert (package / "celery_app.py").read_text() == before


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch(file="celery_app.py", old="task_acks_early", new=""), "is 0 times in celery_app.py, not once"),
        (Patch(file="celery_app.py", old="a", new=""), r"is \d+ times in celery_app.py, not once"),
        (Patch(file="gone.py", old="a", new=""), "gone.py is not in"),
    ],
)
def test_a_patch_that_does_not_apply_copies_nothing(package, tmp_path, patch, message):
    mutant = load_mutant("early-ack")
    changed = type(mutant)(**{**vars(mutant), "patches": (patch,)})
    with pytest.raises(MutantError, match=message):
        apply_patches(changed, package, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", mutant_names())
def test_every_mutant_applies_to_the_system_as_it_is(name, tmp_path):
    apply_patches(load_mutant(name), SYSTEM, tmp_path / "email_service")


NEMESIS = """
[[nemesis]]
at_s = 3
action = "put-fault"
for_s = 2
fault = { id = "away", point = "smtp.connect", when = { always = true }, action = { drop = true } }
"""


def test_a_fault_of_a_time_is_read_by_the_parser_of_the_fakes_and_laid_open_for_the_action():
    action = parse_scenario(SMOKE.text + NEMESIS, FILE).nemesis[-1]
    assert (action.at_s, action.action, action.options["for_s"]) == (3, "put-fault", 2)
    assert action.options["point"] == "smtp.connect"
    assert action.options["action"] == {"drop": True}


@pytest.mark.parametrize(
    ("change", "message"),
    {
        ("for_s = 2\n", ""): "nemesis.for_s is missing; allowed: a number >= 0.1",
        ("fault = {", "fault_ = {"): r"nemesis.fault is missing",
        ("smtp.connect", "smtp.conect"): r"fault.point: unknown point 'smtp.conect'",
        ('"put-fault"', '"clear-fault"'): "nemesis.id is missing",
        ('"put-fault"', '"kill-beat"'): "nemesis.for_s is not known; allowed: action, at_s",
        ('"put-fault"', '"pause-redis"'): "nemesis.fault is not known; allowed: action, at_s, for_s",
    }.items(),
)
def test_an_action_takes_what_it_needs_and_nothing_else(change, message):
    text = NEMESIS.replace(*change)
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(SMOKE.text + text, FILE)


def test_a_message_can_be_lost_from_a_queue_that_there_is():
    text = SMOKE.text.replace('action = "lose-message"   # takes', 'action = "lose-message"\n# takes')
    with pytest.raises(ScenarioError, match=r"nemesis.queue = 'sent' is not allowed; allowed: sync, send, delete"):
        parse_scenario(text.replace('queue = "send"', 'queue = "sent"'), FILE)


@pytest.mark.parametrize(
    ("change", "message"),
    {
        (
            "rate_per_s = 12",
            "rate_per_s = 12\nzipf = -1",
        ): "load.op.zipf = -1 is not allowed; allowed: a number from 0 to",
        ("rate_per_s = 12", "rate_per_s = 12\nat_s = [1]"): "load.op.at_s is not known",
        ('arrivals = "poisson"', 'arrivals = "replay"'): "load.op.at_s is missing; allowed: a list of numbers >= 0",
        ("concurrency = 4", "concurrency = 4\nenvironment = { A = 1 }"): "system.environment = {'A': 1} is not allowed",
    }.items(),
)
def test_skew_times_and_variables_are_checked(change, message):
    with pytest.raises(ScenarioError, match=re.escape(message)):
        parse_scenario(SMOKE.text.replace(*change, 1), FILE)
