"""python -m email_service: every process of the service, one kind a command.

Long-running kinds end on SIGTERM and SIGINT, and write ``--ready-file`` once they serve. Exit codes: 0 done, 1 the
process failed, 2 a setting or an argument is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from email_service.config import Settings, database_url, settings_from
from email_service.errors import ConfigError, InvalidRequestError, MailServiceError

_log = logging.getLogger(__name__)

#: Threads of one API process; each has a database connection at most.
API_THREADS: Final = 4
TOKEN_TTL_S: Final = 86_400


def main(argv: Sequence[str] | None = None) -> int:
    """Run one process; answers its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except (ConfigError, InvalidRequestError) as err:
        print(f"email_service: {err}", file=sys.stderr)
        return 2
    except MailServiceError as err:
        print(f"email_service: {err}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m email_service",
        description="The e-mail service: one process per command. Settings come from the environment (see the README).",
    )
    commands = parser.add_subparsers(dest="kind", required=True, metavar="KIND")

    def add(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    api = add("api", _api, "serve the HTTP API")
    _listen(api, 5000)
    api.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    worker = add("worker", _worker, "run tasks in prefork processes")
    worker.add_argument("--concurrency", type=int, default=None, help="processes (default: CELERYD_CONCURRENCY, or 4)")
    worker.add_argument("--node", default=None, help="the worker's name (default: MAIL_NODE, or mail@HOST)")
    worker.add_argument("--queues", default=None, help="comma separated (default: all)")
    _ready_file(worker)
    _ready_file(add("beat", _beat, "publish scheduled tasks"))
    _ready_file(add("dispatcher", _dispatcher, "publish retries that are due and jobs that are overdue"))
    exporter = add("exporter", _exporter, "serve Prometheus metrics at /metrics")
    _listen(exporter, 9540)
    settings = add("settings", _settings, "print every setting with its value, secrets as set or not set")
    settings.add_argument("--markdown", action="store_true", help="print the table of the README instead")
    flower = add("flower", _flower, "serve the dashboard over the worker, to look at only")
    _listen(flower, 5555)
    health = add("health", _health, "tell whether a process of this host does its work; exit code 0 or 1")
    health.add_argument("of", metavar="KIND", help="worker, beat, dispatcher, api, exporter or flower")
    health.add_argument("--timeout-s", type=float, default=8.0, help="seconds until it is given up (default: 8)")
    health.add_argument("--age-s-max", type=float, default=20.0, help="oldest sign of life of beat and dispatcher")
    health.add_argument("--node", default=None, help="the worker's name (default: MAIL_NODE, or mail@HOST)")
    health.add_argument("--port", type=int, default=None, help="where api, exporter or flower listens")
    add("openapi", _openapi, "print the OpenAPI document of the HTTP API")
    add("migrate", _migrate, "bring the database up to date, as its owner")
    tenant = add("tenant", _tenant, "make a tenant; one that exists is left as it is")
    tenant.add_argument("name", help="a-z, 0-9 and -, begins with a letter")
    rotate = add("rotate-keys", _rotate_keys, "bring every credential under the current key, while the service runs")
    rotate.add_argument("--dry-run", action="store_true", help="open all and count, change nothing")
    token = add("token", _token, "print a bearer token")
    token.add_argument("--tenant", required=True)
    token.add_argument("--user", required=True)
    token.add_argument("--ttl-s", type=int, default=TOKEN_TTL_S, help="seconds it is valid (default: a day)")
    return parser


def _listen(command: argparse.ArgumentParser, port: int) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=port, help=f"port to bind; 0 takes a free one (default: {port})")
    _ready_file(command)


def _ready_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ready-file", type=Path, default=None, help="written as JSON once the process serves")


def _announce(path: Path | None, kind: str, **facts: Any) -> None:
    """Write the ready file whole or not at all."""
    _log.info("%s is ready", kind)
    if path is None:
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"pid": os.getpid(), "kind": kind, **facts}, file)
    Path(name).replace(path)


def _telemetry(kind: str, settings: Settings) -> None:
    from email_service import telemetry

    telemetry.configure(
        kind,
        span_dir=settings.span_dir,
        otlp_endpoint=settings.otlp_endpoint,
        otlp_headers=settings.otlp_headers,
        ratio=settings.trace_sample,
        span_bytes_max=settings.span_bytes_max,
        node=settings.node if kind == "worker" else None,
    )
    _logs(kind, settings)


