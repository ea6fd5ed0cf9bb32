"""The pytest plugin as other projects meet it: a pytest of its own, with the base install alone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import select
import signal
import subprocess
import textwrap
import time
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fakemail

FAKES = Path(fakemail.__file__).parent.parent
DEADLINE_S = 60


def closure(*names):
    """These distributions and all that they need, without extras."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        distribution = importlib.metadata.distribution(name)
        if distribution.name.lower() in found:
            continue
        found[distribution.name.lower()] = distribution
        needed = map(Requirement, distribution.requires or ())
        waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def base_python(tmp_path_factory):
    """A Python that has fakemail, pytest and what they need, and nothing else."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in closure("mailrig", "pytest").values():
        for first in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (packages / first).exists():
                (packages / first).symlink_to(Path(distribution.locate_file(first)).resolve())
    return folder / "bin" / "python"


@pytest.fixture
def project(tmp_path, base_python):
    """A folder with tests in it, and the way to run them."""
    return Project(tmp_path, base_python)


class Project:
    def __init__(self, folder, python):
        self.folder, self.python = folder, python

    def write(self, name, text):
        (self.folder / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def command(self, *options):
        # -I: neither the environment nor this folder has a say; a pytest without colours can be compared.
        return [str(self.python), "-I", "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-W", "error", *options]

    def environment(self):
        return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}

    def start(self, *options):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.command(*options), cwd=self.folder, env=self.environment(), **streams)

    def run(self, *options, **outcomes):
        """The output of a pytest that must end with these outcomes, and leave no process behind."""
        process = self.start("-q", *options)
        output, _ = process.communicate(timeout=DEADLINE_S)
        last = output.strip().splitlines()[-1]
        found = {name.rstrip("s"): int(count) for count, name in re.findall(r"(\d+) (passed|failed|errors?)", last)}
        assert found == {name.rstrip("s"): count for name, count in outcomes.items()}, output
        for pid in self.pids():
            assert not alive(pid), f"process {pid} is left"
        return output

    def pids(self):
        return [int(each.read_text()) for each in self.folder.glob("*.pid")]

    def await_pid(self, name):
        path, deadline = self.folder / name, time.monotonic() + DEADLINE_S
        while not path.exists() or not path.read_text():
            assert time.monotonic() < deadline, f"{name} was not written"
            select.select([], [], [], 0.02)
        return int(path.read_text())


def alive(pid):
    """Whether the process runs: one that has ended and whom nobody has asked about is a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def await_end(pid):
    deadline = time.monotonic() + DEADLINE_S
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is left"
        select.select([], [], [], 0.02)


