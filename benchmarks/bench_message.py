"""What a message costs: building and parsing it, beside the standard library's way in the same run."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest

from email_service import message
from email_service.message import patient, spam
from fakemail.synthesis import synthesise

OUTGOING = message.OutgoingMessage(
    message_id="<one@a.example>",
    date=datetime(2026, 1, 1, tzinfo=UTC),
    mail_from="ann@a.example",
    to=("bob@b.example",),
    cc=(),
    bcc=(),
    subject="A subject",
    text="A line of text.\n" * 100,
    html=None,
    attachments=(("report.pdf", "application/pdf", bytes(range(256)) * 64),),
)
RAW = [synthesise(seed=1, address="ann@a.example", folder="INBOX", uid=uid) for uid in range(1, 41)]


@pytest.mark.benchmark(group="build 25 kB")
def bench_build(benchmark):
    assert benchmark(message.build, OUTGOING)


@pytest.mark.benchmark(group="parse 40 messages")
def bench_parse(benchmark):
    assert len(benchmark(lambda: [message.parse(raw) for raw in RAW])) == len(RAW)


@pytest.mark.benchmark(group="parse 40 messages")
def bench_parse_patiently(benchmark):
    assert len(benchmark(lambda: [patient.read(raw) for raw in RAW])) == len(RAW)


@pytest.mark.benchmark(group="score 40 messages")
def bench_score(benchmark):
    mails = [spam.Suspect.of(message.parse(raw)) for raw in RAW]
    assert len(benchmark(lambda: [spam.score(mail) for mail in mails])) == len(RAW)


@pytest.mark.benchmark(group="parse 40 messages")
def bench_parse_with_the_standard_library(benchmark):
    def parse():
        return [[p.get_content_type() for p in message_from_bytes(raw, policy=policy.default).walk()] for raw in RAW]

    assert len(benchmark(parse)) == len(RAW)


@pytest.mark.benchmark(group="synthesise 40 messages")
def bench_synthesise(benchmark):
    def synthesised():
        return [synthesise(seed=1, address="ann@a.example", folder="INBOX", uid=uid) for uid in range(1, 41)]

    assert len(benchmark(synthesised)) == len(RAW)
