"""python -m fakemail as a process: options, files, signals, small commands."""

import contextlib
import imaplib
import json
import os
import select
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from fakemail_harness import DEADLINE_S, FREE_PORTS, running

from fakemail.client import ControlError, FakeMail

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


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error"}


def ran(*words, **options):
    """A command that has ended."""
    command = [sys.executable, "-m", "fakemail", *words]
    given = {"capture_output": True, "text": True, "timeout": DEADLINE_S, "env": ENVIRONMENT}
    return subprocess.run(command, check=False, **(given | options))


def fails(*options, code=2):
    """Standard error of a run that must end with 2 and one line."""
    done = ran(*FREE_PORTS, *options)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
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
        assert set(fakes.facts) == {"pid", "version", "smtp", "smtps", "imap", "imaps", "control"}
        for name in ("smtp", "smtps", "imap", "imaps"):
            socket.create_connection(fakes.address(name), timeout=10).close()


def test_what_is_written_can_be_read_by_others(tmp_path):
    path = tmp_path / "ca.pem"
    with running("--ca-file", str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert [each.name for each in tmp_path.iterdir()] == ["ca.pem"], "nothing else is left"


@contextlib.contextmanager
def started(*options, **streams):
    """A fakemail on free ports that says on its standard output where it is."""
    command = [sys.executable, "-m", "fakemail", "--free-ports", "--ready-file", "-", *options]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
    process = subprocess.Popen(command, **(given | streams))
    try:
        assert select.select([process.stdout], [], [], DEADLINE_S)[0], "fakemail is not ready"
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, b"")


