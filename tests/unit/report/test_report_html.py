"""The page: what is on it, that text stays text, and that half a run gives half a page."""

import json
import shutil
from pathlib import Path

import pytest
from markup_reader import Page
from synthetic import MIXED, Builder, gate, span_line, verdict, write_lines, write_verdict

from mailrig.report import write_reports

SECTIONS = ("gates", "timeline", "workers", "traces", "memory", "outcomes", "nemesis", "tenants", "leaks", "files")
CHARTS = ("events", "throughput", "accept", "e2e", "queues", "held", "lanes", "memory-total", "memory-process")
PAYLOAD = """<script>alert(1)</script><img src=x onerror=alert(2)>"'`&\x00\ud800|javascript:"""
ALLOWED = {
    *("html", "head", "meta", "link", "title", "style", "body", "main", "script", "header", "nav", "section", "figure"),
    *(
        "figcaption",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "span",
        "strong",
        "code",
        "a",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "b",
        "i",
    ),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    *("svg", "defs", "pattern", "g", "rect", "line", "circle", "path", "text", "desc"),
}


def page_of(folder: Path) -> Page:
    write_reports(folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def data_of(folder: Path) -> dict:
    """What the scripts of the page read."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def rows_of(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "evidence" / f"{name}.jsonl").read_text().splitlines()]


def change_lines(file: Path, change) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_lines(file, [change(row) for row in rows])


# --- what is on it ----------------------------------------------------------------------------------------------------


def test_the_three_reports_are_written_beside_the_evidence(run_dir):
    assert [path.name for path in write_reports(run_dir)] == ["junit.xml", "report.md", "report.html"]
    assert not [file for file in run_dir.iterdir() if file.name.startswith(".")], "a temporary file was left behind"


def test_every_section_and_every_chart_is_there(run_dir):
    page = page_of(run_dir)
    ids = page.attributes("id")
    assert [id_ for id_ in ids if id_ in SECTIONS] == list(SECTIONS)
    assert [id_.removeprefix("chart-") for id_ in ids if id_.startswith("chart-")] == list(CHARTS)
    assert len(ids) == len(set(ids)), "two elements share an id"
    assert page.unclosed == []
    assert "could not be drawn" not in page.text


def test_every_chart_has_a_title_and_a_description_that_its_image_refers_to(run_dir):
    page = page_of(run_dir)
    plots = page.classed("plot")
    assert len(plots) == len(CHARTS)
    for _, attributes in plots:
        assert attributes["role"] == "img"
        assert set(attributes["aria-labelledby"].split()) <= set(page.attributes("id"))


def test_the_headline_says_what_failed_and_where_the_run_came_from(run_dir):
    page = page_of(run_dir)
    for words in ("fail synthetic", "not: send-promise, traces", "62efc7f", "2024-06-07 09:29:51 UTC", "Linux"):
        assert words in page.text


def test_each_gate_shows_what_was_observed_against_what_is_allowed(run_dir):
    page = page_of(run_dir)
    assert len(page.classed("gate")) == len(MIXED["gates"])
    for words in ("12.3456 ms", "p99 < 100ms", "318.438 MiB", "nothing", "<2@x> to c@d: sent twice"):
        assert words in page.text
    unfolded = [attributes for tag, attributes in page.elements if tag == "details" and "open" in attributes]
    assert len(unfolded) == 3, "the cases of all gates that do not pass are unfolded"


def test_a_killed_execution_is_marked_in_its_lane_and_stands_among_the_slowest(run_dir):
    page = page_of(run_dir)
    assert len(page.classed("o-killed")) == 2, "its bar, and the legend"
    assert len(page.classed("kill")) == 1
    rows = [attributes for tag, attributes in page.elements if tag == "tr" and "data-x" in attributes]
    killed = [row["execution_id"] for row in rows_of(run_dir, "executions") if row["outcome"] == "killed"]
    assert [row["data-x"] for row in rows if row["data-x"] in killed] == killed
    assert any("send_email: killed (worker-lost)" in tip for tip in page.attributes("data-tip"))


def test_lanes_show_every_execution_under_the_main_process_that_started_it(restarted):
    page = page_of(restarted)
    executions = (restarted / "evidence" / "executions.jsonl").read_text().splitlines()
    bars = [item for item in page.classed("bar") if "data-tip" in item[1]]
    assert len(bars) == len(executions)
    for words in ("main 4200", "main 4300", "started again", "child 4304"):
        assert words in page.text


def test_the_budgets_come_from_the_contract_and_are_left_out_without_one(run_dir):
    assert {"budget: 512 MiB", "budget: 150 MiB", "allowed: 4"} <= set(page_of(run_dir).texts)
    (run_dir / "contract.toml").unlink()
    page = page_of(run_dir)
    assert "budget" not in page.text
    assert page.classed("limit") == []


def test_what_the_nemesis_did_stands_with_its_healing(run_dir):
    text = page_of(run_dir).text
    assert "lose-message" in text
    assert "(its job succeeded)" in text
    assert "greylist" in text
    assert "smtp.rcpt, first 3: reply 451 4.7.1 Try again later" in text


def test_links_to_files_are_relative_and_lead_to_files(run_dir):
    (run_dir / "logs" / "javascript:alert 1#?.log").write_text("a name that is no address")
    links = [link for link in page_of(run_dir).attributes("href") if not link.startswith(("#", "data:,"))]
    assert "evidence/spans.jsonl" in links
    assert "logs/javascript%3Aalert%201%23%3F.log" in links
    assert not [link for link in links if ":" in link or link.startswith("/")]


def test_the_same_folder_gives_the_same_page(run_dir):
    write_reports(run_dir)
    first = (run_dir / "report.html").read_bytes()
    write_reports(run_dir)
    assert (run_dir / "report.html").read_bytes() == first


# --- text stays text --------------------------------------------------------------------------------------------------

#: Keys whose values are words of ours, times or ids of spans: not for anybody else to choose.
FIXED = {
    *("type", "f", "kind", "state", "outcome", "process", "reason", "traceId", "spanId", "parentSpanId", "trace_id"),
    *("startTimeUnixNano", "endTimeUnixNano", "key", "intValue"),
}


def poison(value, key=""):
    if isinstance(value, dict):
        # A queue may have any name, and is a key.
        return {(k + PAYLOAD if key == "ready" else k): poison(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(item, key) for item in value]
    return value + PAYLOAD if isinstance(value, str) and key not in FIXED else value


def poisoned(folder: Path) -> Path:
    for file in sorted((folder / "evidence").glob("*.jsonl")):
        change_lines(file, poison)
    change_lines(folder / "history.jsonl", lambda op: op if op["f"] == "phase" else poison(op))
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({k: poison(v, k) for k, v in run.items()}))
    gates = [{k: poison(v, k) for k, v in one.items()} for one in MIXED["gates"]]
    write_verdict(folder, {**MIXED, "gates": gates, "scenario": PAYLOAD, "mutant": PAYLOAD, "verdict": PAYLOAD})
    (folder / "scenario.toml").write_text(
        "description = '''<script>alert(1)</script>'''\n[[fault]]\nid = '<script>'\npoint = '<b>'\nwhen = 3\n"
    )
    return folder


def test_nothing_that_came_from_outside_becomes_markup(run_dir):
    page = page_of(poisoned(run_dir))
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in page.text, "the page shows none of it"
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert page.unclosed == []
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "src"
    ]
    assert "could not be drawn" not in page.text
    raw = (run_dir / "report.html").read_bytes()
    assert b"\x00" not in raw


def test_data_for_the_script_can_not_end_its_element(run_dir):
    write_reports(poisoned(run_dir))
    text = (run_dir / "report.html").read_text()
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["charts"]["queues"]["series"], "cut short"


def test_the_page_forbids_itself_to_load_anything_and_any_script_but_ours(run_dir):
    page = page_of(run_dir)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "script-src 'sha256-" in policy
    text = (run_dir / "report.html").read_text()
    assert "http://" not in text
    assert "https://" not in text


# --- half a run -------------------------------------------------------------------------------------------------------

FILES = (
    *("run.json", "scenario.toml", "contract.toml", "verdict.json", "history.jsonl"),
    *(f"evidence/{name}.jsonl" for name in ("jobs", "executions", "recipients", "messages", "clients")),
    *(f"evidence/{name}.jsonl" for name in ("ledger", "processes", "queues", "memory", "spans")),
)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_leaves_the_rest_of_the_page(run_dir, name):
    (run_dir / name).unlink()
    page = page_of(run_dir)
    assert [id_ for id_ in page.attributes("id") if id_ in SECTIONS] == list(SECTIONS)
    assert "could not be drawn" not in page.text
    assert "can't be made out" not in page.text
    assert page.unclosed == []


@pytest.mark.parametrize("name", FILES)
def test_a_torn_file_is_reported_and_leaves_the_rest_of_the_page(run_dir, name):
    file = run_dir / name
    file.write_bytes(file.read_bytes()[:-9] + b"\xff")
    page = page_of(run_dir)
    assert "with the run's files" in page.text
    assert name in page.text
    assert [id_ for id_ in page.attributes("id") if id_ in SECTIONS] == list(SECTIONS)


def test_an_empty_folder_gives_a_page_without_data(tmp_path):
    page = page_of(tmp_path)
    assert "This run was never judged" in page.text
    assert page.text.count("no data") >= 6
    assert page.unclosed == []


@pytest.mark.parametrize("key", ["value", "started_ns", "ended_ns", "job_id", "ready", "unacked", "processes", "name"])
def test_values_of_another_type_spoil_their_section_at_most(run_dir, key):
    for file in [run_dir / "history.jsonl", *(run_dir / "evidence").glob("*.jsonl")]:
        change_lines(file, lambda row: row | {key: ["?"]} if key in row else row)
    assert [id_ for id_ in page_of(run_dir).attributes("id") if id_ in SECTIONS] == list(SECTIONS)


@pytest.mark.parametrize("inner", ["intended_ns", "task_id", "time_ns", "pid", "name", "arrival", "ended_ns"])
def test_values_of_another_type_inside_an_operation_spoil_their_section_at_most(run_dir, inner):
    change_lines(
        run_dir / "history.jsonl",
        lambda op: op | {"value": op["value"] | ({inner: {"a": [1]}} if inner in op["value"] else {})},
    )
    assert [id_ for id_ in page_of(run_dir).attributes("id") if id_ in SECTIONS] == list(SECTIONS)


def test_a_recorded_run_of_another_maker_is_drawn_whole(tmp_path):
    folder = Path(shutil.copytree(Path(__file__).parents[2] / "runs" / "tiny", tmp_path / "tiny"))
    page = page_of(folder)
    assert "could not be drawn" not in page.text
    assert [id_.removeprefix("chart-") for id_ in page.attributes("id") if id_.startswith("chart-")] == list(CHARTS)


# --- big runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """A run with more of everything than a page can show; its queues are sampled every 20 ms for two minutes."""
    builder = Builder(sends_per_s=40, syncs_per_s=6, duration_s=120)
    builder._queues = lambda _jobs, end_ns: [
        {"time_ns": time_ns, "ready": {"send": 900 if time_ns == builder.peak_ns else 1}, "unacked": []}
        for time_ns in range(end_ns - 120_000_000_000, end_ns, 20_000_000)
    ]
    builder.peak_ns = 1_717_752_600_000_000_000 + 64_000_000_000
    folder = builder.write(tmp_path_factory.mktemp("big") / "run")
    write_verdict(folder, verdict(gate("held", detail=["x" * 5000] * 10)))
    return folder


@pytest.fixture(scope="module")
def big_page(big) -> Page:
    """Its page, which two tests look at."""
    return page_of(big)


def test_a_big_run_is_thinned_below_three_megabytes_and_says_so(big, big_page):
    page = big_page
    assert (big / "report.html").stat().st_size < 3_000_000
    assert len([item for item in page.classed("bar") if "data-tip" in item[1]]) == 3000
    assert "short successes" in page.text
    assert page.classed("o-killed"), "what was killed is never thinned away"
    assert "this page thins big runs" in page.text


def test_thinning_keeps_the_highest_sample(big_page):
    descriptions = [text for text in big_page.texts if text.startswith("Highest depth")]
    assert descriptions == ["Highest depth: send 900."]


def test_a_trace_of_thousands_of_spans_keeps_its_errors_and_their_ancestors(run_dir):
    spans = [json.loads(line) for line in (run_dir / "evidence" / "spans.jsonl").read_text().splitlines()]
    first = next(row for row in spans if row["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "process sync")
    inner = first["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    common = {
        "trace_id": inner["traceId"],
        "start": int(inner["startTimeUnixNano"]),
        "end": int(inner["endTimeUnixNano"]),
    }
    many = [span_line(span_id=f"m{n}", parent=inner["spanId"], name="SELECT", **common) for n in range(3000)]
    deep = [span_line(span_id="d0", parent="m2999", name="deep", error=True, **common | {"end": common["start"] + 1})]
    one = [row for row in spans if f'"{inner["traceId"]}"' in json.dumps(row)]
    jobs = [json.loads(line) for line in (run_dir / "evidence" / "jobs.jsonl").read_text().splitlines()]
    own = next(job for job in jobs if job["trace_id"] == inner["traceId"])
    executions = run_dir / "evidence" / "executions.jsonl"
    change_lines(executions, lambda row: row | ({"outcome": "killed"} if row["job_id"] == own["job_id"] else {}))
    write_lines(run_dir / "evidence" / "spans.jsonl", one + many + deep)
    page_of(run_dir)
    traces = data_of(run_dir)["traces"]
    trace = next(trace for trace in traces["list"] if trace["id"] == inner["traceId"])
    assert trace["spans"] > 3000
    assert len(trace["rows"]) == 150
    names = [traces["strings"][row[1]] for row in trace["rows"]]
    assert names[names.index("deep") - 1] == "SELECT"
