"""python -m fakemail as a process: options, files, signals."""

import imaplib
import os
import signal
import smtplib
import socket
import subprocess
import sys

import pytest
from fakemail_harness import DEADLINE_S, FREE_PORTS, running

CONFIG = """
[[user]]
address = "ann@example.test"
password = "secret"
seed = 3

[[fault]]
id = "greylist"
point = "smtp.rcpt"
when = { first = 1 }
action = { reply = "451 4.7.1 Try again later" }
"""


def fails(*options):
    """Standard error of a run that must end with 2 and one line."""
    command = [sys.executable, "-m", "fakemail", *FREE_PORTS, *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def bodies(fakes):
    fakes.control.add_user("ann@example.test", "secret")
    answer = fakes.control.seed("ann@example.test", count=20, seed=11)
    client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    client.login("ann@example.test", "secret")
    client.select("INBOX", readonly=True)
    _, data = client.fetch("1:*", "(UID INTERNALDATE RFC822)")
    client.logout()
    return answer, data


def test_two_processes_with_the_same_seed_hold_the_same_mail():
    with running("--seed", "9") as one, running("--seed", "9") as other:
        assert bodies(one) == bodies(other)


def test_a_config_brings_users_mail_and_faults(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text(CONFIG)
    with running("--config", str(path)) as fakes:
        folders = fakes.control.mailbox("ann@example.test")["folders"]
        assert sum(len(folder["messages"]) for folder in folders) == 3
        assert fakes.control.faults()[0]["id"] == "greylist"


def test_it_stops_cleanly_with_clients_connected():
    with running() as fakes:
        imap = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
        smtp = smtplib.SMTP(*fakes.address("smtp"), timeout=10)
        fakes.process.send_signal(signal.SIGINT)
        assert fakes.process.wait(timeout=DEADLINE_S) == 0
    imap.shutdown()
    smtp.close()


def test_the_ready_file_says_where_everything_is():
    with running() as fakes:
        assert fakes.facts["pid"] == fakes.process.pid
        assert set(fakes.facts) == {"pid", "smtp", "smtps", "imap", "imaps", "control"}
        for name in ("smtp", "smtps", "imap", "imaps"):
            socket.create_connection(fakes.address(name), timeout=10).close()


def test_a_port_that_is_taken_is_named_with_its_option():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name in ("smtp", "imaps", "control"):
            line = fails(f"--{name}-port", str(port))
            assert f"127.0.0.1:{port}" in line
            assert f"--{name}-port" in line


@pytest.mark.parametrize(
    "options", [("--smtp-port", "70000"), ("--host", "no.such.host.invalid"), ("--ready-file", "/nowhere/x")]
)
def test_an_option_that_can_not_be_used_is_one_line(options):
    assert options[0] in fails(*options)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[[user]\n", 1, ""),
        (CONFIG.replace('point = "smtp.rcpt"', 'point = "smtp.rcpd"'), 9, "smtp.rcpt"),
        (CONFIG.replace("first = 1", "first = 0"), 10, "from 1 up"),
        (CONFIG.replace("password", "pasword"), 2, "password"),
        (CONFIG.replace("seed = 3", 'seed = "x"'), 5, "whole number"),
        (CONFIG.replace("ann@example.test", "ann"), 3, "local-part@domain"),
        ("[faults]\n", 1, "[[fault]]"),
        ("user = 3\n", 1, "[[user]]"),
    ],
)  # fmt: skip
def test_a_broken_config_is_told_with_file_line_and_what_is_allowed(tmp_path, text, line, words):
    path = tmp_path / "fakes.toml"
    path.write_text(text)
    told = fails("--config", str(path))
    assert f"{path}:{line}: " in told
    assert words in told


def test_a_config_that_is_not_there(tmp_path):
    assert "No such file" in fails("--config", str(tmp_path / "none.toml"))


def test_help_has_examples_and_needs_no_port():
    command = [sys.executable, "-m", "fakemail", "--help"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment, check=True)
    assert "examples:" in done.stdout
    assert "--ready-file" in done.stdout
