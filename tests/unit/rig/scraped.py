"""What the exporter would have told of a recorded run: its rows, counted by the service's own counting.

The checker counts the same rows by itself: each edited run compares the two.
"""

import json
from collections import defaultdict
from pathlib import Path

from email_service.counting import Counts
from mailrig.samples import COUNTED

FINAL = {"succeeded", "failed", "unknown"}


def scrape_again(folder: Path) -> None:
    """Replace the scrapes of a run by one before all and one after it."""
    evidence = folder / "evidence"
    lines = (evidence / "metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0])["time_ns"], json.loads(lines[-1])["time_ns"]
    counts = Counts()
    zero = told(counts)
    for row in rows_of(*(read(evidence / f"{name}.jsonl") for name in ("jobs", "executions", "recipients"))):
        counts.count(row)
    written = [
        {"time_ns": first, "set": zero, "gone": []},
        {"time_ns": last, "set": told(counts), "gone": [], "last": True},
    ]
    (evidence / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def told(counts: Counts) -> dict[str, float]:
    samples = (s for family in counts.families() for s in family.samples if s.name.endswith(COUNTED))
    return {name(s): s.value for s in samples}


def name(sample) -> str:
    labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
    return sample.name + (f"{{{labels}}}" if labels else "")


def rows_of(jobs, executions, recipients):
    """What the exporter's statements answer; a job comes with the execution that ended last."""
    ran, reached = defaultdict(list), defaultdict(list)
    for row in executions:
        ran[row["job_id"]].append(row)
    for row in recipients:
        reached[row["job_id"]].append([row["state"], row["reply_code"]])
    known = {job["job_id"]: job for job in jobs}
    for job_id, rows in ran.items():
        job = known.get(job_id, {})
        for row in rows:
            settles = row is max(rows, key=lambda r: r["ordinal"]) and job.get("state") in FINAL
            yield execution_row(row, job, settled=job_facts(job, rows, reached[job_id]) if settles else {})
    for job_id, job in known.items():
        if job_id not in ran and job["state"] in FINAL:
            yield {"outcome": None, "proven": None, **place(job), **job_facts(job, [], reached[job_id])}


def place(row):
    return {"name": row["name"], "queue": row["queue"], "trace_id": row["trace_id"], "trace_flags": "01"}


def execution_row(row, job, *, settled):
    return {
        **place(row),
        "ordinal": row["ordinal"],
        "outcome": row["outcome"],
        "error_type": row["error_type"],
        "steps": row["steps"],
        "duration_s": ran_s(row) if row["ended_ns"] is not None else None,
        "queue_s": (row["started_ns"] - max(row["due_ns"], job.get("created_ns", 0))) / 1e9,
        "state": None,
        "proven": None,
        **settled,
    }


def job_facts(job, executions, recipients):
    return {
        "state": job["state"],
        "job_error_type": job["error_type"],
        "failures": job["failures"],
        "worker_s": sum(ran_s(row) for row in executions if row["ended_ns"] is not None),
        "recipients": recipients,
    }


def ran_s(row):
    return (row["ended_ns"] - row["started_ns"]) / 1e9
