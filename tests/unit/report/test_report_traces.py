"""From an execution to its trace and its log lines: where its time went, which are shown, and what the page carries."""

import hashlib
import importlib
import json
import random
import re

import pytest
from markup_reader import Page
from synthetic import MIXED, MS, T0, S, gate, log_line, span_line, verdict, write_lines, write_verdict

from mailrig.evidence import flatten_spans
from mailrig.report import breakdown, bundle, loglines, write_reports
from mailrig.report.executions import SLOWEST, TROUBLED, Execution, picked
from mailrig.report.folder import load_folder
from mailrig.report.links import Links, jaeger_url, trace_of
from mailrig.report.traces import tree

#: The package has a function of the same name.
view = importlib.import_module("mailrig.report.view")
TRACE = "ab" * 16
SQL = {"db.system.name": "postgresql"}


def process(span_id="p", *, start=0, end=240, parent=None, name="process send", **attributes):
    return span_line(
        trace_id=TRACE, span_id=span_id, parent=parent, name=name, start=T0 + start * MS, end=T0 + end * MS, kind=5,
        attributes={"mail.execution.id": f"x-{span_id}", "mail.execution.outcome": "succeeded", **attributes},
    )  # fmt: skip


def inner(name, start, end, *, span_id=None, parent="p", attributes=None, kind=3):
    return span_line(
        trace_id=TRACE, span_id=span_id or f"{name}{start}", parent=parent, name=name, start=T0 + start * MS,
        end=T0 + end * MS, attributes=attributes, kind=kind,
    )  # fmt: skip


def spent(*lines):
    """The breakdown of each execution of a trace."""
    found = breakdown.executions(tree(flatten_spans(lines), TRACE))
    return {row.execution_id: told for row, told in found}


