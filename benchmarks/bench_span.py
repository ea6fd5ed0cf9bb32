"""What a span costs: ours, from its start to its line on the disk, beside the SDK with its stock exporters."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import SpanKind

from email_service import telemetry
from email_service.telemetry.lines import Constant

STATEMENT = {
    "db.system.name": "postgresql",
    "db.namespace": "mail",
    "server.address": "127.0.0.1",
    "server.port": 5432,
    "db.query.summary": "UPDATE jobs",
    "db.query.text": "UPDATE jobs SET state = :state, updated_at = now() WHERE id = :id AND lease = :lease " * 4,
}
#: Ours are known to be the same for each statement.
KNOWN = Constant(STATEMENT)
SPANS = 200


class Nowhere(SpanExporter):
    """Takes spans and drops them: what the SDK costs before anything is written."""

    def export(self, spans):  # noqa: ARG002  # the base class's signature
        return SpanExportResult.SUCCESS


def of_a_statement(tracer, attributes):
    for _ in range(SPANS):
        tracer.start_span("UPDATE jobs", kind=SpanKind.CLIENT, attributes=attributes).end()


def of_a_step(tracer):
    for _ in range(SPANS):
        with tracer.start_as_current_span(
            "smtp send", kind=SpanKind.CLIENT, attributes={"mail.smtp.recipients": 1}
        ) as span:
            span.set_attribute("mail.smtp.reply_code", 250)


@pytest.fixture(params=[1.0, 0.0], ids=["kept", "unsampled"])
def ours(request, tmp_path):
    telemetry.shutdown()
    telemetry.configure("worker", span_dir=tmp_path, otlp_endpoint=None, ratio=request.param)
    with telemetry.tracer("bench").start_as_current_span("root"):
        yield telemetry.tracer("bench")
    telemetry.shutdown()


@pytest.fixture(params=["batch to nowhere", "each line to a file"])
def the_sdk(request, tmp_path):
    provider = TracerProvider(resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
    with (tmp_path / "spans").open("w") as file:
        if request.param == "batch to nowhere":
            provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        else:
            exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
            provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("bench").start_as_current_span("root"):
            yield provider.get_tracer("bench")
        provider.shutdown()


@pytest.mark.benchmark(group=f"{SPANS} spans of a statement")
def bench_statement(benchmark, ours):
    benchmark(of_a_statement, ours, KNOWN)


@pytest.mark.benchmark(group=f"{SPANS} spans of a statement")
def bench_statement_by_the_sdk(benchmark, the_sdk):
    benchmark(of_a_statement, the_sdk, STATEMENT)


@pytest.mark.benchmark(group=f"{SPANS} spans of a step")
def bench_step(benchmark, ours):
    benchmark(of_a_step, ours)


@pytest.mark.benchmark(group=f"{SPANS} spans of a step")
def bench_step_by_the_sdk(benchmark, the_sdk):
    benchmark(of_a_step, the_sdk)
