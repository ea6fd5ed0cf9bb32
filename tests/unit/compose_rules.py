"""What must hold of the compose file: one function a rule, each answers what breaks it, a line each.

Pure: the file comes as a value. Called by test_compose, with the file and with altered copies that must be refused.
"""

from __future__ import annotations

import re

import yaml
from compose_file import (
    ROOT,
    dotenv,
    enabled,
    environment,
    mib,
    mounts,
    needs,
    profiles,
    published,
    seconds,
)

from email_service import policy
from email_service.config.variables import NAMES
from mailrig.stack.attached import OPTIONAL, VARIABLES

#: Of the architecture document: "Docker Compose Services", "Resource Management", "Network Security".
SUBNET, LOG_SIZE, LOG_FILES, WORKER_RESERVATION_MIB = "172.21.0.0/16", "10m", "3", 256
#: Port of the host -> service and port: all that may be reached from outside, on loopback. The document promises 5000
#: and 5556; 3080 is the fakes' control, the others the pages of the tools.
PUBLISHED = {
    "5000": ("api", "5000"), "5556": ("flower", "5555"), "3080": ("fakemail", "3080"),
    "16686": ("jaeger", "16686"), "9090": ("prometheus", "9090"), "3000": ("grafana", "3000"),
}  # fmt: skip
ONE_SHOTS = {"secrets", "migrate", "load", "load-worker"}
#: Their images hold no program that could ask; nobody waits for their health.
UNASKED = {"collector", "greenmail"}
#: Its image names a user that isn't root, by name.
OWN_USER = {"greenmail"}
SERVICE_IMAGE = "mailrig-service"
#: Volume of secrets -> who may read it.
READERS = {
    "secrets_seed": set(),
    "secrets_service": {"migrate", "api", "beat", "dispatcher", "exporter", "flower", "load", "workers"},
    "secrets_flower": {"flower"},
    "secrets_owner": {"migrate"},
    "secrets_audit": {"migrate", "load"},
    "secrets_postgres": {"postgres"},
    "secrets_redis": {"redis"},
}
CHOICES = (
    "", "fakes", "fakes,observability", "greenmail", "greenmail,observability", "fakes,split", "load,observability",
    "fakes,observability,load,split",
)  # fmt: skip
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY|AUTH(?!_ANON|_DIS|_BASIC)")
_LOGIN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def pinned(compose):
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    for name, service in compose["services"].items():
        image, _, tag = service["image"].rpartition(":")
        if not re.fullmatch(r"v?\d+\.\d+\.\d+(-[a-z]+)?|\d+\.\d+-[a-z]+", tag):
            yield f"{name}: {service['image']} is no exact version"
        if image.startswith("mailrig-") and tag != version:
            yield f"{name}: {service['image']} is not this version, {version}"


def on_loopback_only(compose):
    seen = {}
    for name, service in compose["services"].items():
        for address, outside, inside in published(service):
            seen[outside] = (name, inside)
            if address != "127.0.0.1":
                yield f"{name}: port {outside} is published on {address or 'every address'}"
    if seen != PUBLISHED:
        yield f"published are {sorted(seen.items())}"


def isolated(compose):
    inside, edge = compose["networks"]["inside"], compose["networks"]["edge"]
    if inside["internal"] is not True or [c["subnet"] for c in inside["ipam"]["config"]] != [SUBNET]:
        yield f"the network inside is {inside}"
    if edge:
        yield f"the network edge is {edge}"
    for name, service in compose["services"].items():
        networks = set(service.get("networks", ()))
        wanted = {"inside", "edge"} if published(service) else {"inside"}
        if networks != wanted and service.get("network_mode") != "none":
            yield f"{name} is in {sorted(networks)}"


def confined(compose):
    for name, service in compose["services"].items():
        user = service.get("user", "")
        if not re.fullmatch(r"[1-9]\d*:\d+", user) and name not in OWN_USER:
            yield f"{name} runs as {user or 'whoever the image says'}"
        if service.get("cap_drop") != ["ALL"] or "cap_add" in service or service.get("privileged"):
            yield f"{name} keeps capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", ()) or not service.get("read_only"):
            yield f"{name} may gain privileges or write its image"
        if any("docker.sock" in source for source, *_ in mounts(service)):
            yield f"{name} may command the engine"


