from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from email_service import __main__ as command
from email_service.config import database_url, problems_of, settings_from, shown, token_secret
from email_service.config.variables import BY_NAME, VARIABLES
from email_service.errors import ConfigError

SYSTEM = Path(__file__).parents[3] / "system"
KEY = base64.b64encode(b"k" * 32).decode()
CANARY = "canary-password"
GOOD = {
    "DATABASE_URL": f"postgresql://mail_app:{CANARY}@db/mail",
    "DATABASE_SYSTEM_URL": f"postgresql://mail_system:{CANARY}@db/mail",
    "REDIS_URL": f"redis://:{CANARY}@redis:6379",
    "CREDENTIAL_ENCRYPTION_KEY": KEY,
    "MAIL_TOKEN_SECRET": f"{CANARY}-" * 3,
    "MAIL_BLOB_DIR": "/blobs",
}
FLOWER = {"MAIL_FLOWER_USER": "ann", "MAIL_FLOWER_PASSWORD": f"{CANARY}-flower", "MAIL_TASK_EVENTS": "1"}


def only_problem(**changes: str) -> str:
    (problem,) = problems_of(GOOD | changes)
    assert "canary" not in problem
    return problem


# --- what is right ---


def test_good_settings_have_no_problem_and_the_document_s_numbers():
    settings = settings_from(GOOD)
    assert (settings.concurrency, settings.prefetch_multiplier, settings.tasks_per_child_max) == (4, 1, 1000)
    assert (settings.limits_s, settings.visibility_timeout_s) == ((300, 280), 1200)
    assert settings.node == f"mail@{settings.host}"


def test_an_empty_value_is_the_default_as_compose_passes_it():
    empty = {v.name: "" for v in VARIABLES if v.name not in GOOD and v.name != "MAIL_ALLOWED_HOSTS"}
    assert settings_from(GOOD | empty) == settings_from(GOOD)


def test_an_empty_list_of_hosts_allows_none():
    settings = settings_from(GOOD | {"MAIL_ALLOWED_HOSTS": ""})
    assert (settings.allowed_hosts, settings.public_hosts) == (frozenset(), False)


def test_the_visibility_timeout_outlasts_the_hard_limit_at_any_scale():
    settings = settings_from(GOOD | {"MAIL_TIME_SCALE": "0.05"})
    assert settings.visibility_timeout_s == settings.limits_s[0] + 60


def test_no_host_is_listed_unless_it_is_named():
    assert not settings_from(GOOD).host_listed("localhost", 25)


def test_a_star_lists_what_is_below_a_domain_and_not_the_domain():
    settings = settings_from(GOOD | {"MAIL_ALLOWED_HOSTS": "*.mail.example"})
    assert settings.host_listed("a.b.mail.example", 25)
    assert not settings.host_listed("mail.example", 25)
    assert not settings.public_hosts


def test_a_listed_host_may_be_named_and_a_port_narrows_it():
    settings = settings_from(GOOD | {"MAIL_ALLOWED_HOSTS": "Mail.Example, other.example:993"})
    assert settings.host_listed("mail.example", 25)
    assert settings.host_listed("OTHER.example", 993)
    assert not settings.host_listed("other.example", 25)


def test_addresses_may_be_listed_in_either_form():
    settings = settings_from(GOOD | {"MAIL_ALLOWED_HOSTS": "10.0.0.7:25, [2001:DB8::1]:993, ::1"})
    assert settings.host_listed("10.0.0.7", 25)
    assert settings.host_listed("2001:db8::1", 993)
    assert settings.host_listed("::1", 25)


@pytest.mark.parametrize("rate", ["100/second", "6000/MINUTE", "5 per 10 seconds", "20/5minutes"])
def test_a_rate_is_a_number_and_a_time(rate):
    assert settings_from(GOOD | {"MAIL_RATE_LIMIT": rate}).rate_limit == rate.lower()


def test_a_rate_limit_can_be_off():
    assert settings_from(GOOD | {"MAIL_RATE_LIMIT": "off"}).rate_limit is None


