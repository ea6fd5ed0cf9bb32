"""A fifth of the traces kept: whole ones, the right ones, and every number stays what it was."""

from __future__ import annotations

import json
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from service_processes import process
from waiting import until

from email_service.telemetry.context import sampled

RATIO, SENDS = 0.2, 40


def test_a_fifth_of_the_traces_is_kept_whole_and_all_executions_are_counted(live, tmp_path):
    account, before = live.accounts[0], sent(live)
    with process(
        live, tmp_path, "api", "--port", "0", MAIL_TRACE_SAMPLE=str(RATIO), MAIL_SPAN_DIR=str(tmp_path / "api")
    ) as api:
        ids = [accept(api.facts["url"], account) for _ in range(SENDS)]
        assert {live.settled(account, task_id)["state"] for task_id in ids} == {"succeeded"}
    query = "SELECT job_id, trace_id, span_id FROM audit.executions WHERE job_id = ANY(%s)"
    rows = live.rows(query, ids)
    kept = {row["trace_id"] for row in rows if sampled(int(row["trace_id"], 16), RATIO)}
    assert len({row["trace_id"] for row in rows}) == len(rows) == SENDS
    assert 0 < len(kept) < SENDS
    folders = (live.stack._options.span_dir, tmp_path / "api")

    def processed():
        return {s["spanId"] for s in spans(folders) if s["name"] == "process send"}

    expected = {row["span_id"] for row in rows if row["trace_id"] in kept}
    until(lambda: expected <= processed(), what="the spans of the traces that are kept")
    traces = {row["trace_id"] for row in rows}
    assert {s["traceId"] for s in spans(folders) if s["traceId"] in traces} == kept
    assert {s["traceId"] for s in spans(folders) if s["name"].startswith("POST ") and s["traceId"] in traces} == kept
    until(lambda: sent(live) - before == SENDS, what="the count of all sends")


def accept(api_url, account):
    body = {"client_id": account.clients[0][0], "to": ["one@outside.example"], "subject": "s", "text": "t\n"}
    headers = {"Authorization": f"Bearer {account.token}", "Content-Type": "application/json"}
    url = f"{api_url}/api/v1/{account.tenant}/email/send"
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())["task_id"]


def sent(live):
    """Sends that succeeded, as the exporter counts them."""
    with urllib.request.urlopen(live.stack.exporter_url, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return sum(
        s.value
        for f in families
        for s in f.samples
        if s.name == "mail_task_success_total" and "send" in s.labels["queue"]
    )


def spans(folders):
    for folder in folders:
        for path in folder.glob("*.jsonl"):
            for line in path.read_text().splitlines():
                yield json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
