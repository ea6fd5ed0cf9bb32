"""What runs say of mutants: literal trials, judged. A mutant is killed by the gates that it names, and by no others."""

import json

import pytest

from mailrig.mutation import Trial, as_json, as_markdown, as_text, judge, listing, matrix_of, unguarded
from mailrig.scenario import Mutant, load_scenario

SMOKE = load_scenario("smoke")
GREEN = {gate.id: "pass" for gate in SMOKE.gates}
VALIDITY = [gate.id for gate in SMOKE.gates if gate.kind == "validity"]


def mutant(name="mine", *gates, scenario="smoke"):
    return Mutant(
        name=name,
        description="Something is wrong.",
        scenario=scenario,
        expected_gates=gates or ("held",),
        environment={},
        without=("dispatcher",),
        patches=(),
    )


def trial(name=None, error="", **verdicts):
    gates = GREEN | {gate.replace("_", "-"): verdict for gate, verdict in verdicts.items()}
    return Trial(
        scenario="smoke", mutant=name, digest=f"{name}", verdict="" if error else "fail", gates=gates, error=error
    )


HEALTHY = trial()


def judged(one, run, healthy=HEALTHY):
    return judge(one, run, healthy, VALIDITY)


def test_a_mutant_whose_gate_turned_red_is_killed():
    row = judged(mutant(), trial("mine", held="fail", send_promise="fail"))
    assert (row.status, row.missed, row.why) == ("killed", (), "")
    assert (row.red, row.besides) == ({"held", "send-promise"}, {"send-promise"})


def test_a_mutant_that_no_gate_saw_survives():
    row = judged(mutant(), trial("mine"))
    assert (row.status, row.missed, row.why) == ("survived", ("held",), "held is pass")


def test_a_gate_that_it_does_not_name_does_not_kill_it():
    row = judged(mutant(), trial("mine", running="fail"))
    assert (row.status, row.missed) == ("elsewhere", ("held",))


def test_each_of_its_gates_must_turn_red():
    row = judged(mutant("mine", "held", "running"), trial("mine", held="fail"))
    assert (row.status, row.missed, row.why) == ("elsewhere", ("running",), "running is pass")


def test_a_gate_that_nothing_is_known_of_is_not_red():
    row = judged(mutant(), trial("mine", held="unknown"))
    assert (row.status, row.why) == ("survived", "held is unknown")


def test_a_warning_of_its_gate_is_red():
    assert judged(mutant("mine", "send-e2e-p95"), trial("mine", **{"send-e2e-p95": "warn"})).status == "killed"


def test_what_is_red_for_the_healthy_service_says_nothing_of_a_mutant():
    healthy = trial(held="fail", running="fail")
    assert judged(mutant("mine", "running"), trial("mine", running="fail"), healthy).status == "unjudged"
    row = judged(mutant("mine", "send-promise"), trial("mine", held="fail", send_promise="fail"), healthy)
    assert (row.status, row.besides) == ("killed", frozenset())


@pytest.mark.parametrize(
    ("run", "healthy", "why"),
    [
        (None, HEALTHY, "the mutant was not run in smoke"),
        (trial("mine"), None, "the healthy service was not run in smoke"),
        (trial("mine", error="no port"), HEALTHY, "the mutant could not be run in smoke: no port"),
        (trial("mine"), trial(error="no port"), "the healthy service could not be run in smoke: no port"),
        (trial("mine"), trial(held="unknown"), "the healthy service does not pass held in smoke either"),
        (trial("mine"), HEALTHY, ""),
    ],
)
def test_without_both_runs_nothing_is_said(run, healthy, why):
    row = judged(mutant(), run, healthy)
    assert row.status == ("unjudged" if why else "survived")
    assert row.why == (why or "held is pass")


def test_a_green_gate_of_a_run_that_can_not_be_believed_is_no_survival():
    row = judged(mutant(), trial("mine", unfinished="invalid"))
    assert (row.status, row.why) == ("unjudged", "held is pass; the run can't be believed (unfinished)")
    # But a red one counts, and so does validity where it is what the mutant must break.
    assert judged(mutant(), trial("mine", held="fail", unfinished="invalid")).status == "killed"
    assert judged(mutant("mine", "unfinished"), trial("mine", unfinished="invalid")).status == "killed"


