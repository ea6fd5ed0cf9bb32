"""The pure parts: axes, traces as trees, lanes, values as text."""

import itertools
import re

import pytest
from synthetic import MS, T0, S, span_line

from mailrig.evidence import flatten_spans
from mailrig.report import plot, words
from mailrig.report.figures import tasks
from mailrig.report.folder import RunFolder, load_folder
from mailrig.report.markup import Markup, element
from mailrig.report.timeline import Axis, axis, percentile, phases, requests
from mailrig.report.traces import candidates, thin, tree
from mailrig.report.workers import groups, held, running

AXIS = Axis(origin_ns=T0, start_ns=T0 - 2 * S, end_ns=T0 + 28 * S)


def spans(*edges, **values):
    """Spans of one trace from (id, parent) pairs."""
    lines = [
        span_line(trace_id="t", span_id=own, parent=parent, name=own, start=index, end=index + 1, **values)
        for index, (own, parent) in enumerate(edges)
    ]
    return list(flatten_spans(lines))


# --- time -------------------------------------------------------------------------------------------------------------


def test_zero_is_the_start_of_the_warm_up_and_the_axis_ends_with_the_drain(built):
    found = axis(load_folder(built))
    assert (found.origin_ns, found.start_ns, found.end_ns) == (T0, T0, T0 + 29 * S)
    assert [phase.name for phase in phases(load_folder(built))][2:6] == ["warmup", "load", "heal", "drain"]


def test_without_phases_the_axis_spans_what_was_observed():
    folder = RunFolder(path=None, queues=({"time_ns": 5}, {"time_ns": 9}))
    assert axis(folder) == Axis(origin_ns=5, start_ns=5, end_ns=9)
    assert axis(RunFolder(path=None)) is None


def test_a_bin_begins_at_zero_and_bins_cover_the_axis():
    starts = AXIS.bins()
    assert T0 in starts
    assert starts[0] <= AXIS.start_ns
    assert starts[-1] + AXIS.bin_ns >= AXIS.end_ns


@pytest.mark.parametrize("seconds", [1, 25, 599, 3_600, 86_400, 700_000])
def test_there_are_never_more_bins_or_ticks_than_a_chart_can_show(seconds):
    long = Axis(origin_ns=T0, start_ns=T0, end_ns=T0 + seconds * S)
    assert len(long.bins()) <= 601
    assert 1 <= len(plot._tick_seconds(long)) <= 14


def test_percentiles_are_by_nearest_rank():
    assert [percentile([4, 1, 3, 2], rank) for rank in (0, 25, 50, 95, 100)] == [1, 1, 2, 4, 4]


def test_latency_counts_from_the_intended_time(built):
    for request in requests(load_folder(built)):
        assert request.accept_ns == request.answered_ns - request.intended_ns
        assert request.e2e_ns == request.settled_ns - request.intended_ns


# --- scales -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [0, 0.3, 1, 3, 4, 5, 7, 12, 99, 100, 512, 1234.5])
@pytest.mark.parametrize("whole", [False, True])
def test_a_linear_scale_covers_its_values_with_ticks_that_do_not_touch(top, whole):
    scale = plot.linear(top, 112, whole=whole)
    assert scale.high >= top * 0.999
    places = [scale.at(value) for value, _ in scale.ticks]
    assert all(before - after >= 14 for before, after in itertools.pairwise(places))
    assert len({label for _, label in scale.ticks}) == len(scale.ticks)
    if whole:
        assert all(float(value).is_integer() for value, _ in scale.ticks)


@pytest.mark.parametrize(("low_ms", "high_ms"), [(5, 40), (1, 1), (0, 0), (3, 2500), (0.01, 600_000)])
def test_a_logarithmic_scale_covers_its_values_with_ticks_that_do_not_touch(low_ms, high_ms):
    scale = plot.logarithmic([low_ms * MS, high_ms * MS], 118)
    assert 0 <= scale.at(high_ms * MS) <= scale.at(low_ms * MS) <= 118
    places = [scale.at(value) for value, _ in scale.ticks]
    assert len(places) >= 2
    assert all(before - after >= 9 for before, after in itertools.pairwise(places))


def test_thinned_points_keep_the_highest_and_stay_in_order():
    points = [(T0 + n * MS, float(n % 97)) for n in range(20_000)]
    thinned = plot.thin_points([*points, (T0 + 20 * S, 500.0)], AXIS, 100)
    assert len(thinned) <= 100
    assert max(value for _, value in thinned) == 500
    assert [time for time, _ in thinned] == sorted(time for time, _ in thinned)


def test_a_silence_breaks_a_line_of_percentiles():
    series = plot.Series(
        name="p50", colour="", points=((T0, 1.0), (T0 + S, 2.0), (T0 + 9 * S, 1.0)), unit="ns", step=False, gap_ns=3 * S
    )
    path = plot._path(AXIS, plot.linear(2, 100), series)
    assert re.findall("[ML]", path) == ["M", "L", "M"]


# --- traces -----------------------------------------------------------------------------------------------------------


def test_spans_stand_below_their_parents_in_the_order_of_their_starts():
    rows = tree(spans(("root", None), ("b", "root"), ("a", "root"), ("c", "b")), "t")
    assert [(row.depth, row.name) for row in rows] == [(0, "root"), (1, "b"), (2, "c"), (1, "a")]


def test_a_span_without_its_parent_is_a_root_that_says_so_unless_it_answers_a_caller():
    (inner,) = tree(spans(("inner", "gone")), "t")
    (server,) = tree(spans(("server", "gone"), kind=2), "t")
    assert inner.notes == ("parent missing",)
    assert server.notes == ()