def _logs(kind: str, settings: Settings) -> None:
    from email_service import telemetry

    telemetry.configure_logging(kind, settings.log_format, log_dir=settings.log_dir, secrets=settings.secrets)
    telemetry.take_over()


def _tools(settings: Settings, *, processes: int, threads: int = 2) -> Any:
    """This process's connections and keys. Pools are totals per worker in the settings, shared out here."""
    from email_service import telemetry
    from email_service.blobs import open_store
    from email_service.service.work import Tools
    from email_service.smtp import Connections
    from email_service.tenancy import Database
    from email_service.vault import Vault

    size = max(threads, settings.pool_size // (processes + 1))
    name = f"mailrig:{os.getpid()}"
    database = Database(settings.database_url, pool_size=size, max_overflow=1, application_name=name)
    system = Database(settings.database_system_url, pool_size=1, max_overflow=1, application_name=name)
    telemetry.instrument_sqlalchemy([database.engine, system.engine])
    return Tools(
        settings=settings,
        database=database,
        system=system,
        vault=Vault(settings.credential_keys, settings.credential_key_id),
        blobs=open_store(settings.blob_url),
        tls=_trust(settings),
        smtp=Connections(idle_s=settings.smtp_idle_s),
        clock=lambda: datetime.now(UTC),
        pss_bytes=telemetry.pss_bytes,
    )


def _trust(settings: Settings) -> Any:
    """The system's certificates and the operator's; None leaves it to the adapters, which read the system's once."""
    import ssl

    if settings.ca_file is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"MAIL_CA_FILE {settings.ca_file} is not a PEM file that can be read ({err})") from err
    return context


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _api(arguments: argparse.Namespace) -> int:
    # Imported before the fork: its processes share the modules, and the second starts in no time.
    from email_service import api, serving
    from email_service.celery_app import celery_for

    settings = settings_from()
    # The master's own lines: a worker that was killed, for example.
    _logs("api", settings)

    def application() -> Any:
        _telemetry("api", settings)
        return api.wsgi(lambda: (_tools(settings, processes=1, threads=API_THREADS), celery_for(settings)))

    return serving.serve(
        application,
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        threads=API_THREADS,
        ready=lambda url: _announce(arguments.ready_file, "api", url=url),
    )


def _openapi(_: argparse.Namespace) -> int:
    from email_service.api import document
    from email_service.api.app import ROUTES

    print(json.dumps(document(ROUTES), indent=1))
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from email_service import worker
    from email_service.celery_app import celery_for

    settings = settings_from()
    if arguments.node:
        settings = replace(settings, node=arguments.node)
    if arguments.concurrency is not None:
        settings = replace(settings, concurrency=arguments.concurrency)
    _telemetry("worker", settings)
    return worker.run(
        celery_for(settings),
        lambda: _tools(settings, processes=settings.concurrency),
        concurrency=settings.concurrency,
        queues=arguments.queues,
        ready=lambda: _announce(arguments.ready_file, "worker", node=settings.node),
    )


def _beat(arguments: argparse.Namespace) -> int:
    import celery
    from celery.signals import beat_init

    from email_service import telemetry
    from email_service.celery_app import celery_for

    settings = settings_from()
    _telemetry("beat", settings)
    beat_init.connect(lambda **_: _announce(arguments.ready_file, "beat"), weak=False)
    _log.info("celery beat v%s", celery.VERSION_BANNER, extra={"source": ""})
    settings.beat_store.parent.mkdir(parents=True, exist_ok=True)
    try:
        celery_for(settings).Beat(loglevel="INFO", quiet=True).run()
    finally:
        telemetry.shutdown()
    return 0


def _dispatcher(arguments: argparse.Namespace) -> int:
    from email_service import telemetry, worker
    from email_service.celery_app import celery_for
    from email_service.dispatcher import Dispatcher

    settings = settings_from()
    _telemetry("dispatcher", settings)
    tools = _tools(settings, processes=1)
    listen_url = settings.database_system_url.replace("postgresql+psycopg://", "postgresql://", 1)
    stop = _stop_on_signals()
    dispatcher = Dispatcher(celery_for(settings), tools.system, listen_url=listen_url, alive=worker.alive)
    _announce(arguments.ready_file, "dispatcher")
    dispatcher.run(stop)
    telemetry.shutdown()
    return 0