def pieces(told):
    return {piece.step: piece.took_ns // MS for piece in told.pieces}


# --- where the time went ----------------------------------------------------------------------------------------------


def test_a_breakdown_tells_both_waits_the_run_and_its_steps():
    lines = [
        process(**{"mail.queue_time_s": 1.203, "mail.prefetch_wait_s": 0.003, "messaging.destination.name": "send"}),
        inner("smtp connect", 6, 10),
        inner("smtp auth", 10, 12),
        inner("smtp send", 12, 222),
        inner("UPDATE jobs", 222, 234, attributes=SQL),
    ]
    assert spent(*lines)["x-p"].text == (
        "waited 1.20 s in queue send · held 3.00 ms · ran 240 ms: "
        "smtp connect 4.00 ms, auth 2.00 ms, send 210 ms, SQL 12 ms, rest 12 ms"
    )


def test_of_spans_that_overlap_the_innermost_counts_and_nothing_counts_twice():
    lines = [
        process(end=100),
        inner("imap fetch", 10, 90, span_id="f"),
        inner("INSERT mail", 20, 30, parent="f", attributes=SQL),
        inner("UPDATE mail", 80, 95, attributes=SQL),
        inner("imap select", 85, 92),
    ]
    # The rows are stored while the fetch goes on; of two siblings the later one counts.
    told = spent(*lines)["x-p"]
    assert pieces(told) == {"imap fetch": 60, "SQL": 18, "imap select": 7, "rest": 15}
    assert sum(piece.took_ns for piece in told.pieces) == told.run_ns


@pytest.mark.parametrize("seed", range(20))
def test_the_pieces_add_up_to_the_run_whatever_the_spans_say(seed):
    chance = random.Random(seed)
    ids = ["p", *(f"s{n}" for n in range(30))]
    lines = [process(start=50, end=150)]
    for n in range(30):
        start = chance.randrange(0, 200)
        name, attributes = chance.choice([("smtp send", None), ("SELECT x", SQL), ("else", None)])
        # A clock that jumps, a parent that comes later, an end before the start.
        end = start + chance.randrange(-20, 120)
        lines.append(inner(name, start, end, span_id=f"s{n}", parent=chance.choice(ids), attributes=attributes))
    told = spent(*lines)["x-p"]
    assert sum(piece.took_ns for piece in told.pieces) == told.run_ns == 100 * MS
    assert all(piece.took_ns >= 0 for piece in told.pieces)


def test_what_another_execution_did_is_not_this_ones_time():
    lines = [
        process(end=100),
        inner("send spam", 10, 14, span_id="c", kind=4),
        process("q", start=20, end=60, parent="c", name="process spam"),
        inner("SELECT mail", 30, 50, parent="q", attributes=SQL),
    ]
    told = spent(*lines)
    assert pieces(told["x-p"]) == {"publish": 4, "rest": 96}
    assert pieces(told["x-q"]) == {"SQL": 20, "rest": 20}


@pytest.mark.parametrize(
    ("queue_s", "held_s", "waits"), [(0.5, 0.2, (300, 200)), (0.1, 0.2, (0, 200)), ("x", -1, (0, 0))]
)
def test_the_hold_is_the_end_of_the_wait_and_never_more_than_it(queue_s, held_s, waits):
    told = spent(process(**{"mail.queue_time_s": queue_s, "mail.prefetch_wait_s": held_s}))["x-p"]
    assert (told.queue_ns // MS, told.held_ns // MS) == waits


def test_links_that_lead_elsewhere_are_notes():
    line = process(parent="creation")
    span = line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    span["links"] = [{"traceId": TRACE, "spanId": "creation"}, {"traceId": "cd" * 16, "spanId": "ef" * 8}]
    (row,) = tree(flatten_spans([line]), TRACE)
    assert row.notes == ("parent missing", f"link: trace {'cd' * 16} span {'ef' * 8}")


# --- which are shown --------------------------------------------------------------------------------------------------


def execution(number, *, took_ms=10, outcome="succeeded", task="send_email"):
    return Execution(
        execution_id=f"x{number}", task_id=f"t{number}", trace_id=f"trace{number}", task=task, queue="send", ordinal=1,
        outcome=outcome, error_type="", tenant_hash="", node="", pid=1, due_ns=T0, received_ns=T0, started_ns=T0,
        ended_ns=T0 + took_ms * MS,
    )  # fmt: skip


def test_what_a_gate_names_comes_first_then_what_went_wrong_then_the_slowest_of_each_task():
    found = [execution(n, took_ms=1000 + n) for n in range(300)]
    found += [execution("quick", took_ms=1), execution("dead", took_ms=2, outcome="killed")]
    found += [execution("sync", took_ms=5, task="sync_emails")]
    listed = list(picked(found, {"tracequick": "send-promise"}))
    assert [(e.execution_id, why) for e, why in listed[:3]] == [
        ("xquick", "named by send-promise"), ("xdead", "killed"), ("x299", "slowest"),
    ]  # fmt: skip
    assert "xsync" in {e.execution_id for e, _ in listed[: 3 * SLOWEST]}
    assert any(why == "typical" and e.execution_id == "x149" for e, why in listed)
    assert len(listed) == len({e.execution_id for e, _ in listed}) == len(found)


def test_a_flood_of_one_outcome_hides_no_other():
    found = [execution(n, took_ms=1000 + n, outcome="failed") for n in range(5 * TROUBLED)]
    listed = list(picked([*found, execution("dead", took_ms=1, outcome="killed")], {}))
    assert "xdead" in {e.execution_id for e, _ in listed[:3]}


def test_a_row_of_an_execution_without_spans_tells_what_its_row_knows(run_dir):
    (run_dir / "evidence" / "spans.jsonl").unlink()
    seen = view.view(load_folder(run_dir))
    assert len(seen.shown) == len(seen.folder.executions)
    assert all(shown.spent.pieces == () for shown in seen.shown)
    assert any(shown.spent.run_ns for shown in seen.shown)
    write_reports(run_dir)
    page = Page((run_dir / "report.html").read_text())
    assert "Slowest executions" in page.text
    assert not [attributes for _, attributes in page.elements if "data-t" in attributes]


def test_the_tenant_is_named_as_spans_and_log_lines_name_it(run_dir):
    write_reports(run_dir)
    page = Page((run_dir / "report.html").read_text())
    assert hashlib.sha256(b"acme").hexdigest()[:16] in page.text


def test_the_table_is_whole_without_a_script(run_dir):
    write_reports(run_dir)
    page = Page((run_dir / "report.html").read_text())
    seen = view.view(load_folder(run_dir))
    rows = [attributes for tag, attributes in page.elements if tag == "tr" and "data-x" in attributes]
    assert len(rows) == len(seen.shown)
    for shown in seen.shown:
        assert shown.spent.text in page.attributes("aria-label"), "a bar is told to those who can not see it"
        assert shown.execution.task_id in page.text


# --- what the page carries --------------------------------------------------------------------------------------------


def test_a_page_carries_traces_until_they_take_too_much_room(monkeypatch):
    lines = [process(), *(inner(f"smtp {n}", n, n + 1) for n in range(50))]
    rows = tree(flatten_spans(lines), TRACE)
    monkeypatch.setattr(bundle, "BYTES_MAX", 20_000)
    found = bundle.bundle(((f"{n:032x}", rows) for n in range(100)), {})
    size = len(json.dumps(found.data, separators=(",", ":")))
    assert 20_000 < size < 30_000
    assert 1 < len(found.index) < 20
    assert list(found.index.values()) == list(range(len(found.index)))


def test_a_trace_is_loaded_only_if_its_spans_fit_into_memory(monkeypatch):
    monkeypatch.setattr(view, "SPANS_LOADED_MAX", 100)
    assert view._affordable(["big", "a", "b", "a", "none"], {"big": 101, "a": 60, "b": 40}) == ["a", "b"]


def test_big_runs_say_what_is_left_out_and_how_to_see_it(run_dir, monkeypatch):
    monkeypatch.setattr(view, "ROWS_MAX", 5)
    monkeypatch.setattr(bundle, "TRACES_MAX", 3)
    write_reports(run_dir)
    text = Page((run_dir / "report.html").read_text()).text
    assert re.search(r"5 of \d+ executions, 3 traces on this page", text)
    assert "mailrig trace RUN ID" in text


def test_the_page_says_how_whole_the_traces_are(run_dir):
    folder, spans = load_folder(run_dir), run_dir / "evidence" / "spans.jsonl"
    lines = spans.read_text().splitlines(keepends=True)
    number = len(folder.executions)
    assert f"{len(lines)} spans in" in view.view(folder).wholeness
    assert (
        f"{number} expected, {number} found, 0 lost · 1 made from the row after a kill." in view.view(folder).wholeness
    )
    first = next(line for line in lines if f'"{folder.executions[0]["execution_id"]}"' in line)
    killed = next(line for line in lines if '"mail.synthesised"' in line)
    spans.write_text("".join(line for line in lines if line != first) + killed + "{torn")
    write_reports(run_dir)
    text = Page((run_dir / "report.html").read_text()).text
    assert f"{number} expected, {number - 1} found, 1 lost ({100 / number:.2g} %)" in text
    assert "1 there twice" in text


def test_of_traces_that_are_not_sampled_nothing_is_expected(run_dir):
    run = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(run | {"trace_sample": 0.5}))
    folder = load_folder(run_dir)
    kept = [row for row in folder.executions if int(row["trace_id"][16:], 16) < 2**63]
    assert 0 < len(kept) < len(folder.executions)
    told = view.view(folder).wholeness
    assert f"{len(kept)} expected, {len(kept)} found, 0 lost" in told
    assert told.endswith("traces sampled: 50 %.")


# --- log lines --------------------------------------------------------------------------------------------------------


def logs_of(tmp_path, *rows, raw=""):
    (tmp_path / "logs").mkdir()
    write_lines(tmp_path / "logs" / "worker.log", rows)
    with (tmp_path / "logs" / "worker.log").open("a") as file:
        file.write(raw)
    return loglines.log_lines(tmp_path, {TRACE: TRACE, "task-1": TRACE})


def test_a_line_belongs_to_the_trace_it_names_or_to_that_of_its_task(tmp_path):
    found = logs_of(
        tmp_path,
        log_line(T0 + 2 * S, "INFO", "second", trace_id=TRACE),
        log_line(T0 + S, "ERROR", "first", task_id="task-1"),
        log_line(T0, "INFO", "another's", trace_id="cd" * 16, task_id="task-1"),
        log_line(T0, "INFO", "nobody's"),
    )
    assert [line.message for line in found[TRACE].lines] == ["another's", "first", "second"]


def test_lines_that_are_torn_or_no_json_are_left_out(tmp_path):
    torn = f'{{"trace_id": "{TRACE}", "time": "no time"}}\n[{TRACE}] INFO text\n{{"trace_id": "{TRACE}", "mess'
    found = logs_of(tmp_path, log_line(T0, "INFO", "whole", trace_id=TRACE), raw=torn)
    assert [line.message for line in found[TRACE].lines] == ["whole"]


def test_of_too_many_lines_the_first_the_last_and_the_loud_ones_stay(tmp_path):
    rows = [log_line(T0 + n * S, "ERROR" if n == 500 else "INFO", f"line {n}", trace_id=TRACE) for n in range(1000)]
    told = logs_of(tmp_path, *rows)[TRACE]
    messages = [line.message for line in told.lines]
    assert messages[0] == "line 0"
    assert "line 500" in messages
    assert messages[-1] == "line 999"
    assert len(messages) + told.left == 1000
    assert len(messages) <= loglines.FIRST_MAX + loglines.LAST_MAX + loglines.LOUD_MAX


def test_the_page_has_the_log_lines_of_a_killed_execution(run_dir):
    write_reports(run_dir)
    text = (run_dir / "report.html").read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])["traces"]
    killed = next(trace for trace in data["list"] if any("killed" in run[0] for run in trace["runs"]))
    messages = [data["strings"][line[4]] for line in killed["logs"]]
    assert "Task send_email starting" in messages
    assert any("was lost" in message for message in messages)