def test_origins_are_compared_in_lower_case_and_a_star_stands_alone():
    read = settings_from(GOOD | {"MAIL_CORS_ORIGINS": "https://App.example, http://localhost:3000"})
    assert read.cors_origins == ("https://app.example", "http://localhost:3000")
    assert settings_from(GOOD | {"MAIL_CORS_ORIGINS": "*"}).cors_origins == ("*",)


def test_flower_with_a_login_and_events_is_right():
    assert settings_from(GOOD | FLOWER).flower_user == "ann"


def test_a_certificate_authority_s_file_is_read(tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    assert settings_from(GOOD | {"MAIL_CA_FILE": str(tmp_path / "ca.pem")}).ca_file == tmp_path / "ca.pem"


# --- what is wrong by itself ---


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "", "DATABASE_URL is not set"),
        ("DATABASE_URL", f"mysql://{CANARY}@db", "postgresql://user:password@host"),
        ("DATABASE_URL", f"postgresql://a:{CANARY}@db:port/mail", "postgresql://user:password@host"),
        ("REDIS_URL", "redis://host/3", "without a database number"),
        ("REDIS_URL", f"http://{CANARY}", "redis://host:6379"),
        ("REDIS_URL", f"redis://host?password={CANARY}", "must end with its port"),
        ("CREDENTIAL_ENCRYPTION_KEY", CANARY, "32 bytes in base64"),
        ("MAIL_TOKEN_SECRET", CANARY, "32 characters"),
        ("MAIL_CREDENTIAL_KEYS_OLD", CANARY, "entry 1 must look like id=base64"),
        ("MAIL_CREDENTIAL_KEYS_OLD", f"k0={CANARY}", "the key of entry 1 must be 32 bytes"),
        ("MAIL_CREDENTIAL_KEYS_OLD", f"k0={KEY},k0={KEY}", "entry 2 has the id of an earlier one"),
        ("MAIL_CREDENTIAL_KEYS_OLD", f"k1={KEY}", "a new key needs a new id"),
        ("MAIL_CREDENTIAL_KEY_ID", "a=b", "letters, digits"),
        ("MAIL_TIME_SCALE", "2", "from 0.05 to 1"),
        ("MAIL_TIME_SCALE", "fast", "from 0.05 to 1"),
        ("MAIL_TIME_SCALE", "nan", "from 0.05 to 1"),
        ("MAIL_RETRY_MODE", "later", "row, eta"),
        ("MAIL_LOG_FORMAT", "xml", "json, text"),
        ("CELERYD_CONCURRENCY", "2.5", "a whole number"),
        ("WORKER_PREFETCH_MULTIPLIER", "4", "a worker of 4 would hold 16 messages"),
        ("WORKER_PREFETCH_MULTIPLIER", "0", "every message that waits"),
        ("MAIL_ALLOWED_HOSTS", "https://mail.example", "an entry is the word public, host"),
        ("MAIL_ALLOWED_HOSTS", "mail.example:", "an entry is"),
        ("MAIL_ALLOWED_HOSTS", "mail.example:70000", "from 1 to 65535"),
        ("MAIL_ALLOWED_HOSTS", "*.mail.example:25", "takes no port"),
        ("MAIL_ALLOWED_HOSTS", "mail .example", "an entry is"),
        ("MAIL_CORS_ORIGINS", "app.example", "scheme://host"),
        ("MAIL_CORS_ORIGINS", "https://app.example/", "scheme://host"),
        ("MAIL_CORS_ORIGINS", "https://app.example, *", "* alone"),
        ("MAIL_CORS_ORIGINS", "ftp://app.example", "http:// or https://"),
        ("MAIL_RATE_LIMIT", "fast", "6000/minute"),
        ("MAIL_RATE_LIMIT", "0/minute", "6000/minute"),
        ("MAIL_BLOB_DIR", "", "MAIL_BLOB_URL is not set"),
        ("MAIL_BLOB_URL", "s3://bucket", "both set"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"grpc://u:{CANARY}@host:4317", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", CANARY, "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"{CANARY} x=y", "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={CANARY}%0A", "name=value"),
        ("MAIL_TRACE_SAMPLE", "20", "from 0 to 1"),
        ("MAIL_SPAN_BYTES_MAX", "1000", "8388608 (8 MB) or more, or 0"),
        ("MAIL_NODE", "mail", "name@host"),
        ("MAIL_FLOWER_STORE_", "x", "did you mean MAIL_FLOWER_STORE?"),
    ],
)
def test_a_bad_setting_says_which_and_what_would_be_right(name, value, says):
    problem = only_problem(**{name: value})
    assert name.removesuffix("DIR").removesuffix("URL") in problem
    assert says in problem


