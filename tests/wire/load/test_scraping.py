"""The rig's scrapes of an exporter that is there, away and back."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mailrig import scraping
from mailrig.scraping import MetricsSampler

SENT = 'mail_recipients_total{state="sent"}'


class Metrics(BaseHTTPRequestHandler):
    """Answers what the server holds; 500 for as many times as it is away."""

    def do_GET(self):
        server = self.server
        server.asked.release()
        body = f"# TYPE x gauge\nmail_worker_capacity 4.0\n{SENT} {server.sent}\n# EOF\n".encode()
        self.send_response(500 if server.away else 200)
        server.away = max(server.away - 1, 0)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """No line per scrape."""


@pytest.fixture
def exporter(monkeypatch):
    monkeypatch.setattr(scraping, "_EVERY_S", 0.01)
    monkeypatch.setattr(scraping, "_LAST_EVERY_S", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    server.sent, server.away, server.asked = 1.0, 0, threading.Semaphore(0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def sampler(exporter, tmp_path):
    made = MetricsSampler(f"http://127.0.0.1:{exporter.server_port}", tmp_path / "metrics.jsonl")
    made.start()
    scraped(exporter)
    yield made
    made.stop()


def scraped(exporter):
    """Waits for two scrapes: one may have begun before."""
    while exporter.asked.acquire(blocking=False):
        pass
    for _ in range(2):
        assert exporter.asked.acquire(timeout=10)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_the_first_line_says_everything_and_the_next_what_is_new(exporter, sampler, tmp_path):
    exporter.sent = 2.0
    scraped(exporter)
    sampler.stop()
    first, *rest = lines(tmp_path)
    assert first["set"] == {"mail_worker_capacity": 4.0, SENT: 1.0}
    changes = [line["set"] for line in rest if line["set"] and not line.get("last")]
    assert changes == [{SENT: 2.0}]


def test_the_last_line_is_after_the_end_and_says_everything(exporter, sampler, tmp_path):
    exporter.sent = 9.0
    sampler.stop()
    *_, last = lines(tmp_path)
    assert (last["last"], last["set"]) == (True, {"mail_worker_capacity": 4.0, SENT: 9.0})


def test_an_exporter_that_is_away_is_told_and_waited_for(exporter, sampler, tmp_path):
    exporter.away = 5
    sampler.stop()
    said = lines(tmp_path)
    assert any(line.get("error") == "HTTPError" for line in said)
    assert said[-1]["last"]


def test_an_exporter_that_does_not_come_back_leaves_no_last_line(exporter, sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(scraping, "_LAST_WITHIN_S", 0.05)
    exporter.away = 10**9
    scraped(exporter)
    sampler.stop()
    assert not any(line.get("last") for line in lines(tmp_path))