# --- links ------------------------------------------------------------------------------------------------------------


def test_ids_of_executions_tasks_and_traces_lead_to_the_trace(run_dir):
    folder = load_folder(run_dir)
    row = folder.executions[0]
    known = trace_of(folder)
    assert {known[row["execution_id"]], known[row["job_id"]], known[row["trace_id"]]} == {row["trace_id"]}


def test_a_known_id_inside_a_case_is_a_link_and_all_else_stays_text(run_dir):
    row = load_folder(run_dir).executions[0]
    case = f"<b>{row['job_id']}@acme.example</b> was sent twice by nobody-knows-00000000"
    write_verdict(run_dir, verdict(gate("promise", "fail", detail=[case])))
    write_reports(run_dir)
    page = Page((run_dir / "report.html").read_text())
    assert case.replace(" ", "") in page.text.replace(" ", "")
    assert "b" not in {tag for tag, attributes in page.elements if not attributes}
    assert f"#trace-{row['trace_id']}" in page.attributes("href")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:16686", "http://127.0.0.1:16686"),
        ("https://traces.example/jaeger/", "https://traces.example/jaeger"),
        ("javascript:alert(1)//", None),
        ("http://[half", None),
        ("http://user:secret@traces.example", None),
        ("//traces.example", None),
        (7, None),
        (None, None),
    ],
)
def test_only_a_web_address_is_a_jaeger(given, url):
    assert jaeger_url({"jaeger_url": given}) == url