@pytest.mark.parametrize("url", ["/blobs", "file://host/blobs", "s3:///prefix", "http://bucket/x", "file://[/x"])
def test_a_place_for_attachments_is_a_directory_or_a_bucket(url):
    assert "file:///directory or s3://bucket/prefix" in only_problem(MAIL_BLOB_DIR="", MAIL_BLOB_URL=url)


def test_a_file_of_authorities_that_is_none_says_why(tmp_path):
    assert "can't be read (No such file" in only_problem(MAIL_CA_FILE=str(tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("not a certificate")
    assert "no certificate in PEM" in only_problem(MAIL_CA_FILE=str(tmp_path / "bad.pem"))


def test_each_wrong_entry_of_a_list_is_told():
    assert len(problems_of(GOOD | {"MAIL_ALLOWED_HOSTS": "a b, public, c:d"})) == 2


# --- what is wrong together ---


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"TASK_SOFT_TIME_LIMIT": "300"}, ("TASK_SOFT_TIME_LIMIT is 300", "TASK_TIME_LIMIT 300", "smaller")),
        ({"TASK_TIME_LIMIT": "600"}, ("MAIL_VISIBILITY_TIMEOUT_S is 1200", "TASK_TIME_LIMIT 600", "above their sum")),
        ({"MAIL_VISIBILITY_TIMEOUT_S": "900"}, ("MAIL_VISIBILITY_TIMEOUT_S is 900", "longest backoff 600", "900")),
        ({"DATABASE_SYSTEM_URL": GOOD["DATABASE_URL"]}, ("DATABASE_URL", "DATABASE_SYSTEM_URL", "role mail_app")),
        ({"MAIL_FLOWER_USER": "ann", "MAIL_TASK_EVENTS": "1"}, ("MAIL_FLOWER_USER is set", "MAIL_FLOWER_PASSWORD")),
        ({"MAIL_FLOWER_PASSWORD": "canary-of-flower"}, ("MAIL_FLOWER_PASSWORD is set", "MAIL_FLOWER_USER is not")),
        (FLOWER | {"MAIL_TASK_EVENTS": "0"}, ("MAIL_FLOWER_USER is 'ann'", "MAIL_TASK_EVENTS 0", "MAIL_TASK_EVENTS=1")),
        (FLOWER | {"MAIL_FLOWER_PASSWORD": "canary"}, ("MAIL_FLOWER_PASSWORD", "12 characters")),
        ({"CELERYD_CONCURRENCY": "16"}, ("is 16", "POOL_SIZE 10", "MAX_OVERFLOW 20", "17 processes", "34 or more")),
    ],
)
def test_settings_that_contradict_each_other_are_told_with_both_values(changes, values):
    problem = only_problem(**changes)
    assert all(value in problem for value in values), problem


def test_a_longer_limit_with_a_longer_visibility_is_right():
    settings = settings_from(GOOD | {"TASK_TIME_LIMIT": "3600", "MAIL_VISIBILITY_TIMEOUT_S": "4300"})
    assert settings.visibility_timeout_s == 4300


def test_a_refused_value_contradicts_nothing():
    assert "from 1 to 86400" in only_problem(TASK_TIME_LIMIT="long", TASK_SOFT_TIME_LIMIT="299")