def bounded(compose):
    for name, service in compose["services"].items():
        if "mem_limit" not in service or not 0 < mib(service["mem_reservation"]) <= mib(service["mem_limit"]):
            yield f"{name} has no limit of memory, or no reservation within it"
        log = service.get("logging", {})
        if log.get("driver") != "json-file" or log["options"] != {"max-size": LOG_SIZE, "max-file": LOG_FILES}:
            yield f"{name} logs by {log}"


def restarted(compose):
    for name, service in compose["services"].items():
        if service.get("restart") != ("no" if name in ONE_SHOTS else "always"):
            yield f"{name}: restart is {service.get('restart')!r}"


def checked(compose, contract):
    """Everything that runs says whether it works; the service by the document's numbers."""
    numbers = {key.removesuffix("_s"): value for key, value in contract["health"].items()}
    for name, service in compose["services"].items():
        check = service.get("healthcheck")
        if (check is None) != (name in ONE_SHOTS | UNASKED):
            yield f"{name}: {'no' if check is None else 'an unexpected'} health check"
        if check is None or not service["image"].startswith(SERVICE_IMAGE):
            continue
        kind = "worker" if name.startswith("worker") else name
        if check["test"] != ["CMD", "python", "-m", "email_service", "health", kind]:
            yield f"{name} is asked by {check['test']}"
        found = {k: check[k] if k == "retries" else seconds(check[k]) for k in numbers}
        if found != numbers:
            yield f"{name} is asked with {found}"


def workers_as_promised(compose, contract):
    worker, limits, tasks = contract["worker"], contract["limits"], compose["services"]
    promised = {
        "CELERYD_CONCURRENCY": worker["concurrency"],
        "WORKER_PREFETCH_MULTIPLIER": worker["prefetch_multiplier"],
        "WORKER_MAX_TASKS_PER_CHILD": worker["tasks_per_child_max"],
        "TASK_TIME_LIMIT": limits["hard_s"],
        "TASK_SOFT_TIME_LIMIT": limits["soft_s"],
        "MAIL_SOFT_SHUTDOWN_S": contract["stop"]["soft_shutdown_s"],
    }
    for name in [n for n in tasks if n.startswith("worker")]:
        given = environment(tasks[name])
        if wrong := {k: given.get(k) for k, v in promised.items() if given.get(k) != str(v)}:
            yield f"{name} is told {wrong}"
        if mib(tasks[name]["mem_limit"]) != contract["memory"]["total_mib"]:
            yield f"{name}: limit is {tasks[name]['mem_limit']}"
        if mib(tasks[name]["mem_reservation"]) != WORKER_RESERVATION_MIB:
            yield f"{name}: reservation is {tasks[name]['mem_reservation']}"
        if seconds(tasks[name]["stop_grace_period"]) != contract["stop"]["grace_s"]:
            yield f"{name}: {tasks[name]['stop_grace_period']} to stop"


def split_by_queue(compose):
    served = []
    for service in compose["services"].values():
        if "split" in profiles(service):
            kind, option, queue = service["command"]
            served.append(queue)
            if (kind, option) != ("worker", "--queues"):
                yield f"split runs {service['command']}"
    if sorted(served) != sorted(policy.QUEUES):
        yield f"split serves {served}"


def settings_known(compose):
    rig = {*VARIABLES, *OPTIONAL}
    known = {SERVICE_IMAGE: NAMES, "mailrig-rig": NAMES | rig | {f"{name}_FILE" for name in VARIABLES}}
    for name, service in compose["services"].items():
        names = known.get(service["image"].rpartition(":")[0])
        if names is not None and (strange := set(environment(service)) - names):
            yield f"{name} is given {sorted(strange)}"


def secrets_in_files(compose):
    for name, service in compose["services"].items():
        for variable, value in environment(service).items():
            named = _SECRET_NAME.search(variable) and not variable.endswith("_FILE")
            if (named and value not in {"true", "false"}) or _LOGIN.search(value):
                yield f"{name}: {variable} holds a secret"
        if any(_LOGIN.search(str(word)) for word in service.get("command", ())):
            yield f"{name}: a secret is an argument"
    for variable, value in dotenv().items():
        if _SECRET_NAME.search(variable) or _LOGIN.search(value):
            yield f".env: {variable} holds a secret"


def secrets_to_their_readers(compose):
    for volume, readers in READERS.items():
        found = {}
        for name, service in compose["services"].items():
            found |= {("workers" if name.startswith("worker") else name): mode
                      for source, _, mode in mounts(service) if source == volume}  # fmt: skip
        if found.pop("secrets", None) != "rw":
            yield f"{volume} is not written"
        if set(found) != readers or set(found.values()) - {"ro"}:
            yield f"{volume} is read by {found}"