def test_with_a_jaeger_every_trace_has_a_link_to_it(run_dir):
    run = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(run | {"jaeger_url": "http://127.0.0.1:16686/"}))
    write_reports(run_dir)
    page = Page((run_dir / "report.html").read_text())
    links = {link for link in page.attributes("href") if link.startswith("http")}
    shown = view.view(load_folder(run_dir)).shown
    assert links == {f"http://127.0.0.1:16686/trace/{one.execution.trace_id}" for one in shown}


def test_a_trace_id_that_is_none_never_becomes_an_address():
    links = Links(known={"x" * 8: "../../evil"}, jaeger="http://jaeger")
    assert links.text("x" * 8) == ["x" * 8]


# --- the search for secrets -------------------------------------------------------------------------------------------


def test_sinks_that_were_searched_stand_with_what_was_found(run_dir):
    hits = [{"secret": f"mailbox {n}", "where": "worker.log"} for n in range(7)]
    rows = [
        {"sink": "spans", "bytes": 4096, "places": 3, "secrets_searched": 96, "hits": [], "hits_total": 0},
        {"sink": "logs", "bytes": 12, "places": 1, "secrets_searched": 96, "hits": hits, "hits_total": 9},
        {"sink": "odd", "hits": "?", "error": "no such place"},
    ]
    write_lines(run_dir / "evidence" / "leaks.jsonl", rows)
    write_verdict(run_dir, MIXED)
    write_reports(run_dir)
    text = Page((run_dir / "report.html").read_text()).text
    assert "spans 4.0 KiB 3 96 nothing" in text
    assert "logs 12 B 1 96 mailbox 0 in worker.log; mailbox 1 in worker.log" in text
    assert "mailbox 4 in worker.log; and 4 more" in text
    assert "no such place" in text