# --- names ---


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAIL_TIMEOUT", "MAIL_TIMEOUT_S"),
        ("MAIL_TOKEN_SECRETS", "MAIL_TOKEN_SECRET"),
        ("WORKER_CONCURRENCY", "CELERYD_CONCURRENCY"),
        ("CELERY_TASK_TIME_LIMIT", "TASK_TIME_LIMIT"),
        ("CELERYD_PREFETCH_MULTIPLIER", "WORKER_PREFETCH_MULTIPLIER"),
        ("CELERYD_MAX_TASKS_PER_CHILD", "WORKER_MAX_TASKS_PER_CHILD"),
        ("DATABASE_MAX_OVERFLOWS", "DATABASE_MAX_OVERFLOW"),
    ],
)
def test_a_name_that_nobody_reads_is_refused_with_the_nearest_that_somebody_does(name, meant):
    assert only_problem(**{name: CANARY}).endswith(f"{name} is not a setting; did you mean {meant}?")


def test_a_name_like_no_other_points_to_the_table():
    assert "the README has the table" in only_problem(WORKER_XYZZY="canary")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAIL_PORT", "tcp://10.0.0.1:25"),
        ("MAIL_SERVICE_HOST", "10.0.0.1"),
        ("DATABASE_SERVICE_PORT_PG", "5432"),
        ("DATABASE_PORT_5432_TCP_ADDR", "10.0.0.1"),
        ("CELERY_LOG_LEVEL", "20"),
        ("MAILTO", "root"),
        ("MAIL", "/var/mail/ann"),
    ],
)
def test_what_kubernetes_docker_celery_and_cron_set_is_no_setting_of_ours(name, value):
    assert problems_of(GOOD | {name: value}) == []


def test_a_broker_that_celery_would_prefer_must_be_ours():
    assert "Celery prefers it to REDIS_URL" in only_problem(CELERY_BROKER_URL=f"redis://:{CANARY}@elsewhere/0")
    assert "REDIS_URL and /1" in only_problem(CELERY_RESULT_BACKEND=f"redis://:{CANARY}@elsewhere/1")
    same = {"CELERY_BROKER_URL": f"{GOOD['REDIS_URL']}/0", "CELERY_RESULT_BACKEND": f"{GOOD['REDIS_URL']}/1"}
    assert problems_of(GOOD | same) == []


# --- all at once, and no secret ---


def test_all_that_is_wrong_is_told_at_once():
    wrong = {"MAIL_TOKEN_SECRET": "canary", "MAIL_TIME_SCALE": "7", "TASK_SOFT_TIME_LIMIT": "301", "MAIL_CA": "x"}
    with pytest.raises(ConfigError) as caught:
        settings_from({k: v for k, v in GOOD.items() if k != "DATABASE_URL"} | wrong)
    told = str(caught.value)
    assert "5 problems" in told
    for name in ("DATABASE_URL", *wrong):
        assert name in told
    assert "canary" not in told


def test_a_repr_shows_no_secret():
    told = repr(settings_from(GOOD | FLOWER | {"MAIL_CREDENTIAL_KEYS_OLD": f"k0={KEY}"}))
    assert "canary" not in told
    assert KEY not in told
    assert str(b"k" * 32) not in told


def test_no_problem_of_any_secret_variable_repeats_what_it_holds():
    for variable in VARIABLES:
        for value in (f"{CANARY}", f"x://{CANARY}:{CANARY}@[", f"k9={CANARY},{CANARY}"):
            if variable.secret:
                assert "canary" not in "".join(problems_of(GOOD | {variable.name: value})), variable.name


# --- secrets in files ---


def in_files(folder: Path, values: dict[str, str]) -> dict[str, str]:
    env = {}
    for name, value in values.items():
        if BY_NAME[name].secret:
            (folder / name).write_text(f"{value}\n")
            env[f"{name}_FILE"] = str(folder / name)
        else:
            env[name] = value
    return env


def test_every_secret_may_be_in_a_file(tmp_path):
    given = GOOD | FLOWER | {"MAIL_CREDENTIAL_KEYS_OLD": f"k0={KEY}"}
    env = in_files(tmp_path, given)
    assert "canary" not in str(env)
    assert settings_from(env) == settings_from(given)


