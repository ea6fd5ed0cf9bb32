"""From words on a command line to the options of the servers, and the mistakes that people make on the way."""

import contextlib
import io
import signal
from pathlib import Path

import pytest

from fakemail import FakemailError
from fakemail.__main__ import main
from fakemail.client import PORTS, WHEN, Address, ControlError, describe
from fakemail.command_line.commands import COMMANDS
from fakemail.command_line.options import options
from fakemail.command_line.parser import UsageError, parser
from fakemail.config import ConfigError, FolderConfig, Seeding
from fakemail.faults import ACTIONS, SCHEDULES
from fakemail.serving import Options, base_url

ANN = "ann@example.test"
USER = ("--user", f"{ANN}:secret")
CONFIG = """
seed = 5
[limits]
connections = 9
message_bytes = 1_000_000
line_bytes = 9_000
[imap]
without = ["CONDSTORE"]
[smtp]
require_tls = true
[[user]]
address = "Ann@example.test"
password = "old"
seed = 3
"""


def read(*words) -> Options:
    return options(parser().parse_args(words))


def told(*words) -> str:
    """Standard error of a run that ends with 2 and one line."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main(list(words)) == 2
    assert len(errors.getvalue().splitlines()) == 1
    assert errors.getvalue().startswith("fakemail: ")
    return errors.getvalue()


# --- what options mean ------------------------------------------------------------------------------------------------


def test_without_options_all_five_ports_are_greenmail_s():
    made = read()
    assert made.host == "127.0.0.1"
    assert made.ports == PORTS == {"smtp": 3025, "smtps": 3465, "imap": 3143, "imaps": 3993, "control": 3080}
    assert (made.seed, made.config.users, made.config.faults) == (1, (), ())


def test_free_ports_are_free_but_for_those_that_are_named():
    made = read("--free-ports", "--imap-port", "1143", "--smtps-port", "off")
    assert made.ports == {"smtp": 0, "smtps": None, "imap": 1143, "imaps": 0, "control": 0}


def test_users_and_their_mail_become_a_configuration():
    made = read(*USER, "--mail", f"{ANN}=7", "--mail", f"{ANN}:Work/Old=5", "--load", f"{ANN}:Old=a=b.mbox")
    (user,) = made.config.users
    assert (user.address, user.password) == (ANN, "secret")
    assert [(folder.name, folder.seeding, folder.load) for folder in user.folders] == [
        ("INBOX", Seeding(count=7), None),
        ("Work/Old", Seeding(count=5), None),
        ("Old", None, Path("a=b.mbox")),
    ]


def test_a_password_may_hold_colons_and_at_signs():
    (user,) = read("--user", f"{ANN}:a:b@c=d").config.users
    assert (user.address, user.password) == (ANN, "a:b@c=d")
    assert "a:b@c" not in repr(user)


def test_options_come_over_what_the_file_says(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text(CONFIG)
    made = read("--config", str(path), *USER, "--mail", f"{ANN}=4", "--seed", "6", "--connections-per-user", "2")
    (user,) = made.config.users
    assert (user.address, user.password) == ("Ann@example.test", "secret")
    assert [folder.seeding for folder in user.folders] == [Seeding(count=3), Seeding(count=4)]
    assert (made.seed, made.config.limits.connections, made.config.limits.connections_per_user) == (6, 9, 2)
    assert read("--config", str(path)).seed == 5


def test_a_file_and_options_make_the_servers_options_together(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text(CONFIG)
    made = read("--config", str(path), "--without", "starttls", "--without", "AUTH", "--trace-headers")
    smtp, imap = made.for_smtp(), made.for_imap()
    assert smtp.without == {"STARTTLS", "AUTH"}
    assert (smtp.tls_required, smtp.size_bytes_max, smtp.trace_headers) == (True, 1_000_000, True)
    assert (imap.require_tls, imap.line_bytes_max, imap.starttls) == (False, 9_000, True)
    # QRESYNC makes no sense without CONDSTORE.
    assert imap.without >= {"STARTTLS", "CONDSTORE", "QRESYNC"}
    assert "AUTH=PLAIN" not in imap.without


def test_presets_come_behind_the_faults_of_the_file(tmp_path):
    path = tmp_path / "fakes.toml"
    path.write_text('presets = ["slow-smtp"]\n')
    made = read("--config", str(path), "--preset", "greylisting", "--preset", "slow-smtp")
    assert [fault.id for fault in made.config.faults] == ["slow-smtp", "greylisting"]


def test_a_domain_is_refused_in_any_case():
    assert read("--refuse-domain", "Gone.Test").smtp.refused_domains == {"gone.test"}


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--smtp-port", "70000"), "--smtp-port: '70000' given; allowed: 0 to 65535, 0 means a free one, or off"),
        (("--imap-port", "x"), "or off"),
        (("--imap-port", "-1"), "or off"),
        (("--imap-port", "١٢"), "or off"),
        (("--ready-file", "/nowhere/x"), "--ready-file /nowhere/x: no file can be made there"),
        (("--ready-file", "/"), "--ready-file /: no file can be made there"),
        (("--ca-file", "/nowhere/x"), "--ca-file /nowhere/x: no file can be made there"),
        (("--user", "ann"), "--user: not of this form; allowed: such as --user ann@example.com:secret"),
        (("--user", f"{ANN}:"), "--user: not of this form"),
        (("--mail", f"{ANN}=x"), "such as --mail ann@example.com:INBOX=1000"),
        (("--mail", f"{ANN}=5"), f"no user {ANN}; allowed: those of --user and --config"),
        (("--load", f"{ANN}"), "such as --load ann@example.com:INBOX=mail.mbox"),
        (("--preset", "grey-listing"), "unknown preset 'grey-listing' (did you mean 'greylisting'?); allowed:"),
        (("--without", "IDEL"), "--without IDEL: not known; allowed: 8BITMIME"),
        (("--connections", "0"), "a whole number from 1 up"),
        (("--connections-per-user", "1.5"), "a whole number from 1 up"),
        (("--idle-timeout", "-3"), "a whole number from 1 up"),
        (("--seed", "x"), "--seed"),
        (("--config", "/nowhere/x.toml"), "/nowhere/x.toml: No such file or directory"),
        (("--no-such-option",), "--no-such-option; see fakemail --help"),
        (("--por", "1"), "see fakemail --help"),
        (("--host",), "--host"),
        (("nonsense",), "nonsense; see fakemail --help"),
        (("message", "--profile", "giant"), "--profile: 'giant' given; allowed: small"),
        (("message", "--uid", "0"), "--uid: 0 given; allowed: a whole number from 1 up"),
        (("faults", "--preset", "nope"), "allowed: gmail-connection-limit"),
        (("check", "/nowhere/x.toml"), "/nowhere/x.toml: No such file or directory"),
        (("check",), "see fakemail check --help"),
        (("seed", ANN), "count; see fakemail seed --help"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_would_be_right(words, says):
    assert says in told(*words)


def test_a_password_in_a_wrong_option_is_not_shown():
    assert "canary" not in told("--user", "ann:canary")


def test_the_errors_are_fakemail_s():
    assert issubclass(UsageError, FakemailError)
    with pytest.raises(ConfigError):
        read("--config", "/nowhere")


# --- help and small things --------------------------------------------------------------------------------------------


def test_help_fits_into_eighty_columns_and_names_every_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parser().format_help()
    assert max(map(len, text.splitlines())) <= 80
    for name in COMMANDS:
        assert f"fakemail {name}" in text


def test_help_is_printed_also_behind_other_options(capsys):
    assert main(["--free-ports", "--help"]) == 0
    assert "examples:" in capsys.readouterr().out


def test_the_client_knows_every_schedule_by_name_and_takes_no_action_for_one():
    assert set(SCHEDULES) == WHEN
    assert not set(ACTIONS) & WHEN


def test_an_ipv6_address_stands_in_brackets():
    assert base_url("::1", 25, scheme="smtp") == "smtp://[::1]:25"
    assert base_url("127.0.0.1", 80) == "http://127.0.0.1:80"


def test_an_entry_is_a_line_without_what_is_empty_or_long():
    entry = {"seq": 7, "time_ns": 1, "protocol": "smtp", "connection": 3, "kind": "refused", "command": "RCPT"}
    assert describe(entry) == "7 smtp#3 refused command=RCPT"
    assert describe(entry | {"reply": "550 no such user", "user": ""}) == (
        '7 smtp#3 refused command=RCPT reply="550 no such user"'
    )
    assert len(describe(entry | {"reply": "x" * 1000})) < 200
    assert "\n" not in describe(entry | {"reply": "a\nb\x1b[31m"})
    assert "\x1b" not in describe(entry | {"reply": "a\nb\x1b[31m"})


def test_an_address_unpacks_into_what_the_standard_clients_take():
    assert (*Address("127.0.0.1", 25),) == ("127.0.0.1", 25)
    assert ControlError("x").status is None


def test_every_folder_of_an_option_says_where_it_was_asked_for():
    (user,) = read(*USER, "--mail", f"{ANN}:Work=1").config.users
    assert user.folders == (FolderConfig(name="Work", seeding=Seeding(count=1), where=f"--mail {ANN}:Work=1"),)


def test_a_command_leaves_the_process_s_signals_alone(capsys):
    """A process that dies of SIGPIPE dies of every client that leaves."""
    before = signal.getsignal(signal.SIGPIPE)
    assert main(["faults"]) == 0
    assert signal.getsignal(signal.SIGPIPE) == before
