"""CPU time by execution, on literal runs."""

import pytest

from mailrig.checkers import METRICS
from mailrig.evidence import Evidence
from mailrig.history import Op
from mailrig.scenario import load_contract, load_scenario

CONTRACT, SMOKE = load_contract(), load_scenario("smoke")
S = 1_000_000_000


def phase(name, at_s):
    return Op(index=0, time_ns=at_s * S, process="runner", type="info", f="phase", value={"name": name}, error=None)


def reading(at_s, **cpu_s):
    return {"time_ns": at_s * S, "processes": [{"pid": int(pid[1:]), "cpu_s": value} for pid, value in cpu_s.items()]}


def measured(*memory, executions=4):
    run = Evidence(
        memory=memory,
        executions=tuple({"started_ns": (11 + i) * S} for i in range(executions)),
        history=(phase("warmup", 5), phase("load", 10), phase("heal", 20)),
    )
    return METRICS["worker.cpu_per_execution"](run, CONTRACT, SMOKE)


def test_cpu_time_is_that_under_load_and_a_process_that_came_later_counts_from_nothing():
    found = measured(
        reading(6, p1=1.0, p2=9.0),
        reading(10, p1=2.0, p2=10.0),
        reading(15, p1=3.0, p2=10.5),
        reading(19, p1=4.0, p3=1.5),
    )
    assert [sample.value for sample in found.samples] == [pytest.approx((2.0 + 0.5 + 1.5) / 4)]
    assert found.kind == "s"


@pytest.mark.parametrize(
    ("memory", "executions"),
    [
        ([], 4),
        ([reading(11, p1=1.0)], 4),
        ([reading(11, p1=1.0), reading(30, p1=2.0)], 4),
        ([reading(11, p1=1.0), reading(19, p1=2.0)], 0),
        ([{"time_ns": t * S, "processes": [{"pid": 1, "pss_bytes": 1}]} for t in (11, 19)], 4),
    ],
)
def test_what_was_not_read_is_not_known(memory, executions):
    found = measured(*memory, executions=executions)
    assert not found.samples
    assert found.reason