def whole():
    rows = [
        judged(mutant("kind", "held"), trial("kind", held="fail", running="fail")),
        judged(mutant("shy", "running"), trial("shy")),
        judged(mutant("lost", "unfinished"), trial("lost", unfinished="invalid")),
    ]
    return matrix_of(rows, [SMOKE, load_scenario("observed")], bare=("retry-limit",))


def test_a_matrix_has_the_gates_of_its_scenarios_and_of_validity_what_mutants_have_to_do_with():
    matrix = whole()
    gates = [gate.id for gate in SMOKE.gates if gate.kind == "gate"]
    assert matrix.gates == (*gates, "unfinished")
    assert matrix.killers("held") == ("kind",)
    assert matrix.killers("running") == ()


@pytest.mark.parametrize(
    ("statuses", "code"),
    {
        ("killed", "killed"): 0,
        ("killed", "survived"): 1,
        ("elsewhere", "unjudged"): 1,
        ("killed", "unjudged"): 4,
    }.items(),
)
def test_the_exit_code_says_whether_all_were_killed(statuses, code):
    runs = {
        "killed": trial("x", held="fail"),
        "survived": trial("x"),
        "elsewhere": trial("x", running="fail"),
        "unjudged": None,
    }
    rows = [judged(mutant(f"m{number}"), runs[status]) for number, status in enumerate(statuses)]
    assert [row.status for row in rows] == list(statuses)
    assert matrix_of(rows, [SMOKE]).exit_code == code


def test_the_text_shows_each_mutant_against_each_gate():
    text = as_text(whole())
    lines = text.splitlines()
    tens, units, kind, shy, lost = (line.ljust(80) for line in lines[:5])
    number = whole().gates.index("held") + 1
    column = next(at for at, (a, b) in enumerate(zip(tens, units, strict=False)) if f"{a}{b}".strip() == str(number))
    assert (kind[column], shy[column], lost[column]) == ("✗", "·", "·")
    assert kind[column + 2] == "+"
    assert shy[column + 2] == "!"
    assert (kind.rstrip().endswith("killed"), shy.rstrip().endswith("survived")) == (True, True)
    assert "3 mutants: 2 killed, 1 survived" in lines
    assert "shy survived: running is pass" in lines
    assert "gates without a mutant: retry-limit" in lines
    assert f"{number:2} held" in text
    assert max(map(len, lines)) <= 100


def test_the_markdown_is_two_tables_and_what_follows():
    lines = as_markdown(whole()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    widths = {line.count("|") for line in rows[:5]}
    assert widths == {len(whole().gates) + 4}
    assert rows[2].startswith("| `kind` | smoke | killed |")
    assert any(line == f"| {whole().gates.index('held') + 1} | `held` | `kind` |" for line in lines)
    assert "- gates without a mutant: retry-limit" in lines


def test_the_json_says_all_of_it():
    document = json.loads(as_json(whole()))
    assert document["exit_code"] == 1
    assert [one["status"] for one in document["mutants"]] == ["killed", "survived", "killed"]
    assert document["mutants"][0]["red"] == ["held", "running"]
    assert document["gates"]["held"] == ["kind"]
    assert document["gates_without_mutant"] == ["retry-limit"]


def test_a_gate_that_no_mutant_names_is_without_one():
    bare = unguarded([SMOKE], [mutant("a", "held"), mutant("b", "running")])
    assert {"held", "running"}.isdisjoint(bare)
    assert "send-promise" in bare
    assert set(VALIDITY).isdisjoint(bare)


def test_what_there_is_can_be_listed():
    mutants = [mutant("a", "held", "running")]
    assert listing(mutants, ("x",), as_json=False).splitlines()[0] == "a  (smoke: held, running)"
    assert "gates without a mutant: x" in listing(mutants, ("x",), as_json=False)
    assert json.loads(listing(mutants, (), as_json=True))["mutants"][0]["gates"] == ["held", "running"]
