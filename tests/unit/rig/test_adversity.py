"""What guards a scenario against proving nothing, on literal runs; and what an outage excuses in the other gates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from literal import RUNS, SMOKE, S, execution, in_order, job, op, stages, ticks

from mailrig.checkers import METRICS, judge
from mailrig.checkers.outages import BROKER, afloat, cut_off, outages
from mailrig.evidence import Evidence
from mailrig.scenario import Gate, load_contract

CONTRACT = load_contract()


def judged(metric, check, evidence, scenario=SMOKE):
    gate = Gate(id="it", kind="gate", metric=metric, check=check)
    return judge(replace(scenario, gates=(gate,)), CONTRACT, evidence).gates[0]


@pytest.mark.parametrize("metric", RUNS)
def test_a_metric_tells_the_good_run_from_the_bad_one_and_says_why(metric):
    check, good, bad, scenario = RUNS[metric]
    assert judged(metric, check, good, scenario).verdict == "pass"
    broken = judged(metric, check, bad, scenario)
    # What did not happen at all has no samples: that is no pass either.
    assert broken.verdict in {"fail", "unknown"}
    assert broken.detail


def test_an_action_that_never_came_to_be_is_named():
    check, good, _, scenario = RUNS["nemesis.undone"]
    more = replace(scenario, nemesis=(*scenario.nemesis, replace(scenario.nemesis[0], action="kill-beat")))
    assert judged("nemesis.undone", check, good, more).detail == ("kill-beat was never done",)


def test_a_healing_that_failed_leaves_the_action_undone():
    ops = (
        op(1, "invoke", "kill-api"),
        op(1, "ok", "kill-api"),
        op(9, "info", "heal", action="kill-api", error="not whole"),
    )
    assert judged("nemesis.undone", "== 0", Evidence(history=ops)).detail[-1] == "kill-api (heal): not whole"


def test_a_sync_that_came_later_than_a_send_started_was_not_overtaken():
    assert METRICS["priority.overtaken"](in_order(0.5, 0.9, 1.2), CONTRACT, SMOKE).samples[0].value == 0


def test_a_message_of_the_same_priority_is_never_overtaken():
    jobs = (job("a", at_s=0), job("b", at_s=0))
    evidence = Evidence(jobs=jobs, executions=(execution("a", 9), execution("b", 1)))
    assert [s.value for s in METRICS["priority.overtaken"](evidence, CONTRACT, SMOKE).samples] == [0, 0]


@pytest.mark.parametrize(
    ("evidence", "wrong"),
    [
        (ticks(0, 30, 60), 0),
        (ticks(0, 30, 33, 60), 1),  # one tick twice; the 27 s behind it are within a beat
        (ticks(0, 75), 1),  # nobody was in its way
        (ticks(0, 75, outage=(20, 65)), 0),
        (ticks(0, 75, 76, 106, outage=(20, 65)), 1),  # caught up with twice
    ],
)
def test_each_tick_comes_once_and_one_makes_up_for_those_that_an_outage_took(evidence, wrong):
    scenario = replace(SMOKE, system=replace(SMOKE.system, time_scale=0.1))
    assert METRICS["beat.ticks_wrong"](evidence, CONTRACT, scenario).samples[0].value == wrong


def test_a_stage_behind_a_slow_one_does_not_count_and_an_end_that_never_came_is_slow():
    scenario = RUNS["capacity.per_s"][3]
    slow_first = stages(*[9] * 10, *[0.1] * 20)
    assert METRICS["capacity.per_s"](slow_first, CONTRACT, scenario).samples[0].value == 0
    never = stages(*[0.1] * 10, *[None] * 10)
    assert METRICS["capacity.per_s"](never, CONTRACT, scenario).samples[0].value == 12


@pytest.mark.parametrize(
    ("task", "error_type", "continued"),
    [("sync_emails", "time-limit", True), ("sync_emails", "imap", False), ("send_email", "time-limit", False)],
)
def test_only_a_task_with_checkpoints_goes_on_behind_its_soft_limit_without_having_failed(task, error_type, continued):
    """What goes on is due at once and as often as it takes; what failed has a backoff and a limit."""
    rows = [
        execution("a", n, n + 0.5, ordinal=n + 1, name=task, outcome="retry", error_type=error_type, due_ns=n * S)
        for n in range(8)
    ]
    evidence = Evidence(jobs=(job("a", name=task),), executions=tuple(rows))
    assert (judged("task.continued", "count >= 1", evidence).verdict == "pass") is continued
    assert (judged("retry.over_limit", "== 0", evidence).verdict == "pass") is continued
    assert (judged("retry.delay_error", "max < 50ms", evidence).verdict == "unknown") is continued


# --- outages ----------------------------------------------------------------------------------------------------------

AWAY = (op(10, "invoke", "lose-redis"), op(10.1, "ok", "lose-redis"), op(13, "ok", "heal", action="lose-redis"))


def test_an_outage_lasts_from_before_the_harm_until_after_the_healing():
    assert [(o.start_ns, o.end_ns) for o in outages(Evidence(history=AWAY), BROKER)] == [(10 * S, 13 * S)]


def test_what_had_no_occasion_is_no_outage_and_what_never_healed_has_no_end():
    nothing = (op(10, "invoke", "pause-redis"), op(15, "info", "pause-redis", error="StackError: no server"))
    assert outages(Evidence(history=nothing), BROKER) == []
    (endless,) = outages(Evidence(history=AWAY[:2]), BROKER)
    assert endless.end_ns > 10**6 * S


def test_only_messages_of_jobs_that_were_open_can_be_lost_with_the_broker():
    jobs = (
        job("done before", at_s=1, finished_s=9),
        job("open", at_s=1, finished_s=11, publishes=2),
        job("asked for meanwhile", at_s=12, finished_s=20),
        job("never done", at_s=5),
        job("later", at_s=14, finished_s=15),
    )
    assert afloat(Evidence(jobs=jobs, history=AWAY)) == 2 + 1 + 1
    assert afloat(Evidence(jobs=jobs)) == 0


def test_sends_that_ran_while_the_database_was_away_may_be_in_doubt_and_no_others():
    ops = tuple(replace(o, f=o.f.replace("lose-redis", "restart-postgres")) for o in AWAY[:2])
    ops += (op(13, "ok", "heal", action="restart-postgres"),)
    ran = (
        execution("before", 1, 9),
        execution("cut", 9, 14),
        execution("meanwhile", 11, 12),
        execution("a sync", 9, 14, name="sync_emails"),
        execution("later", 14, 15),
    )
    assert cut_off(Evidence(executions=ran, history=ops), "email_service.tasks.send_email") == 2
    assert cut_off(Evidence(executions=ran, history=AWAY), "email_service.tasks.send_email") == 0


# --- a broker that was away, in the gates that look at it -------------------------------------------------------------

PROCESSES = ({"kind": "worker", "started_ns": 0, "ended_ns": None, "reason": None, "exit_code": None},)


def sample(at_s, *received_s):
    unacked = [{"task_id": f"t{at}", "received_ns": int(at * S)} for at in received_s]
    return {"time_ns": int(at_s * S), "ready": {"send": 0}, "unacked": unacked}


AWAY_LINE = {"time_ns": 11 * S, "error": "ConnectionError"}


def test_a_broker_that_did_not_answer_is_no_reading_of_what_a_worker_holds():
    evidence = Evidence(processes=PROCESSES, queues=(sample(9, 8, 8.5), AWAY_LINE), history=AWAY)
    assert judged("worker.held", "max <= 4", evidence).observed == 2


def test_a_broker_that_never_answered_leaves_what_is_held_unknown():
    assert judged("worker.held", "max <= 4", Evidence(processes=PROCESSES, queues=(AWAY_LINE,))).verdict == "unknown"


def test_what_was_delivered_before_the_broker_went_is_not_held_behind_it():
    """Its answer met nobody: it stays where it is until the broker gives it out again."""
    queues = (sample(9, 8), AWAY_LINE, sample(14, 8, 13.1, 13.2, 13.3, 13.4))
    evidence = Evidence(processes=PROCESSES, queues=queues)
    assert judged("worker.held", "max <= 4", evidence).verdict == "fail"
    assert judged("worker.held", "max <= 4", replace(evidence, history=AWAY)).verdict == "pass"


def balanced(*, history=(), publishes=1, unacked=0, queues=()):
    jobs = (job("a", at_s=9, finished_s=14, executions=1, refusals=0, publishes=publishes),)
    broker = {"ready": {"send": 0}, "unacked": unacked}
    ran = (execution("a", 13.5, 14),)
    return Evidence(
        jobs=jobs, executions=ran, broker=broker, processes=PROCESSES, history=tuple(history), queues=tuple(queues)
    )


def test_a_message_that_went_with_the_broker_is_accounted_for_and_without_an_outage_it_is_not():
    assert judged("jobs.unbalanced", "== 0", balanced(publishes=2, history=AWAY)).verdict == "pass"
    database = [replace(o, f="restart-postgres") for o in AWAY[:2]]
    assert judged("jobs.unbalanced", "== 0", balanced(publishes=2, history=database)).verdict == "pass"
    assert judged("jobs.unbalanced", "== 0", balanced(publishes=2)).verdict == "fail"


def test_more_than_the_open_jobs_had_is_too_much_to_lose():
    later = balanced(history=AWAY)
    more = (*later.jobs, job("later", at_s=20, finished_s=21, executions=0, refusals=0, publishes=4))
    assert judged("jobs.unbalanced", "== 0", replace(later, jobs=more)).verdict == "fail"


def test_an_answer_that_met_no_broker_leaves_a_stale_entry_and_no_message():
    stale = balanced(unacked=1, publishes=2, history=AWAY, queues=(sample(15, 8),))
    assert judged("jobs.unbalanced", "== 0", stale).verdict == "pass"
    assert judged("jobs.unbalanced", "== 0", replace(stale, history=())).verdict == "fail"
