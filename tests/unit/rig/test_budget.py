"""The memory limit to set, from literal samples and executions."""

from __future__ import annotations

import json
import random

import pytest

from mailrig import cli
from mailrig.budget import MIB, BudgetError, estimate, own_mix, parse_mix

#: The truth of the literal run: shared by all, a child's own, and what each task adds, MiB.
SHARED, IDLE, SEND, SYNC = 80, 50, 4, 20
CHILDREN = (101, 102, 103, 104)


def sample(at_s, sizes, *, shared=SHARED, group=None, **more):
    """A worker of a parent and these children; shared pages are charged to all alike, as the kernel does it."""
    each = shared / (len(sizes) + 1)
    kids = [
        {"pid": pid, "kind": "worker-child", "pss_bytes": int((each + own) * MIB), "uss_bytes": int(own * MIB)}
        for pid, own in sizes.items()
    ]
    main = {"pid": 100, "kind": "worker-main", "pss_bytes": int(each * MIB), "uss_bytes": 0}
    return {"time_ns": int(at_s * 1e9), "processes": [main | (group or {}), *kids], **more}


def execution(number, pid, start_s, end_s, *, name="send_email", extra=SEND):
    return {
        "execution_id": f"e{number}",
        "name": f"shop.tasks.{name}",
        "pid": pid,
        "started_ns": int(start_s * 1e9),
        "ended_ns": int(end_s * 1e9),
        "pss_before_bytes": 60 * MIB,
        "pss_peak_bytes": (60 + extra) * MIB,
    }


def quiet(seconds=30, children=CHILDREN, **more):
    return [sample(i / 2, dict.fromkeys(children, IDLE), **more) for i in range(seconds * 2)]


def mixed():
    """Of eight tasks seven are sends."""
    return [
        execution(
            i, CHILDREN[i % 4], 4 + i / 8, 4.1 + i / 8, **({"name": "sync_emails", "extra": SYNC} if i % 8 == 7 else {})
        )
        for i in range(160)
    ]


def test_the_budget_is_the_truth_of_the_run():
    found = estimate(quiet(), mixed())
    assert found.shared.estimate == pytest.approx(SHARED * MIB, rel=0.001)
    assert found.idle.estimate == pytest.approx(IDLE * MIB)
    assert {task.name: task.peak.estimate / MIB for task in found.tasks} == {"send_email": SEND, "sync_emails": SYNC}
    assert found.need(4) == pytest.approx((SHARED + 4 * (IDLE + SYNC)) * MIB, rel=0.001)
    assert found.limit(4, margin=0.2) == 432 * MIB
    assert found.children == 4


def test_what_is_shared_is_counted_once_however_many_share_it():
    """A child's PSS falls as children come; a budget by PSS of two children would be wrong for eight."""
    two, four = estimate(quiet(children=CHILDREN[:2]), []), estimate(quiet(), [])
    assert two.need(8) == pytest.approx(four.need(8), rel=0.001)
    assert two.need(8) == pytest.approx((SHARED + 8 * IDLE) * MIB, rel=0.001)


@pytest.mark.parametrize("limit_mib", [100, 240, 512, 4096])
def test_what_fits_a_limit_is_the_highest_concurrency_that_needs_no_more(limit_mib):
    found = estimate(quiet(), mixed())
    count = found.fits(limit_mib * MIB, margin=0.2)
    assert count == 0 or found.need(count) * 1.2 <= limit_mib * MIB
    assert found.need(count + 1) * 1.2 > limit_mib * MIB


def test_a_mix_needs_less_than_the_heaviest_task_in_every_slot_and_more_than_the_lightest():
    found = estimate(quiet(), mixed())
    assert found.need(8, own_mix(found)) < found.need(8)
    assert found.need(8, {"send_email": 1.0}) == pytest.approx((SHARED + 8 * (IDLE + SEND)) * MIB, rel=0.01)
    assert found.need(8, {"sync_emails": 1.0}) == pytest.approx((SHARED + 8 * (IDLE + SYNC)) * MIB, rel=0.01)


def test_what_a_mix_needs_grows_with_the_slots_without_a_leap():
    """Few slots are drawn, many are computed; the two meet."""
    found = estimate(quiet(), mixed())
    mix = {"send_email": 7.0, "sync_emails": 1.0}
    extra = [found.need(n, mix) - found.need(n, {"send_email": 1.0}) for n in (4, 16, 64, 100, 101, 200)]
    assert extra[:4] == sorted(extra[:4])
    assert 0.9 < extra[4] / extra[3] < 1.1
    assert extra[5] > extra[4]