def test_parents_in_a_circle_lose_no_span():
    rows = tree(spans(("root", None), ("a", "b"), ("b", "a"), ("self", "self")), "t")
    assert sorted(row.name for row in rows) == ["a", "b", "root", "self"]


def test_a_trace_deeper_than_the_stack_of_python_is_drawn():
    chain = [("0", None), *((str(n), str(n - 1)) for n in range(1, 3000))]
    assert tree(spans(*chain), "t")[-1].depth == 2999


def test_a_thinned_trace_keeps_what_says_something_with_its_ancestors():
    rows = tree(spans(("root", None), *((f"x{n}", "root") for n in range(500)), ("deep", "x250")), "t")
    rows = tuple(row if row.name != "deep" else _noted(row) for row in rows)
    kept = [row.name for row in thin(rows, 10)]
    assert len(kept) == 10
    assert kept[0] == "root"
    assert kept.index("deep") == kept.index("x250") + 1


def _noted(row):
    return type(row)(**{name: getattr(row, name) for name in row.__dataclass_fields__} | {"notes": ("error",)})


def test_the_slowest_are_from_after_the_warm_up_unless_there_is_nothing_else(built):
    folder = load_folder(built)
    found = candidates(folder)
    assert not any(candidate.warmup for candidate in (*found.send, *found.sync))
    took = [candidate.took_ns for candidate in found.send]
    assert took == sorted(took, reverse=True)
    warm = [
        op | {"value": op["value"] | {"warmup": True}}
        for op in folder.history
        if op["f"] in {"send", "sync", "complete"}
    ]
    assert all(candidate.warmup for candidate in candidates(RunFolder(path=None, history=tuple(warm))).send)


# --- workers ----------------------------------------------------------------------------------------------------------


def test_children_stand_under_the_main_process_that_was_alive_when_they_were_born(restarted):
    folder = load_folder(restarted)
    first, second = groups(folder, axis(folder))
    assert (first.pid, first.reason, second.pid) == (4200, "killed", 4300)
    assert [lane.pid for lane in first.lanes] == [4201, 4202, 4203, 4204, 4211]
    assert [lane.pid for lane in second.lanes] == [4301, 4302, 4303, 4304]


def test_a_killed_execution_ends_where_its_process_was_killed(restarted):
    folder = load_folder(restarted)
    killed = [
        bar
        for group in groups(folder, axis(folder))
        for lane in group.lanes
        for bar in lane.bars
        if bar.outcome == "killed"
    ]
    kills = [op["time_ns"] for op in folder.history if op["f"].startswith("kill-")]
    assert killed
    assert {bar.end_ns for bar in killed} == set(kills)


def test_no_more_than_four_run_and_are_held_in_the_synthetic_run(restarted):
    folder = load_folder(restarted)
    assert max(number for _, number in running(folder, axis(folder))) == 4
    assert max(number for _, number in held(folder)) == 4
    assert running(folder, axis(folder))[-1][1] == 0


def test_entries_of_a_worker_that_died_are_held_by_nobody():
    sample = {
        "time_ns": 100,
        "ready": {},
        "unacked": [{"task_id": "a", "received_ns": 10}, {"task_id": "b", "received_ns": 60}],
    }
    worker = {"kind": "worker", "pid": 1}
    folder = RunFolder(path=None, queues=(sample,), processes=(worker | {"started_ns": 1}, worker | {"started_ns": 50}))
    assert held(folder) == [(100, 1)]


def test_what_began_before_its_row_was_made_did_not_wait():
    row = {
        "execution_id": "x", "job_id": "j", "name": "periodic_sync", "queue": "periodic", "pid": 1,
        "started_ns": T0, "ended_ns": T0 + S, "due_ns": T0 + 400 * MS,
    }  # fmt: skip
    folder = RunFolder(path=None, executions=(row,))
    assert tasks(folder)[0].queue_ns == (0, 0)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_line_without_what_every_reader_needs_is_left_out_and_named(run_dir):
    file = run_dir / "evidence" / "executions.jsonl"
    before = len(load_folder(run_dir).executions)
    with file.open("a") as lines:
        lines.write('{"execution_id": "x"}\n[1]\n{"torn\n\n')
    folder = load_folder(run_dir)
    assert len(folder.executions) == before
    assert [problem.partition(": ")[2] for problem in folder.problems] == [
        "job_id is missing or of another type",
        "not an object",
        "torn: not JSON",
    ]


def test_a_thousand_torn_lines_are_not_a_thousand_problems(run_dir):
    (run_dir / "history.jsonl").write_text("{\n" * 1000)
    assert len(load_folder(run_dir).problems) == 21
    assert load_folder(run_dir).problems[-1] == "and 980 more"


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ms"),
        (420_000, "0.42 ms"),
        (123 * MS, "123 ms"),
        (1.32 * S, "1.32 s"),
        (125 * S, "2 min 05 s"),
        (None, words.NOTHING),
    ],
)
def test_durations_have_the_unit_of_their_size(nanoseconds, text):
    assert words.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("observed", "unit", "text"),
    [
        (0, "", "0"),
        (1234567, "", "1,234,567"),
        (150.0004, "MiB", "150 MiB"),
        (0.1 + 0.2, "s", "0.3 s"),
        (None, "s", "nothing"),
        ("odd", "", "odd"),
        (True, "", "True"),
    ],
)
def test_what_was_observed_is_written_with_its_unit(observed, unit, text):
    assert words.observed({"observed": observed, "unit": unit}) == text


def test_only_markup_goes_into_markup_as_it_is():
    cell = element("td", "<b>", Markup("<i></i>"), ["&", None, 3], class_='a"b', data_tip="<", hidden=True, id=None)
    assert cell == '<td class="a&quot;b" data-tip="&lt;" hidden>&lt;b&gt;<i></i>&amp;3</td>'
