"""The compose file: valid, as the architecture document promises, and closed in itself. Each rule is shown to refuse.

Not here: that it comes up. ``tests/peers/test_compose_config.py`` has Compose itself read it.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import tomllib

import compose_rules as rules
import pytest
import yaml
from compose_file import PATH, ROOT, dotenv, enabled, environment, mounts, read, resolved

from email_service import config

sys.path.insert(0, str(ROOT / "system" / "docker"))
from make_secrets import SEED_BYTES, secrets_from

CONTRACT = tomllib.loads((ROOT / "loadtests" / "contract.toml").read_text())
COMPOSE = read()


def check_checked(compose):
    return rules.checked(compose, CONTRACT)


def check_workers(compose):
    return rules.workers_as_promised(compose, CONTRACT)


def service(name, **changes):
    return lambda compose: compose["services"][name].update(changes)


def without(name, key):
    return lambda compose: compose["services"][name].pop(key)


def given(name, **variables):
    return lambda compose: compose["services"][name]["environment"].update(variables)


def waits(name, other, condition="service_started"):
    return lambda compose: (
        compose["services"][name].setdefault("depends_on", {}).update({other: {"condition": condition}})
    )


def asked(name, **changes):
    return lambda compose: compose["services"][name]["healthcheck"].update(changes)


#: A rule, and what it must refuse.
BREACHES = [
    (rules.pinned, service("redis", image="redis:latest")),
    (rules.pinned, service("redis", image="redis:8")),
    (rules.pinned, service("grafana", image="grafana/grafana")),
    (rules.pinned, service("api", image="mailrig-service:9.9.9")),
    (rules.on_loopback_only, service("api", ports=["5000:5000"])),
    (rules.on_loopback_only, service("api", ports=["0.0.0.0:5000:5000"])),
    (rules.on_loopback_only, service("postgres", ports=["127.0.0.1:5432:5432"])),
    (rules.on_loopback_only, without("flower", "ports")),
    (rules.isolated, lambda c: c["networks"]["inside"].update(internal=False)),
    (rules.isolated, lambda c: c["networks"]["inside"]["ipam"].update(config=[{"subnet": "172.22.0.0/16"}])),
    (rules.isolated, service("postgres", networks=["inside", "edge"])),
    (rules.isolated, service("worker", networks=["default"])),
    (rules.confined, service("api", user="0:0")),
    (rules.confined, without("prometheus", "user")),
    (rules.confined, without("redis", "cap_drop")),
    (rules.confined, service("worker", cap_add=["SYS_PTRACE"])),
    (rules.confined, service("beat", read_only=False)),
    (rules.confined, service("exporter", volumes=["/var/run/docker.sock:/var/run/docker.sock"])),
    (rules.bounded, without("jaeger", "mem_limit")),
    (rules.bounded, service("api", mem_reservation="1G")),
    (rules.bounded, without("greenmail", "logging")),
    (rules.bounded, service("api", logging={"driver": "json-file", "options": {"max-size": "1g", "max-file": "3"}})),
    (rules.restarted, service("worker", restart="on-failure")),
    (rules.restarted, service("migrate", restart="always")),
    (check_checked, without("beat", "healthcheck")),
    (check_checked, asked("flower", interval="60s")),
    (check_checked, asked("worker", retries=5)),
    (check_checked, asked("worker", test=["CMD", "true"])),
    (check_workers, service("worker", mem_limit="1G")),
    (check_workers, service("worker-send", mem_reservation="128M")),
    (check_workers, service("worker", stop_grace_period="30s")),
    (check_workers, given("worker", CELERYD_CONCURRENCY="8")),
    (check_workers, given("worker-sync", TASK_TIME_LIMIT="600")),
    (rules.split_by_queue, service("worker-spam", command=["worker", "--queues", "send"])),
    (rules.settings_known, given("api", MAIL_RATE_LIMITS="off")),
    (rules.settings_known, given("load", MAILRIG_APIURL="http://api:5000")),
    (rules.secrets_in_files, given("postgres", POSTGRES_PASSWORD="mail")),
    (rules.secrets_in_files, given("api", MAIL_TOKEN_SECRET="x" * 32)),
    (rules.secrets_in_files, given("worker", REDIS_URL="redis://:mail@redis:6379")),
    (rules.secrets_in_files, service("beat", command=["beat", "redis://:mail@redis:6379"])),
    (rules.secrets_to_their_readers, service("api", volumes=["secrets_service:/run/secrets/service"])),
    (rules.secrets_to_their_readers, service("api", volumes=["secrets_owner:/run/secrets/owner:ro"])),
    (rules.secrets_to_their_readers, service("load-worker", volumes=["secrets_audit:/run/secrets/audit:ro"])),
    (rules.volumes_declared, lambda c: c["volumes"].pop("redis_data")),
    (rules.volumes_declared, lambda c: c["volumes"].update(forgotten={})),
    (rules.volumes_declared, service("collector", volumes=["./dashboards/otel/gone.yml:/c:ro"])),
    (rules.waits_for_what_runs, waits("api", "fakemail", "service_healthy")),
    (rules.waits_for_what_runs, waits("jaeger", "collector", "service_healthy")),
    (rules.waits_for_what_runs, waits("api", "migrate", "service_started")),
    (rules.acyclic, waits("secrets", "api")),
    (rules.nothing_waits_for_observers, waits("worker", "collector")),
    (rules.one_mail_server, service("greenmail", networks={"inside": {}})),
    (rules.one_mail_server, service("greenmail", profiles=["fakes"])),
    (rules.built_from_the_repository, service("api", build={"context": ".", "dockerfile": "gone/Dockerfile"})),
]  # fmt: skip
RULES = list(dict.fromkeys(rule for rule, _ in BREACHES))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_file_keeps(rule):
    assert list(rule(COMPOSE)) == []


@pytest.mark.parametrize(("rule", "breach"), BREACHES, ids=[f"{n}-{r.__name__}" for n, (r, _) in enumerate(BREACHES)])
def test_it_is_refused_when_broken(rule, breach):
    altered = copy.deepcopy(COMPOSE)
    breach(altered)
    assert list(rule(altered))


def test_the_default_is_the_fakes_and_the_observers():
    chosen = dotenv()["COMPOSE_PROFILES"].split(",")
    assert chosen == ["fakes", "observability"]
    promised = {
        "redis", "postgres", "migrate", "api", "worker", "beat", "dispatcher", "exporter", "flower", "fakemail",
        "collector", "jaeger", "prometheus", "grafana",
    }  # fmt: skip
    assert set(enabled(COMPOSE, chosen)) == promised | {"secrets"}


@pytest.mark.parametrize("name", [n for n, s in COMPOSE["services"].items() if s["image"].startswith("mailrig-ser")])
def test_its_settings_and_secrets_are_what_the_service_takes(name):
    """With what make_secrets would write in place of the files."""
    made, container = secrets_from(bytes(SEED_BYTES)), COMPOSE["services"][name]
    folders = {target: source.removeprefix("secrets_") for source, target, _ in mounts(container)}
    env = {}
    for variable, value in environment(container).items():
        if variable.endswith("_FILE"):
            folder, _, file = value.rpartition("/")
            env[variable.removesuffix("_FILE")] = made[folders[folder]][file]
        else:
            env[variable] = value
    if name in {"secrets", "migrate"}:
        assert set(env) <= {v.name for v in config.VARIABLES if v.name.startswith("DATABASE_")}
    else:
        assert config.problems_of(env) == []


def test_the_observers_find_one_another():
    files = [rules.mounted(f) for f in ("otel/collector.yml", "jaeger/config.yml", "prometheus/prometheus.yml")]
    assert list(rules.observers_find_one_another(*files, COMPOSE)) == []
    for change in (
        lambda otel, _jaeger, _prometheus: otel["exporters"]["otlp/jaeger"].update(endpoint="jaeger:14250"),
        lambda _otel, jaeger, _prometheus: jaeger["receivers"]["otlp"]["protocols"]["grpc"].update(endpoint="::1:4317"),
        lambda otel, _jaeger, _prometheus: otel["processors"]["memory_limiter"].update(limit_mib=512),
        lambda _otel, _jaeger, prometheus: prometheus["scrape_configs"].pop(),
    ):  # fmt: skip
        altered = copy.deepcopy(files)
        change(*altered)
        assert list(rules.observers_find_one_another(*altered, COMPOSE))


def test_whoever_looks_at_grafana_may_look_only_and_follow_a_point_to_its_trace():
    given = environment(COMPOSE["services"]["grafana"])
    assert (given["GF_AUTH_ANONYMOUS_ENABLED"], given["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert given["GF_USERS_VIEWERS_CAN_EDIT"] == "true"
    home = given["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].removeprefix("/var/lib/grafana/dashboards/")
    assert (ROOT / "dashboards" / "grafana" / home).exists()


def test_the_services_send_nothing_when_nobody_is_there_to_take_it():
    off = read({"MAIL_OTLP_ENDPOINT": ""})
    assert {environment(s).get("OTEL_EXPORTER_OTLP_ENDPOINT", "") for s in off["services"].values()} == {""}
    assert environment(COMPOSE["services"]["api"])["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"


def test_a_port_of_the_host_can_be_chosen_and_the_address_cannot():
    moved = read({"MAIL_API_PORT": "8080"})["services"]["api"]["ports"]
    assert moved == ["127.0.0.1:8080:5000"]


def test_a_variable_is_read_as_compose_reads_it():
    text = "${A} ${B-b} ${B:-b} ${C-c} ${C:-c} $$D"
    assert resolved(text, {"A": "1", "C": ""}) == "1 b b  c $$D"


@pytest.mark.parametrize("folder", ["system", "fakes", "loadtests"])
def test_an_image_has_an_exact_base_a_user_without_rights_and_labels(folder):
    text = (ROOT / folder / "Dockerfile").read_text()
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    assert bases == set(re.findall(r"^FROM (\S+)", (ROOT / "system" / "Dockerfile").read_text(), re.MULTILINE))
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base) for base in bases)
    assert re.findall(r"^USER (.+)", text, re.MULTILINE) == ["10001:10001"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', text))
    assert set(labels) == {"title", "description", "version", "licenses"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (labels["version"], labels["licenses"]) == (project["version"], project["license"])


def _schema_accepts(schema, path):
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_the_file_is_valid_by_the_schema_of_compose(tmp_path):
    done = _schema_accepts("vendor.compose-spec", PATH)
    assert done.returncode == 0, done.stdout
    altered = yaml.safe_load(PATH.read_text())
    altered["services"]["api"]["helthcheck"] = {}
    (tmp_path / "compose.yml").write_text(yaml.safe_dump(altered))
    assert _schema_accepts("vendor.compose-spec", tmp_path / "compose.yml").returncode == 1


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_the_workflows_are_valid_by_their_schema(path):
    done = _schema_accepts("vendor.github-workflows", path)
    assert done.returncode == 0, done.stdout