def test_a_peak_that_only_a_sample_saw_counts():
    memory = quiet()
    memory[20] = sample(10, dict.fromkeys(CHILDREN, IDLE) | {102: IDLE + 30})
    work = [execution(i, 102, 4 + i, 4.1 + i, extra=0) for i in range(5)] + [execution(9, 102, 9.8, 10.2, extra=0)]
    task = estimate(memory, work).tasks[0]
    assert task.peak.estimate == 30 * MIB


def test_what_tasks_leave_behind_is_not_the_peak_of_the_next_one():
    """A process that is never idle grows by 1 MiB a second: each task of 0.6 s needs what it adds itself."""
    memory = [sample(i / 2, dict.fromkeys(CHILDREN, IDLE) | {101: IDLE + i / 2}) for i in range(60)]
    work = [execution(i, 101, 0.1 + i * 0.6, 0.69 + i * 0.6, extra=0) for i in range(45)]
    assert estimate(memory, work).tasks[0].peak.high <= 1 * MIB


def test_what_the_first_task_of_a_process_brings_is_idle_memory_and_no_peak():
    work = [execution(0, 101, 3.1, 3.2, extra=25), *(execution(i, 101, 4 + i, 4.1 + i, extra=2) for i in range(1, 9))]
    assert estimate(quiet(), work).tasks[0].peak.high == 2 * MIB


def test_a_sample_in_which_a_child_is_being_replaced_is_left_out():
    memory = quiet()
    memory[30] = sample(15, dict.fromkeys(CHILDREN[:3], IDLE), shared=10)
    assert estimate(memory, []).shared.low == pytest.approx(SHARED * MIB, rel=0.001)


def test_the_upper_bound_grows_with_the_scatter():
    chance = random.Random(5)
    rough = [sample(i / 2, {pid: IDLE + chance.uniform(-10, 10) for pid in CHILDREN}) for i in range(60)]
    assert estimate(rough, []).need(4) > estimate(quiet(), []).need(4)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ([], "no memory samples of a worker"),
        (quiet(seconds=3), "0 memory samples after the first 3 s; 8 are needed"),
        ([{"time_ns": 1, "processes": [{"pid": 1, "kind": "worker-child", "pss_bytes": None}]}], "no PSS"),
    ],
)
def test_too_little_is_told_and_nothing_is_guessed(memory, words):
    with pytest.raises(BudgetError, match=words):
        estimate(memory, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("delete=1", "'delete' is not the beginning of one task's name; the run has send_email, sync_emails"),
        ("s=1", "'s' is not the beginning of one task's name"),
        ("send=many", "'send=many' is not TASK=SHARE"),
        ("send=0", "'send=0' is not TASK=SHARE"),
    ],
)
def test_a_mix_of_what_was_not_seen_is_refused(text, words):
    with pytest.raises(BudgetError, match=words):
        parse_mix(text, estimate(quiet(), mixed()))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "watched"
    (folder / "evidence").mkdir(parents=True)
    group = {"cgroup_bytes": 300 * MIB, "cgroup_limit_bytes": 512 * MIB}
    lines = quiet(read_cpu_ns=2_500_000, group=group)
    (folder / "evidence" / "memory.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "evidence" / "executions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in mixed()))
    return folder


def test_the_command_says_the_limit_to_set_and_what_fits(run, capsys):
    assert cli.main(["budget", str(run), "--concurrency", "4", "--limit", "512MiB", "--mix", "send=3,sync=1"]) == 0
    told = capsys.readouterr().out
    assert "limit to set for concurrency 4: 432 MiB" in told
    assert "80.0 + 4 x (50.0 + 20.0) = 360.0 MiB at the upper bounds, 20% more, the next 16 MiB" in told
    assert "concurrency that fits 512 MiB: 4" in told
    assert "by the mix send_email 75%, sync_emails 25%" in told
    assert "a reading takes 2.5 ms of CPU" in told
    assert "300.0 MiB at most, of 512" in told


def test_the_command_answers_machines_in_bytes(run, capsys):
    assert cli.main(["budget", str(run), "--json", "--margin", "0"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["concurrency"] == 4
    assert answer["limit_bytes"] == 368 * MIB
    assert answer["fits"] == 6
    assert answer["found"]["tasks"][1]["name"] == "sync_emails"


@pytest.mark.parametrize("arguments", [("--limit", "lots"), ("--concurrency", "0"), ("--margin", "-1")])
def test_a_number_that_is_none_is_refused_with_what_is_allowed(run, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["budget", str(run), *arguments])
    assert ended.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_line(tmp_path, capsys):
    assert cli.main(["budget", "--runs-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
