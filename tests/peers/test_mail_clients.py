"""Mail programs of other people against fakemail."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time

import pytest

from fakemail.client import FakeMail

ANN, PASSWORD = "ann@a.example", "canary-password"


@pytest.fixture
def fakes(tmp_path):
    ready = tmp_path / "ready.json"
    argv = [sys.executable, "-m", "fakemail", "--ready-file", str(ready)]
    for name in ("smtp", "smtps", "imap", "imaps", "control"):
        argv += [f"--{name}-port", "0"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    deadline, tick = time.monotonic() + 20, threading.Event()
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        tick.wait(0.01)
    facts = json.loads(ready.read_text())
    control = FakeMail(facts["control"])
    control.add_user(ANN, PASSWORD)
    yield facts, control
    process.terminate()
    assert process.wait(timeout=10) == 0


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_swaks_delivers(program, fakes):
    facts, control = fakes
    server = f"{facts['smtp']['host']}:{facts['smtp']['port']}"
    login = ("--auth", "PLAIN", "--auth-user", ANN, "--auth-password", PASSWORD)
    run(program("swaks", "swaks"), "--server", server, "--from", "x@y.example", "--to", ANN, *login, "--hide-all")
    (entry,) = [e for e in control.ledger() if e["kind"] == "accepted"]
    assert entry["rcpt_to"] == [ANN]


def test_curl_fetches_what_was_seeded(program, fakes):
    facts, control = fakes
    seeded = control.seed(ANN, count=3, seed=5)["messages"]
    url = f"imap://{facts['imap']['host']}:{facts['imap']['port']}/INBOX;UID=2"
    argv = [program("curl", "curl"), "--silent", "--show-error", "--user", f"{ANN}:{PASSWORD}", url]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    assert hashlib.sha256(done.stdout).hexdigest() == seeded[1]["sha256"]


def test_mbsync_pulls_everything_and_then_nothing(program, fakes, tmp_path):
    facts, control = fakes
    control.seed(ANN, count=25, seed=5)
    mail = tmp_path / "mail"
    mail.mkdir()
    config = tmp_path / "mbsyncrc"
    config.write_text(
        f"IMAPAccount fake\nHost {facts['imap']['host']}\nPort {facts['imap']['port']}\nUser {ANN}\nPass {PASSWORD}\n"
        "SSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount fake\n\n"
        f"MaildirStore near\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n"
    )
    mbsync = program("isync", "mbsync")
    run(mbsync, "-c", str(config), "all")
    pulled = [p for p in (mail / "INBOX").rglob("*") if p.is_file() and p.parent.name in {"cur", "new"}]
    assert len(pulled) == 25
    run(mbsync, "-c", str(config), "all")
    again = [p for p in (mail / "INBOX").rglob("*") if p.is_file() and p.parent.name in {"cur", "new"}]
    assert sorted(again) == sorted(pulled)