def test_a_command_that_reads_one_url_finds_it_in_its_file_as_well(tmp_path):
    env = in_files(tmp_path, {"DATABASE_OWNER_URL": "postgres://boss:pw@db/mail"})
    assert database_url(env, "DATABASE_OWNER_URL") == "postgresql+psycopg://boss:pw@db/mail"


def test_a_secret_and_its_file_are_one_too_many(tmp_path):
    (tmp_path / "secret").write_text(GOOD["MAIL_TOKEN_SECRET"])
    assert "are both set" in only_problem(MAIL_TOKEN_SECRET_FILE=str(tmp_path / "secret"))


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "can't be read (No such file"), (b"\n", "is empty"), (b"\xff" * 40, "UTF-8"), (b"x" * 70_000, "too long")],
)
def test_a_secret_s_file_that_can_t_be_used_says_why(tmp_path, content, says):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    env = {k: v for k, v in GOOD.items() if k != "MAIL_TOKEN_SECRET"} | {"MAIL_TOKEN_SECRET_FILE": str(path)}
    (problem,) = problems_of(env)
    assert says in problem
    assert str(path) in problem


def test_only_secrets_may_be_in_files():
    assert "MAIL_NODE_FILE is not a setting" in only_problem(MAIL_NODE_FILE="/x")


# --- the table and the command ---


def test_every_variable_is_read_or_belongs_to_a_command():
    """A variable that nothing reads would be a promise that nothing keeps."""
    package = Path(command.__file__).parent
    source = "".join(p.read_text() for p in package.rglob("*.py") if p.name != "variables.py")
    assert [v.name for v in VARIABLES if f'"{v.name}"' not in source] == []


def run_settings(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "email_service", "settings", *arguments]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SYSTEM)} | env
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_every_setting_and_no_secret():
    collector = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://u:{CANARY}@h:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": f"k={CANARY}",
    }
    done = run_settings(GOOD | collector)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["variable", *(v.name for v in VARIABLES)]
    assert re.search(r"^DATABASE_URL +set +environment$", done.stdout, re.MULTILINE)
    assert re.search(r"^DATABASE_OWNER_URL +not set +default$", done.stdout, re.MULTILINE)
    assert "http://***@h:4318" in done.stdout
    assert "canary" not in done.stdout
    assert KEY not in done.stdout


def test_what_a_collector_wants_to_be_shown_is_read_and_never_repeated():
    settings = settings_from(GOOD | {"OTEL_EXPORTER_OTLP_HEADERS": f"X-Key=a%20{CANARY}, other=%3D"})
    assert settings.otlp_headers == {"x-key": f"a {CANARY}", "other": "="}
    assert CANARY not in repr(settings)
    assert f"a {CANARY}" in settings.secrets


def test_the_command_tells_all_problems_and_ends_with_two():
    done = run_settings({"MAIL_TOKEN_SECRET": CANARY, "CELERY_CONCURRENCY": "9"})
    assert done.returncode == 2
    assert "did you mean CELERYD_CONCURRENCY?" in done.stderr
    assert "MAIL_TOKEN_SECRET must have" in done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_where_a_value_comes_from_is_shown(tmp_path):
    env = in_files(tmp_path, {"MAIL_TOKEN_SECRET": "x" * 40}) | {"MAIL_NODE": "a@b"}
    rows = {name: (value, origin) for name, value, origin in shown(env)}
    assert rows["MAIL_TOKEN_SECRET"] == ("set", "MAIL_TOKEN_SECRET_FILE")
    assert rows["MAIL_NODE"] == ("a@b", "environment")
    assert rows["MAIL_LOG_FORMAT"] == ("json", "default")


def test_a_token_needs_its_secret_and_no_other_setting():
    assert token_secret({"MAIL_TOKEN_SECRET": "s" * 32}) == "s" * 32
    for wrong in ({}, {"MAIL_TOKEN_SECRET": "short-and-secret"}):
        with pytest.raises(ConfigError, match="MAIL_TOKEN_SECRET") as refused:
            token_secret(wrong)
        assert "short-and-secret" not in str(refused.value)