def _exporter(arguments: argparse.Namespace) -> int:
    from email_service import exporter

    settings = settings_from()
    _telemetry("exporter", settings)
    stop = _stop_on_signals()

    def ready(port: int) -> None:
        _announce(arguments.ready_file, "exporter", url=f"http://{arguments.host}:{port}/metrics")

    inputs = exporter.live_inputs(_tools(settings, processes=1).system, settings.broker_url, settings.host)
    exporter.serve(inputs, arguments.host, arguments.port, ready, stop)
    return 0


def _settings(arguments: argparse.Namespace) -> int:
    from email_service import config

    if arguments.markdown:
        print(config.markdown())
        return 0
    rows = [("variable", "value", "from"), *config.shown(os.environ)]
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}")
    settings_from()
    return 0


def _flower(arguments: argparse.Namespace) -> int:
    try:
        from email_service import flower
    except ModuleNotFoundError as err:
        raise ConfigError("Flower is not installed: pip install 'mailrig[flower]'") from err
    from email_service.celery_app import celery_for

    settings = settings_from()
    _telemetry("flower", settings)

    def ready(port: int) -> None:
        _announce(arguments.ready_file, "flower", url=f"http://{arguments.host}:{port}")

    return flower.serve(celery_for(settings), host=arguments.host, port=arguments.port, ready=ready)


def _health(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from email_service import health

    if arguments.of not in health.KINDS:
        raise InvalidRequestError(f"health of {arguments.of!r}: choose one of {', '.join(health.KINDS)}")
    settings = settings_from()
    if arguments.node:
        settings = replace(settings, node=arguments.node)
    found = health.check(
        arguments.of,
        settings,
        timeout_s=arguments.timeout_s,
        age_s_max=arguments.age_s_max,
        port=arguments.port,
    )
    print(f"{arguments.of} is {'healthy' if found.healthy else 'unhealthy'}: {found.reason}")
    return 0 if found.healthy else 1


def _migrate(_: argparse.Namespace) -> int:
    from email_service import config, telemetry
    from email_service.migrations.runner import migrate

    log_format, log_dir = config.log_choice(os.environ)
    telemetry.configure_logging("migrate", log_format, log_dir=log_dir)
    logins = ("DATABASE_URL", "DATABASE_SYSTEM_URL", "DATABASE_AUDIT_URL")
    revision = migrate(database_url(os.environ, "DATABASE_OWNER_URL"), [database_url(os.environ, n) for n in logins])
    print(f"database is at revision {revision}")
    return 0


def _tenant(arguments: argparse.Namespace) -> int:
    from sqlalchemy import text

    from email_service.scopes import check_tenant_name
    from email_service.tenancy import SYSTEM, Database

    name = check_tenant_name(arguments.name)
    url = database_url(os.environ, "DATABASE_SYSTEM_URL")
    database = Database(url, pool_size=1, max_overflow=0, application_name="mailrig:tenant")
    with database.session(SYSTEM) as session:
        session.execute(text("INSERT INTO tenants (id) VALUES (:id) ON CONFLICT DO NOTHING"), {"id": name})
        session.commit()
    print(name)
    return 0


def _rotate_keys(arguments: argparse.Namespace) -> int:
    from email_service.service.rotating import rotate_keys
    from email_service.tenancy import Database
    from email_service.vault import Vault

    settings = settings_from()
    vault = Vault(settings.credential_keys, settings.credential_key_id)
    system, database = (
        Database(url, pool_size=1, max_overflow=0, application_name="mailrig:rotate-keys")
        for url in (settings.database_system_url, settings.database_url)
    )
    try:
        found = rotate_keys(system, database, vault, dry_run=arguments.dry_run)
    finally:
        system.dispose()
        database.dispose()
    done = "to be resealed" if arguments.dry_run else "resealed"
    print(f"key {vault.current}: {found.resealed} {done}, {found.current} under it already")
    if found.changed:
        print(f"email_service: {found.changed} were changed meanwhile; run this again", file=sys.stderr)
    for tenant, credential_id in found.unopened:
        print(f"email_service: no key opens credential {credential_id} of tenant {tenant}", file=sys.stderr)
    return 1 if found.unopened or found.changed else 0


def _token(arguments: argparse.Namespace) -> int:
    from email_service.config import token_secret
    from email_service.scopes import Scope, check_tenant_name
    from email_service.tokens import issue_token

    if arguments.ttl_s < 1:
        raise InvalidRequestError("--ttl-s must be 1 or more")
    scope = Scope(tenant_id=check_tenant_name(arguments.tenant), user_id=arguments.user)
    print(issue_token(token_secret(os.environ), scope, ttl_s=arguments.ttl_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