def test_the_standard_output_can_be_the_ready_file_and_then_holds_nothing_else():
    with started() as (process, facts):
        assert facts["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b""


def test_it_ends_with_its_standard_input():
    with started("--stop-with-stdin") as (process, _):
        process.stdin.write(b"anything\n")
        process.stdin.flush()
        assert not select.select([process.stdout], [], [], 0.2)[0], "what comes is not listened to"
        process.stdin.close()
        assert process.wait(timeout=DEADLINE_S) == 0
        process.stdin = None


def test_it_ends_with_a_parent_that_was_killed(tmp_path):
    """The parent holds the pipe and can't close it: the system does."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "up.json")], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait(timeout=DEADLINE_S)
    parent.stdout.close()
    deadline = time.monotonic() + DEADLINE_S
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is left"
        select.select([], [], [], 0.02)


PARENT = """
import json, pathlib, subprocess, sys, time
ready = pathlib.Path(sys.argv[1])
command = [sys.executable, "-m", "fakemail", "--free-ports", "--ready-file", str(ready), "--stop-with-stdin", "--quiet"]
child = subprocess.Popen(command, stdin=subprocess.PIPE)
while not ready.exists():
    time.sleep(0.01)
print(json.loads(ready.read_text())["pid"], flush=True)
child.wait()
"""


def alive(pid):
    """Whether the process runs: one that has ended and whom nobody has asked about is a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_a_standard_input_that_can_not_end_is_refused():
    done = ran("--free-ports", "--stop-with-stdin", stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "allowed: a pipe or a terminal" in done.stderr
    assert len(done.stderr.splitlines()) == 1


INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from fakemail.__main__ import main
sys.exit(main(["--free-ports"]))
"""


@pytest.mark.parametrize("module", ["fakemail.command_line.commands", "fakemail.serving", "aiosmtpd", "aiohttp"])
def test_ctrl_c_is_quiet_while_it_is_imported(module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_start_lines_can_be_pasted():
    command = [sys.executable, "-m", "fakemail", "--free-ports"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True)
    lines = [process.stdout.readline() for _ in range(5)]
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    names = ("smtp", "smtps", "imap", "imaps", "control")
    for name, line in zip(names, lines, strict=True):
        scheme = "http" if name == "control" else name
        assert line.split()[0] == name
        assert line.split()[1].startswith(f"{scheme}://127.0.0.1:")


def test_a_port_can_be_switched_off():
    with started("--imap-port", "off", "--smtps-port", "off", "--control-port", "off") as (_, facts):
        assert facts["control"] is None
        assert set(facts) == {"pid", "version", "smtp", "imaps", "control"}
        assert smtplib.SMTP(*facts["smtp"].values(), timeout=10).quit()[0] == 221
    with running("--imaps-port", "off") as fakes, pytest.raises(ControlError, match="serves no imaps"):
        fakes.control.imaps  # noqa: B018


def test_an_ipv6_address_is_an_address():
    with contextlib.closing(socket.socket(socket.AF_INET6)) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    with started("--host", "::1", "--user", "ann@example.test:secret", stdin=None) as (_, facts):
        assert facts["control"].startswith("http://[::1]:")
        control = FakeMail(facts["control"])
        context = ssl.create_default_context(cadata=control.ca_pem())
        with imaplib.IMAP4_SSL(*control.imaps, ssl_context=context, timeout=10) as client:
            assert client.login("ann@example.test", "secret")[0] == "OK"


def test_a_name_with_two_addresses_has_one_port_for_both():
    with started("--host", "localhost") as (_, facts):
        for family in {info[0] for info in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}:
            address = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]
            for name in ("smtp", "imap"):
                socket.create_connection((address, facts[name]["port"]), timeout=10).close()


def test_users_and_mail_can_be_given_as_options(tmp_path):
    (tmp_path / "one.mbox").write_bytes(b"From a Thu Jan  1 00:00:10 1970\nSubject: old\n\nhi\n")
    ann = "ann@example.test"
    options = ["--user", f"{ann}:se:cret", "--mail", f"{ann}=7", "--mail", f"{ann}:Work=5"]
    options += ["--load", f"{ann}:Old={tmp_path}/one.mbox", "--preset", "greylisting", "--preset", "slow-imap"]
    with running(*options) as fakes:
        counts = {each["name"]: each["count"] for each in fakes.control.mailbox(ann)["folders"]}
        assert (counts["INBOX"], counts["Work"], counts["Old"]) == (7, 5, 1)
        assert {each["id"] for each in fakes.control.faults()} > {"greylisting"}
        fakes.control.clear_faults()
        client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
        assert client.login(ann, "se:cret")[0] == "OK"
        client.logout()


def test_options_come_over_the_file(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text("seed = 5\n[limits]\nconnections = 9\nconnections_per_user = 4\n" + CONFIG)
    options = ["--config", str(path), "--user", "ann@example.test:other", "--mail", "ann@example.test=2"]
    with running(*options, "--connections", "3", "--preset", "greylisting") as fakes:
        assert fakes.control.limits() == {"connections": 3, "connections_per_user": 4}
        assert [each["id"] for each in fakes.control.faults()] == ["greylist", "greylisting"]
        inbox = next(each for each in fakes.control.mailbox("ann@example.test")["folders"] if each["name"] == "INBOX")
        assert inbox["count"] == 5
        client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
        assert client.login("ann@example.test", "other")[0] == "OK"
        client.logout()


def test_a_reset_to_the_start_brings_the_file_back_and_its_timelines(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text(
        CONFIG.replace("seed = 3", "seed = 3\ntimeline = { per_s = 100, arrive = 1, flags = 0, expunge = 0 }")
    )
    with running("--config", str(path)) as fakes:
        for _ in range(2):
            fakes.control.wait_for("timeline", count=3)
            fakes.control.add_user("bob@example.test", "x")
            fakes.control.clear_faults()
            fakes.control.reset(to_start=True)
            assert fakes.control.users() == ["ann@example.test"]
            assert [each["id"] for each in fakes.control.faults()] == ["greylist"]
            assert fakes.control.stats()["timelines"] == 1
        fakes.control.reset()
        assert fakes.control.stats()["timelines"] == 0


def test_capabilities_can_be_switched_off_at_both_servers():
    with running("--without", "idle", "--without", "STARTTLS", "--without", "PIPELINING") as fakes:
        client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
        assert "STARTTLS" not in client.capabilities
        client.logout()
        with smtplib.SMTP(*fakes.address("smtp"), timeout=10) as smtp:
            smtp.ehlo()
            assert not {"starttls", "pipelining"} & set(smtp.esmtp_features)
            assert "size" in smtp.esmtp_features


def test_starttls_works_at_both_servers_with_the_certificate_that_was_written(tmp_path):
    ca = tmp_path / "ca.pem"
    options = ["--ca-file", str(ca), "--tls-name", "mail.example.test", "--user", "ann@example.test:x"]
    with running(*options, "--require-tls") as fakes:
        assert fakes.facts["ca_file"] == str(ca)
        context = ssl.create_default_context(cafile=ca)
        client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
        with pytest.raises(imaplib.IMAP4.error):
            client.login("ann@example.test", "x")
        client.starttls(ssl_context=context)
        assert client.login("ann@example.test", "x")[0] == "OK"
        client.logout()
        with smtplib.SMTP(*fakes.address("smtp"), timeout=10) as smtp:
            smtp.starttls(context=context)
            assert smtp.login("ann@example.test", "x")[0] == 235
        with socket.create_connection(fakes.address("smtps"), timeout=10) as line:
            context.wrap_socket(line, server_hostname="mail.example.test").close()


def test_mail_can_be_taken_from_users_alone_and_refused_for_domains():
    with running("--require-login", "--refuse-domain", "Gone.test", "--user", "ann@example.test:x") as fakes:
        smtp = smtplib.SMTP(*fakes.address("smtp"), timeout=10)
        with pytest.raises(smtplib.SMTPSenderRefused):
            smtp.sendmail("ann@example.test", ["bob@example.test"], "x")
        smtp.login("ann@example.test", "x")
        smtp.sendmail("ann@example.test", ["bob@example.test"], "x")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("ann@example.test", ["bob@gone.test"], "x")
        smtp.quit()


def test_a_silent_imap_client_must_go():
    with running("--idle-timeout", "1") as fakes:
        client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
        assert b"BYE" in client.readline()
        client.shutdown()


def test_a_port_that_is_taken_is_named_with_its_option():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name in ("smtp", "imaps", "control"):
            line = fails(f"--{name}-port", str(port))
            assert f"127.0.0.1:{port}" in line
            assert f"--{name}-port" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--no-such-option",), "see fakemail --help"),
        (("--host", "no.such.host.invalid"), "choose another --host"),
        (("--user", "ann@example.test:x", "--load", "ann@example.test=/nowhere"), "/nowhere: does not exist"),
        (("--user", "ann@example.test:x", "--mail", "ann@example.test:a%b=1"), "is no folder name"),
    ],
)
def test_an_option_that_can_not_be_used_is_one_line(options, words):
    line = fails(*options)
    assert line.startswith("fakemail: ")
    assert any(option in line for option in options)
    assert words in line


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
    done = ran("--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert "--ready-file" in done.stdout


def test_each_command_has_a_help_of_its_own():
    for name in ("faults", "check", "ledger", "seed", "message"):
        done = ran(name, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: fakemail {name}")


def test_the_version_is_that_of_the_distribution():
    assert ran("--version").stdout == f"fakemail {version('mailrig')}\n"


def test_check_says_what_a_file_brings_or_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text(CONFIG)
    done = ran("check", str(path))
    assert (done.returncode, done.stdout) == (0, f"{path}: users: 1, messages: 3, faults: 1\n")
    path.write_text(CONFIG.replace("seed = 3", 'load = "none.mbox"'))
    done = ran("check", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"fakemail: {path}:2: {tmp_path}/none.mbox: does not exist")


def test_faults_prints_the_catalogue_and_presets():
    assert "| `smtp.rcpt` |" in ran("faults").stdout
    (fault,) = json.loads(ran("faults", "--preset", "greylisting").stdout)
    assert fault["point"] == "smtp.rcpt"
    assert ran("faults", "--preset", "nope").returncode == 2


def test_message_prints_the_bytes_that_a_folder_would_hold():
    with running() as fakes:
        fakes.control.add_user("ann@example.com", "x")
        fakes.control.seed("ann@example.com", count=3, seed=9, profile="exchange")
        raw = fakes.control.message("ann@example.com", 3)
    done = ran("message", "--seed", "9", "--uid", "3", "--profile", "exchange", text=False)
    assert done.stdout == raw
    assert "allowed: small" in ran("message", "--profile", "giant").stderr


def test_seed_and_ledger_work_on_a_running_fakemail():
    with running() as fakes:
        url = fakes.facts["control"]
        done = ran("seed", "--url", url, "ann@example.test", "5", "--password", "x")
        assert done.stdout == "ann@example.test INBOX: 5 messages, UIDs 1 to 5\n"
        with smtplib.SMTP(*fakes.address("smtp"), timeout=10) as smtp:
            smtp.sendmail("bob@example.test", ["ann@example.test"], "Subject: x\r\n\r\nhi")
        lines = ran("ledger", "--url", url, "--kind", "accepted").stdout.splitlines()
        assert len(lines) == 1
        assert " accepted mail_from=bob@example.test" in lines[0]
        (entry,) = map(json.loads, ran("ledger", "--url", url, "--kind", "accepted", "--json").stdout.splitlines())
        assert entry == next(fakes.control.ledger(kind="accepted"))


def test_the_ledger_is_followed_until_ctrl_c():
    with running() as fakes:
        command = [sys.executable, "-m", "fakemail", "ledger", "--url", fakes.facts["control"], "--follow"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
        for _ in range(2):
            smtplib.SMTP(*fakes.address("smtp"), timeout=10).close()
            assert "smtp#" in process.stdout.readline()
            assert "disconnect" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=DEADLINE_S) == ("", "")
        assert process.returncode == 0


def test_a_running_fakemail_that_refuses_or_is_not_there_is_exit_code_1():
    with running() as fakes:
        done = ran("seed", "--url", fakes.facts["control"], "nobody@example.test", "5")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "no user 'nobody@example.test'" in done.stderr
    done = ran("ledger", "--url", "http://127.0.0.1:1")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    command = f"{sys.executable} -m fakemail faults | head -1; test ${{PIPESTATUS[0]}} -ne 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, timeout=DEADLINE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
