"""Is the mail right? The send promise, envelopes, Bcc, synced rows, tenants. The outside truth is the fakes' ledger.

Each function counts violations and names them; none of them reads the clock or the system's code.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mailrig.checkers.measurement import Measurement, violations
from mailrig.checkers.outages import cut_off
from mailrig.checkers.view import (
    FINAL,
    SEND_TASK,
    Request,
    accepted,
    address_set,
    by_job,
    completions,
    delivered,
    jobs_by_id,
    requests,
    wanted,
)
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

_ADDRESS: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+\w")
_FOLD: Final = re.compile(r"\r?\n(?=[ \t])")
_FIELD_NAME: Final = re.compile(r"(?m)^([!-9;-~]+)\s*:")
#: How often a recipient in a final state may be in the ledger: at least, at most.
_TIMES: Final[Mapping[str, tuple[int, int]]] = {"sent": (1, 1), "failed": (0, 0), "unknown": (0, 1)}


# --- what was accepted is kept ----------------------------------------------------------------------------------------


def jobs_missing(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Each 202's task id is one job row of its tenant, with the Message-ID that was answered.

    A request whose answer nobody knows (``info``) may have a job or not: both are right, and nobody retried it.
    """
    owed = accepted(evidence)
    return violations(_missing(owed, evidence), judged=len(owed), of="accepted requests")


def _missing(owed: list[Request], evidence: Evidence) -> Iterator[str]:
    jobs, rows = jobs_by_id(evidence), Counter(row["job_id"] for row in evidence.jobs)
    for request in owed:
        task, message_id = request.value["task_id"], request.value.get("message_id")
        if rows[task] != 1:
            yield f"task {task} ({request.f}) was accepted and has {rows[task]} job rows"
        elif message_id is not None and jobs[task]["message_id"] != message_id:
            yield f"task {task} was accepted as {message_id}, its row says {jobs[task]['message_id']}"
    for task, count in Counter(request.value["task_id"] for request in owed).items():
        if count > 1:
            yield f"task {task} was answered to {count} different requests"