def volumes_declared(compose):
    used = {source for s in compose["services"].values() for source, *_ in mounts(s)}
    named = {source for source in used if not source.startswith(".")}
    if named != set(compose["volumes"]):
        yield f"volumes: {sorted(named ^ set(compose['volumes']))} are used or declared, not both"
    for source in used - named:
        if not (ROOT / source).exists():
            yield f"{source} is mounted and not in the repository"


def waits_for_what_runs(compose):
    """With every choice of profiles, what somebody waits for comes up, and tells what is waited for."""
    services = compose["services"]
    for name, service in services.items():
        for other, condition in needs(service).items():
            if condition == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name} waits for the health of {other}, which has none"
            if (condition == "service_completed_successfully") != (other in {"secrets", "migrate"}):
                yield f"{name} waits for {other}: {condition}"
    for choice in CHOICES:
        up = enabled(compose, choice.split(","))
        for name, service in up.items():
            if absent := set(needs(service)) - set(up):
                yield f"with profiles {choice!r}, {name} waits for {sorted(absent)}"


def acyclic(compose):
    waiting = {name: set(needs(service)) for name, service in compose["services"].items()}
    while ready := {name for name, others in waiting.items() if not others & set(waiting)}:
        waiting = {name: others for name, others in waiting.items() if name not in ready}
    if waiting:
        yield f"{sorted(waiting)} wait for one another"


def nothing_waits_for_observers(compose):
    for name, service in compose["services"].items():
        watched = {other for other in needs(service) if "observability" in profiles(compose["services"][other])}
        if watched and "observability" not in profiles(service):
            yield f"{name} waits for {sorted(watched)}"


def one_mail_server(compose):
    for name in ("fakemail", "greenmail"):
        if compose["services"][name]["networks"]["inside"].get("aliases") != ["mail"]:
            yield f"{name} is not found as mail"
    if profiles(compose["services"]["fakemail"]) & profiles(compose["services"]["greenmail"]):
        yield "a profile brings both mail servers"


def built_from_the_repository(compose):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, service in compose["services"].items():
        if not service["image"].startswith("mailrig-"):
            continue
        path = ROOT / service["build"]["context"] / service["build"]["dockerfile"]
        if not path.exists():
            yield f"{name} is built from {path}, which isn't there"
            continue
        sources = [w for line in re.findall(r"^COPY (?!--from)(.+)", path.read_text(), re.MULTILINE)
                   for w in line.split()[:-1]]  # fmt: skip
        for source in sources:
            if not any(f"!{part}" in ignored for part in (source, source.rpartition("/")[0])):
                yield f"{name}: {source} does not get into the build"


def observers_find_one_another(collector, jaeger, prometheus, compose):
    """Addresses in the mounted files are services of the stack, and ports those that are listened on."""
    if collector["exporters"]["otlp/jaeger"]["endpoint"] != "jaeger:4317":
        yield "the collector does not send to Jaeger"
    for what, file in (("collector", collector), ("jaeger", jaeger)):
        for protocol, port in (("grpc", 4317), ("http", 4318)):
            if file["receivers"]["otlp"]["protocols"][protocol]["endpoint"] != f"0.0.0.0:{port}":
                yield f"{what} does not take {protocol} from others"
        if file["processors"]["memory_limiter"]["limit_mib"] >= mib(compose["services"][what]["mem_limit"]):
            yield f"{what} limits itself later than its container does"
    if not 0 < jaeger["extensions"]["jaeger_storage"]["backends"]["latest"]["memory"]["max_traces"] <= 50_000:
        yield "Jaeger's store has no bound"
    spans = jaeger["exporters"]["prometheus"]["endpoint"].replace("0.0.0.0", "jaeger")
    telemetry = {f"{what}:{_own_metrics(file)}" for what, file in (("collector", collector), ("jaeger", jaeger))}
    listening = {"exporter:9540", "localhost:9090", spans} | telemetry
    targets = {t for job in prometheus["scrape_configs"] for static in job["static_configs"] for t in static["targets"]}
    if targets != listening:
        yield f"Prometheus asks {sorted(targets ^ listening)}, which nobody serves, or misses it"


def _own_metrics(file):
    (reader,) = file["service"]["telemetry"]["metrics"]["readers"]
    return reader["pull"]["exporter"]["prometheus"]["port"]


def mounted(name):
    """A configuration file that the stack mounts."""
    return yaml.safe_load((ROOT / "dashboards" / name).read_text())