def readme_test():
    return re.search(r"```python\n(.*?)```", (FAKES / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


# --- the base install -------------------------------------------------------------------------------------------------


def test_the_base_install_has_no_package_of_the_developers(base_python):
    assert "hypothesis" not in closure("mailrig", "pytest")
    for module in ("hypothesis", "imapclient", "psutil", "redis", "celery", "requests"):
        assert subprocess.run(
            [base_python, "-I", "-c", f"import {module}"], capture_output=True, check=False
        ).returncode
    subprocess.run([base_python, "-I", "-c", "import fakemail, pytest"], check=True)


def test_the_four_lines_of_the_readme_pass_as_they_stand(project):
    project.write("test_readme.py", readme_test())
    project.write("retry.py", (FAKES / "examples" / "retry.py").read_text())
    project.run(passed=1)


def test_the_four_lines_of_the_readme_fail_for_code_that_does_not_try_again(project):
    project.write("test_readme.py", readme_test())
    project.write("retry.py", (FAKES / "examples" / "retry.py").read_text().replace("attempts=3", "attempts=1"))
    output = project.run(failed=1)
    assert "451" in output


def test_the_examples_pass(project):
    for path in (FAKES / "examples").glob("*.py"):
        project.write(path.name, path.read_text(encoding="utf-8"))
    count = sum(path.read_text().count("\ndef test_") for path in (FAKES / "examples").glob("test_*.py"))
    assert count >= 9
    project.run(passed=count)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_a_project_that_asks_for_no_fixture_pays_for_one_small_module(project):
    project.write(
        "test_it.py",
        """
        import sys

        def test_nothing_is_imported():
            ours = {name for name in sys.modules if name.split(".")[0] == "fakemail"}
            assert ours == {"fakemail", "fakemail.pytest_plugin"}
            assert not {"asyncio", "aiohttp", "aiosmtpd", "trustme", "ssl", "http.client"} & set(sys.modules)
        """,
    )
    project.run("-p", "no:faulthandler", passed=1)


def test_it_can_be_switched_off(project):
    project.write(
        "test_it.py",
        """
        import sys

        def test_nothing_at_all(pytestconfig):
            assert "fakemail" not in sys.modules

        def test_no_fixture(fakemail):
            pass
        """,
    )
    output = project.run("-p", "no:fakemail", passed=1, error=1)
    assert "fixture 'fakemail' not found" in output


def test_the_help_names_its_options(project):
    done = subprocess.run(
        project.command("--help"),
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("--fakemail-config", "fakemail_config", "fakemail_args"):
        assert name in done.stdout


# --- the fixtures -----------------------------------------------------------------------------------------------------


def test_no_test_sees_what_another_left(project):
    project.write(
        "test_it.py",
        """
        import imaplib, smtplib
        import pytest

        held = {}

        @pytest.mark.parametrize("again", [1, 2])
        def test_it(fakemail, mailbox, faults, again):
            assert fakemail.users() == [mailbox.address]
            assert fakemail.faults() == [] == fakemail.connections() == list(fakemail.ledger())
            assert mailbox.messages() == []
            if held:
                with pytest.raises((imaplib.IMAP4.abort, OSError)):
                    held["imap"].noop()
                held["imap"].shutdown()
            held["imap"] = imaplib.IMAP4(*mailbox.imap)
            held["imap"].login(mailbox.address, mailbox.password)
            faults.put("imap.command", drop=True)
            fakemail.set_limits(connections=5)
            mailbox.seed(5)

        def test_faults_are_healed_after_the_test(fakemail_server):
            from fakemail.client import FakeMail
            assert FakeMail(fakemail_server.url).faults() == []
            held["imap"].shutdown()
        """,
    )
    project.run(passed=3)


def test_a_mailbox_has_an_address_of_its_own_that_is_the_same_in_every_run(project):
    project.write(
        "test_it.py",
        """
        import pathlib
        import pytest

        @pytest.mark.parametrize("which", ["one", "other"])
        def test_it(mailbox, which):
            with pathlib.Path("addresses").open("a") as file:
                file.write(mailbox.address + "\\n")
        """,
    )
    project.run(passed=2)
    project.run(passed=2)
    first, second, third, fourth = (project.folder / "addresses").read_text().split()
    assert (first, second) == (third, fourth)
    assert first != second


def test_mail_is_appended_delivered_and_waited_for(project):
    project.write(
        "test_it.py",
        """
        import smtplib, threading
        from email.message import EmailMessage
        import pytest

        def message(subject):
            made = EmailMessage()
            made["Subject"], made["From"], made["To"] = subject, "a@example.test", "b@example.test"
            made.set_content("Grüße\\n")
            return made

        def test_it(mailbox):
            assert mailbox.append(message("eins"), flags=["\\\\Seen"]) == 1
            with pytest.raises(AssertionError, match="1 of 2 messages within 0.1 s"):
                mailbox.wait(2, timeout_s=0.1)

            def deliver():
                with smtplib.SMTP(*mailbox.smtp) as client:
                    client.send_message(message("zwei"), to_addrs=[mailbox.address])

            timer = threading.Timer(0.2, deliver)
            timer.start()
            first, second = mailbox.wait(2)
            timer.join()
            assert (first.flags, first.email["Subject"]) == ({"\\\\Seen"}, "eins")
            assert second.email.get_content() == "Grüße\\r\\n"
            assert second.uid == 2
            assert b"zwei" in second.raw
            mailbox.seed(3, folder="Junk", profile="exchange")
            assert len(mailbox.messages("Junk")) == 3
        """,
    )
    project.run(passed=1)


def test_faults_fire_are_counted_and_healed(project):
    project.write(
        "test_it.py",
        """
        import imaplib, smtplib
        import pytest

        def greets(address):
            try:
                smtplib.SMTP(*address, timeout=5).close()
            except smtplib.SMTPServerDisconnected:
                return False
            return True

        def test_it(fakemail, faults):
            with faults.put("smtp.connect", drop=True) as fault:
                assert not greets(fakemail.smtp)
                assert fault.counts() == {"seen": 1, "fired": 1}
            assert greets(fakemail.smtp)
            faults.preset("smtp-connection-drops")
            assert [greets(fakemail.smtp) for _ in range(3)] == [False, False, True]
            assert [entry["point"] for entry in faults.fired()] == 3 * ["smtp.connect"]
            faults.put("smtp.connect", drop=True)
            faults.heal()
            assert greets(fakemail.smtp)

        def test_a_wrong_one_says_what_is_right(faults):
            with pytest.raises(Exception, match="did you mean 'smtp.rcpt'"):
                faults.put("smtp.rcpd", drop=True)
        """,
    )
    project.run(passed=2)


def test_tls_is_trusted_by_file_and_by_context(project):
    project.write(
        "test_it.py",
        """
        import imaplib, smtplib, ssl

        def test_by_context(mailbox, fakemail_tls):
            with imaplib.IMAP4_SSL(*mailbox.imaps, ssl_context=fakemail_tls) as client:
                client.login(mailbox.address, mailbox.password)

        def test_by_file(mailbox, fakemail_ca):
            with smtplib.SMTP(*mailbox.smtp) as client:
                client.starttls(context=ssl.create_default_context(cafile=fakemail_ca))
                client.login(mailbox.address, mailbox.password)
        """,
    )
    project.run(passed=2)


def test_a_project_may_have_fixtures_of_the_same_names(project):
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.fixture
        def mailbox():
            return "mine"

        @pytest.fixture
        def faults():
            return "mine too"

        def test_it(mailbox, faults, fakemail_mailbox, fakemail_faults, fakemail):
            assert (mailbox, faults) == ("mine", "mine too")
            fakemail_faults.put("smtp.connect", drop=True)
            assert fakemail.users() == [fakemail_mailbox.address]
        """,
    )
    project.run(passed=1)


def test_a_failing_test_shows_the_end_of_the_ledger_and_a_passing_one_does_not(project):
    project.write(
        "test_it.py",
        """
        import smtplib

        def deliver(fakemail):
            with smtplib.SMTP(*fakemail.smtp) as client:
                client.sendmail("ann@example.test", ["bob@example.test"], "Subject: x\\r\\n\\r\\nhi")

        def test_bad(fakemail):
            deliver(fakemail)
            assert False, "on purpose"

        def test_good(fakemail):
            deliver(fakemail)

        def test_without():
            assert False, "on purpose"
        """,
    )
    output = project.run("-rP", failed=2, passed=1)
    assert output.count("fakemail ledger") == 1
    assert "accepted mail_from=ann@example.test" in output


# --- options ----------------------------------------------------------------------------------------------------------

CONFIG = """
[[user]]
address = "carol@example.test"
password = "pass"
seed = 4

[[fault]]
id = "away"
point = "imap.command"
when = { nth = 1 }
action = { reply = "NO [UNAVAILABLE] Later" }
"""
USES_CONFIG = """
import pytest

@pytest.mark.parametrize("again", [1, 2])
def test_it(fakemail, again):
    assert fakemail.users() == ["carol@example.test"]
    assert [fault["id"] for fault in fakemail.faults()] == ["away"]
    assert len(list(fakemail.messages("carol@example.test"))) == 4
    fakemail.clear_faults()
    fakemail.expunge("carol@example.test", [1, 2])
"""


def test_a_configuration_is_there_at_every_test_by_ini_or_option(project):
    project.write("fakes.toml", CONFIG)
    project.write("test_it.py", USES_CONFIG)
    project.run("--fakemail-config", "fakes.toml", passed=2)
    project.write("pytest.ini", "[pytest]\nfakemail_config = fakes.toml\nfakemail_args = --seed 9 --without IDLE\n")
    (project.folder / "below").mkdir()
    project.run("-c", "pytest.ini", passed=2)


def test_a_broken_configuration_is_one_line_for_each_test_and_nothing_starts(project):
    project.write("fakes.toml", CONFIG.replace("nth", "nht"))
    project.write("test_it.py", "def test_it(mailbox): pass\n\n\ndef test_other(): pass\n")
    output = project.run("--fakemail-config", "fakes.toml", passed=1, error=1)
    assert "fakemail: fakes.toml:10: " in output
    assert "fault[0].when: unknown key 'nht'" in project.run(
        "--fakemail-config", "fakes.toml", "-vv", passed=1, error=1
    )
    assert "Traceback" not in output


# --- processes --------------------------------------------------------------------------------------------------------

WAITS = """
import os, pathlib, signal

def test_it(fakemail, fakemail_server):
    pathlib.Path("server.pid").write_text(str(fakemail_server.pid))
    {fork}
    signal.pause()
"""


def test_the_server_ends_with_the_session(project):
    project.write(
        "test_it.py",
        """
        import os, pathlib

        def test_it(fakemail_server):
            os.kill(fakemail_server.pid, 0)
            pathlib.Path("server.pid").write_text(str(fakemail_server.pid))
        """,
    )
    project.run(passed=1)
    assert len(project.pids()) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_a_pytest_that_is_killed(project, number):
    project.write("test_it.py", WAITS.format(fork=""))
    process = project.start("-q")
    pid = project.await_pid("server.pid")
    assert alive(pid)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    await_end(pid)


def test_a_child_that_pytest_has_forked_keeps_no_server_alive(project):
    """multiprocessing forks on Linux before Python 3.14: a child has every pipe that its parent had."""
    fork = 'child = os.fork(); pathlib.Path("child.pid").write_text(str(child)) if child else None'
    project.write("test_it.py", WAITS.format(fork=fork))
    process = project.start("-q")
    server, child = project.await_pid("server.pid"), project.await_pid("child.pid")
    try:
        process.kill()
        process.wait(timeout=DEADLINE_S)
        await_end(server)
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_server_that_dies_is_told_and_not_waited_for(project):
    project.write(
        "test_it.py",
        """
        import os, signal

        def test_it(fakemail, fakemail_server):
            os.kill(fakemail_server.pid, signal.SIGKILL)
            fakemail_server.process.wait()
            fakemail.health()
        """,
    )
    output = project.run(failed=1, error=1)
    assert "the fakes don't answer" in output
    assert "fakemail ended by itself with code -9" in output


def test_two_sessions_at_once_in_one_folder_share_nothing(project):
    """What the workers of pytest-xdist are to each other."""
    project.write("retry.py", (FAKES / "examples" / "retry.py").read_text())
    project.write("test_retry.py", (FAKES / "examples" / "test_retry.py").read_text(encoding="utf-8"))
    sessions = [project.start("-q") for _ in range(2)]
    for session in sessions:
        output, _ = session.communicate(timeout=DEADLINE_S)
        assert session.returncode == 0, output


def test_the_server_is_found_whatever_the_folder_holds(project):
    """A test may be called select.py or asyncio.py; the server must not import it."""
    for name in ("aiohttp.py", "asyncio.py", "fakemail.py"):
        project.write(f"{name}", "raise SystemError('imported by mistake')\n")
    project.write("test_it.py", "def test_it(fakemail_server): pass\n")
    project.run("--import-mode=importlib", passed=1)


def test_the_entry_point_is_what_pytest_loads():
    (entry,) = importlib.metadata.entry_points(group="pytest11", name="fakemail")
    assert entry.value == "fakemail.pytest_plugin"
    assert entry.dist.name == "mailrig"