def jobs_failed(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Accepted jobs that were given up although nothing definite was wrong."""
    jobs = jobs_by_id(evidence)
    owed = [jobs[r.value["task_id"]] for r in accepted(evidence) if r.value["task_id"] in jobs]
    return violations(
        (
            f"job {row['job_id']} ({row['name']}) failed: {row['error_type']}"
            for row in owed
            if row["state"] == "failed"
        ),
        judged=len(owed),
        of="accepted jobs",
    )


def http_refused(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Requests that were answered by 4xx or 5xx although the load sends valid ones only."""
    answered = [request for request in requests(evidence) if request.answer is not None]
    return violations(
        (
            f"arrival {request.value['arrival']} ({request.f}) was answered by {request.value['status']}"
            for request in answered
            if not request.accepted and request.value.get("status") is not None
        ),
        judged=len(answered),
        of="answered requests",
    )


# --- the send promise -------------------------------------------------------------------------------------------------


def send_promise_broken(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Per (message, recipient): ``sent`` is in the ledger exactly once, ``failed`` never, ``unknown`` at most once.

    Messages with unknowns never exceed killed executions plus injected drops after DATA: one kill leaves one message
    in doubt, with all of its recipients. So may the loss of the database each send that was under way. Recipients of a
    job that is not settled are for ``jobs.unbalanced``.
    """
    sends = [row for row in evidence.jobs if row["name"] == SEND_TASK]
    recipients = by_job(evidence.recipients)
    cases = [
        *_wrong_rows(evidence, recipients),
        *_wrong_counts(sends, recipients, evidence),
        *_too_many_unknown(recipients, evidence),
    ]
    return violations(cases, judged=sum(len(recipients.get(row["job_id"], ())) for row in sends), of="recipients")


def _wrong_rows(evidence: Evidence, recipients: Mapping[str, list[Row]]) -> Iterator[str]:
    """Every 202 has exactly the recipient rows that it asked for."""
    for request in accepted(evidence, "send"):
        task = request.value["task_id"]
        rows = Counter((row["role"], row["address"].lower()) for row in recipients.get(task, ()))
        asked = Counter((role, a.lower()) for role, addresses in wanted(request.value).items() for a in addresses)
        for (role, address), count in (asked - rows).items():
            yield f"task {task}: {role} {address} was asked for, {count} rows are missing"
        for (role, address), count in (rows - asked).items():
            yield f"task {task}: {role} {address} has {count} rows that nobody asked for"


def _wrong_counts(sends: list[Row], recipients: Mapping[str, list[Row]], evidence: Evidence) -> Iterator[str]:
    ledger = _deliveries(evidence)
    for job in sends:
        for row in recipients.get(job["job_id"], ()):
            entries = ledger.pop((job["message_id"], row["address"].lower()), [])
            if row["state"] in _TIMES:
                least, most = _TIMES[row["state"]]
                if not least <= len(entries) <= most:
                    yield f"{job['message_id']} to {row['address']}: {row['state']}, {_seen(entries)}"
            elif job["state"] in FINAL:
                yield f"{job['message_id']} to {row['address']}: {row['state']} though its job is {job['state']}"
    for (message_id, address), entries in ledger.items():
        yield f"{message_id} to {address}: {_seen(entries)}, and no job has this recipient"


def _deliveries(evidence: Evidence) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for entry in delivered(evidence):
        for address in entry["rcpt_to"]:
            found[entry["message_id"], address.lower()].append(entry)
    return found


def _seen(entries: list[Row]) -> str:
    return f"{len(entries)} times in the ledger (entries {', '.join(str(entry['seq']) for entry in entries) or 'none'})"


def _too_many_unknown(recipients: Mapping[str, list[Row]], evidence: Evidence) -> Iterator[str]:
    unknown = [job for job, rows in recipients.items() if any(row["state"] == "unknown" for row in rows)]
    kills = sum(row["outcome"] == "killed" for row in evidence.executions)
    drops = sum(entry.get("replied") is False for entry in delivered(evidence))
    cut = cut_off(evidence, SEND_TASK)
    if len(unknown) > kills + drops + cut:
        without = f"{kills} kills and {drops} drops after DATA" + (f", {cut} sends without a database" if cut else "")
        yield f"{len(unknown)} messages have unknown recipients, with {without}"


# --- envelope and header ----------------------------------------------------------------------------------------------


def envelope_wrong(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """MAIL FROM and the union of RCPT TO over all deliveries of a message are what the request asked for.

    Who is missing must be said to be missing: recipients whose row is not ``sent`` are left out.
    """
    sends = {request.value["message_id"]: request for request in accepted(evidence, "send")}
    transfers: dict[str, list[Row]] = defaultdict(list)
    for entry in delivered(evidence):
        if entry["message_id"] in sends:
            transfers[entry["message_id"]].append(entry)
    recipients = by_job(evidence.recipients)
    cases = (
        case
        for message_id, entries in transfers.items()
        for case in _wrong_envelope(message_id, sends[message_id], entries, recipients)
    )
    return violations(cases, judged=len(transfers), of="delivered messages")


def _wrong_envelope(
    message_id: str, request: Request, entries: list[Row], recipients: Mapping[str, list[Row]]
) -> Iterator[str]:
    asked = address_set(address for addresses in wanted(request.value).values() for address in addresses)
    reached = address_set(address for entry in entries for address in entry["rcpt_to"])
    rows = recipients.get(request.value["task_id"], ())
    excused = address_set(row["address"] for row in rows if row["state"] != "sent")
    for entry in entries:
        if entry["mail_from"].lower() != request.value["mail_from"].lower():
            yield f"{message_id}: MAIL FROM {entry['mail_from']}, asked for {request.value['mail_from']}"
    if reached - asked:
        yield f"{message_id}: RCPT TO {', '.join(sorted(reached - asked))} that nobody asked for"
    if asked - reached - excused:
        yield f"{message_id}: no RCPT TO {', '.join(sorted(asked - reached - excused))}"


def bcc_leaks(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """No header that went over the wire has a Bcc field, nor names an address that is a Bcc recipient only."""
    hidden = {request.value["message_id"]: _bcc_only(request.value) for request in accepted(evidence, "send")}
    entries = delivered(evidence)
    cases = (case for entry in entries for case in _leaks(entry, hidden.get(entry["message_id"], frozenset())))
    return violations(cases, judged=len(entries), of="delivered headers")


def _bcc_only(value: Mapping[str, Any]) -> frozenset[str]:
    roles = wanted(value)
    return address_set(roles["bcc"]) - address_set([*roles["to"], *roles["cc"], value["mail_from"]])


def _leaks(entry: Row, hidden: frozenset[str]) -> Iterator[str]:
    header = _FOLD.sub("", entry["header"])
    fields = [name.lower() for name in _FIELD_NAME.findall(header)]
    if {"bcc", "resent-bcc"} & set(fields):
        yield f"{entry['message_id']} (ledger entry {entry['seq']}): its header has a Bcc field"
    for address in sorted(hidden & address_set(_ADDRESS.findall(header))):
        yield f"{entry['message_id']} (ledger entry {entry['seq']}): its header names the Bcc recipient {address}"


# --- synced rows ------------------------------------------------------------------------------------------------------


def sync_rows_wrong(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Every seeded message is a row exactly once, bytes and all; a seeded folder has no row from nowhere.

    Besides what was seeded, a mailbox may have what the ledger says was delivered to it.
    """
    rows: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in evidence.messages:
        rows[_identity(row)].append(row)
    seeded = {_identity(seed): seed for seed in evidence.seeded}
    cases = [
        *(case for identity, seed in seeded.items() for case in _wrong_row(seed, rows.get(identity, []))),
        *_strangers(evidence, rows, seeded),
    ]
    return violations(cases, judged=len(seeded), of="seeded messages")


def _identity(row: Row) -> tuple[Any, ...]:
    """A message is (folder, UIDVALIDITY, UID); its Message-ID is only what its sender calls it."""
    return row["client_id"], row["folder"], row["uidvalidity"], row["uid"]


def _wrong_row(seed: Row, rows: list[Row]) -> Iterator[str]:
    name = f"{seed['mailbox']} {seed['folder']} uid {seed['uid']}"
    if len(rows) != 1:
        yield f"{name} was seeded and is {len(rows)} rows"
    for row in rows:
        for key in ("sha256", "size_bytes", "message_id"):
            if row[key] != seed[key]:
                yield f"{name}: {key} is {row[key]}, seeded was {seed[key]}"


def _strangers(
    evidence: Evidence, rows: Mapping[tuple[Any, ...], list[Row]], seeded: Mapping[tuple[Any, ...], Row]
) -> Iterator[str]:
    folders = {(seed["client_id"], seed["folder"]) for seed in evidence.seeded}
    arrived = {(entry["message_id"], address.lower()) for entry in delivered(evidence) for address in entry["rcpt_to"]}
    for identity, copies in rows.items():
        if identity in seeded or identity[:2] not in folders:
            continue
        for row in copies:
            if (row["message_id"], row["mailbox"].lower()) not in arrived:
                yield f"{row['mailbox']} {row['folder']} uid {row['uid']} ({row['message_id']}) came from nowhere"
        if len(copies) > 1:
            yield f"{copies[0]['mailbox']} {copies[0]['folder']} uid {copies[0]['uid']} is {len(copies)} rows"


# --- tenants ----------------------------------------------------------------------------------------------------------


def tenant_leaks(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """No row stands under another tenant than its request's, job's or mailbox's, and no feed shows another tenant's."""
    jobs = {row["job_id"]: row["tenant_id"] for row in evidence.jobs}
    clients = {row["client_id"]: row["tenant_id"] for row in evidence.clients}
    cases = [
        *_foreign(evidence.executions, "job_id", jobs, "execution"),
        *_foreign(evidence.recipients, "job_id", jobs, "recipient"),
        *_foreign(evidence.messages, "client_id", clients, "message"),
        *_foreign(evidence.folders, "client_id", clients, "folder"),
        *_foreign([row for row in evidence.jobs if row["client_id"] in clients], "client_id", clients, "job"),
        *_foreign_requests(evidence, jobs, clients),
        *_foreign_mail(evidence),
    ]
    judged = len(evidence.jobs) + len(evidence.messages)
    return violations(cases, judged=judged if evidence.clients else 0, of="rows and mailboxes")


def _foreign(rows: Any, key: str, owners: Mapping[str, str], kind: str) -> Iterator[str]:
    for row in rows:
        owner = owners.get(row[key])
        if owner != row["tenant_id"]:
            yield f"{kind} row of {key} {row[key]} is under {row['tenant_id']}, its owner is {owner}"


def _foreign_requests(evidence: Evidence, jobs: Mapping[str, str], clients: Mapping[str, str]) -> Iterator[str]:
    for request in accepted(evidence):
        task, tenant = request.value["task_id"], request.value["tenant"]
        if jobs.get(task, tenant) != tenant:
            yield f"task {task} of {tenant} is under {jobs[task]}"
        if clients.get(request.value["client_id"], tenant) != tenant:
            yield f"{tenant} was let use client {request.value['client_id']} of {clients[request.value['client_id']]}"
    for task, op in completions(evidence).items():
        if jobs.get(task, op.value["tenant"]) != op.value["tenant"]:
            yield f"the feed of {op.value['tenant']} shows task {task} of {jobs[task]}"


def _foreign_mail(evidence: Evidence) -> Iterator[str]:
    """A seeded Message-ID is of one mailbox, so it may be in rows of that mailbox's tenant only."""
    owners = {seed["message_id"]: seed["tenant_id"] for seed in evidence.seeded}
    for row in evidence.messages:
        owner = owners.get(row["message_id"])
        if owner is not None and owner != row["tenant_id"]:
            yield f"message {row['message_id']} was seeded for {owner} and is a row of {row['tenant_id']}"
