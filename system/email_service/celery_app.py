"""The Celery application: broker in Redis 0, results in Redis 1, queues and routes from ``policy``, beat's table.

Owns every Celery setting, each with its reason where it is not the default; a test holds the names against Celery's
own (it ignores unknown ones silently). Publishing goes through ``submit`` and ``republish`` alone: one place to trace,
one form of a message.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from celery import Celery, states
from celery.backends.redis import RedisBackend
from celery.signals import setup_logging
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from email_service import jobs, policy, signals, telemetry
from email_service.config import Settings
from email_service.jobs import Enqueued, Message, NewJob
from email_service.tenancy import Database, Scope

_log = logging.getLogger(__name__)

#: Writes what belongs to a job in the job's own transaction.
Write = Callable[[Session], None]
#: Reads what a job is made of, in the job's own transaction.
Plan = Callable[[Session], NewJob]

#: Beat's table: entry, task, interval in seconds before scaling.
BEAT: Final = (
    ("sync-emails-every-5min", "email_service.tasks.periodic_sync", 300.0),
    ("cleanup-stale-tasks-hourly", "email_service.tasks.cleanup_stale_results", 3600.0),
)

#: Seconds for which the API does not try a broker that was away: nobody waits for it in a request but the first.
BROKER_RESTS_S: Final = 5.0
_RETRY_POLICY: Final = {"max_retries": 3, "interval_start": 0, "interval_step": 0.5, "interval_max": 2}

_STATIC: Final[dict[str, Any]] = {
    "task_default_queue": "periodic",
    "task_create_missing_queues": False,
    "task_serializer": "json",
    "accept_content": ["json"],
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_publish_retry_policy": _RETRY_POLICY,
    "worker_disable_rate_limits": True,
    # KB of ru_maxrss: above the parent's own, or every task would cost a child.
    "worker_max_memory_per_child": 150_000,
    "worker_proc_alive_timeout": 15,
    # How long a lost child's last words are waited for; the default of 10 s would delay its message that long.
    "worker_lost_wait": 1.0,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # The lease makes a second copy do nothing, on every worker and for no round trip.
    "worker_deduplicate_successful_tasks": False,
    "worker_hijack_root_logger": False,
    "task_acks_late": True,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    # A lost child's message goes back to the queue at once; the next lease counts the loss and bounds it. Celery's own
    # task_retry_on_worker_lost would wait default_retry_delay (180 s) in the worker instead.
    "task_reject_on_worker_lost": True,
    "task_retry_on_worker_lost": False,
    # The row says when it started; the write to Redis would say it again for a millisecond.
    "task_track_started": False,
    "result_backend_always_retry": True,
    "result_backend_max_retries": 5,
    "result_backend_base_sleep_between_retries_ms": 200,
    "redis_socket_timeout": 10,
    "redis_socket_connect_timeout": 5,
    "beat_max_loop_interval": 5,
    "beat_sync_every": 1,
    "timezone": "UTC",
    "enable_utc": True,
}


class ResultBackend(RedisBackend):  # type: ignore[misc]  # Celery ships no types
    """Results in Redis, without a look at what is there before each success.

    Celery reads the old result first, so that a lost copy never replaces a success. Here a copy without a lease stores
    nothing, so only what isn't a success needs that look: a round trip less for each task.
    """

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        if state != states.SUCCESS:
            return super()._store_result(task_id, result, state, traceback, request=request, **options)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        self.set(self.get_key_for_task(task_id), self.encode(meta | {"task_id": task_id}))
        return result

    def _set(self, key: bytes, value: str, expires: int | None = None) -> None:
        """Store and tell, without the transaction around them and the command that redis-py warns of each time."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.set(key, value, ex=expires or self.expires).publish(key, value).execute()


class MailCelery(Celery):  # type: ignore[misc]  # Celery ships no types
    """Celery, with the settings and telemetry of this process at hand for tasks."""

    settings: Settings
    #: Monotonic time until which ``submit`` leaves publishing to the dispatcher, as the broker was away.
    broker_rests_until_s: float = 0.0

    def _get_backend(self) -> Any:
        """Workers store results; nobody here waits for one.

        Celery's own would have every publisher subscribe to the channel of each task it sends, for as long as it lives
        (celery/backends/redis.py: on_task_call), and fail to publish while the results' database is away.
        """
        backend = super()._get_backend()
        backend.on_task_call = lambda _producer, _task_id: None
        return backend


def celery_for(settings: Settings) -> MailCelery:
    """Make the application; no connection is opened."""
    backend = f"{__name__}:{ResultBackend.__name__}+{settings.result_url}"
    app = MailCelery("email_service", broker=settings.broker_url, backend=backend, set_as_current=True)
    app.settings = settings
    hard_s, soft_s = settings.limits_s
    app.conf.update(
        _STATIC,
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in policy.QUEUES],
        task_routes={
            rule.name: {"queue": rule.queue, "priority": policy.QUEUES[rule.queue].message_priority}
            for rule in policy.TASKS.values()
        },
        broker_transport_options={
            "priority_steps": list(policy.PRIORITY_STEPS),
            "queue_order_strategy": "round_robin",
            # The last resort, above the hard limit and the longest backoff; the dispatcher recovers long before.
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        result_backend_transport_options={"retry_policy": {"timeout": 5.0}},
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=settings.prefetch_multiplier,
        worker_max_tasks_per_child=settings.tasks_per_child_max,
        task_time_limit=hard_s,
        task_soft_time_limit=soft_s,
        result_expires=3600 * settings.time_scale,
        worker_send_task_events=settings.task_events,
        task_send_sent_event=settings.task_events,
        beat_scheduler="email_service.beat_store:SqliteScheduler",
        beat_schedule_filename=os.fspath(settings.beat_store),
        beat_schedule={
            entry: {
                "task": task,
                "schedule": timedelta(seconds=interval_s * settings.time_scale),
                "options": {"expires": interval_s * settings.time_scale},
            }
            for entry, task, interval_s in BEAT
        },
    )
    return app


@setup_logging.connect  # type: ignore[untyped-decorator]  # as above
def _keep_logging(**_: Any) -> None:
    """Celery leaves logging alone once this signal has a receiver: ``telemetry.configure`` has set it up."""


def submit(
    app: MailCelery,
    database: Database,
    scope: Scope,
    job: NewJob | Plan,
    write: Write | None = None,
    *,
    own_trace: bool = False,
) -> Enqueued:
    """Write a job, and what belongs to it, in one commit; then publish its message: the fast way.

    A plan reads in the same transaction what the job is made of, so that a request is one transaction. A broker that
    does not take the message changes nothing: the row is there, and the dispatcher publishes it after the grace.
    Called by the API and by the fan-out. With ``own_trace`` the job begins a trace, with a link to who asks for it.

    Raises:
        ConflictError: the job's idempotency key was used with another request.
        DatabaseError: nothing was written.
    """
    with database.session(scope) as session:
        made = job(session) if callable(job) else job
        queue = policy.TASKS[made.name].queue
        with telemetry.publish_span(
            queue,
            str(made.id),
            made.name,
            tenant_id=scope.tenant_id,
            link=telemetry.current_traceparent() if own_trace else None,
            root_kind=signals.ROOT_FAN_OUT if own_trace else None,
        ) as span:
            made = replace(made, traceparent=telemetry.traceparent(span))
            at_once = time.monotonic() >= app.broker_rests_until_s
            enqueued = jobs.enqueue(session, scope, made, time_scale=app.settings.time_scale, publish=at_once)
            if enqueued.created and write is not None:
                write(session)
            session.commit()
            if enqueued.created and at_once:
                _send_or_leave(app, _first_message(scope, made, queue, made.traceparent))
    return enqueued


def _first_message(scope: Scope, job: NewJob, queue: str, traceparent: str | None) -> Message:
    return Message(
        id=job.id,
        tenant_id=scope.tenant_id,
        user_id=scope.user_id,
        name=job.name,
        queue=queue,
        client_id=job.client_id,
        failures=0,
        publishes=1,
        traceparent=traceparent,
        cause=None,
    )


def _send_or_leave(app: MailCelery, message: Message) -> None:
    """Publish, or leave it to the dispatcher; while the broker is away, one request in a while finds that out."""
    try:
        send(app, message, retries=1)
    except (OperationalError, RedisError) as err:
        app.broker_rests_until_s = time.monotonic() + BROKER_RESTS_S
        _log.warning("broker did not take task %s (%s): the dispatcher will publish it", message.id, type(err).__name__)


def republish(app: Celery, message: Message) -> None:
    """Send the message of a job that is due (again): a CLIENT span in the job's trace, linked to its last execution.

    Raises:
        kombu.exceptions.OperationalError: the broker did not take it, as far as can be told.
    """
    with telemetry.publish_span(
        message.queue,
        str(message.id),
        message.name,
        tenant_id=message.tenant_id,
        kind="client",
        parent=message.traceparent,
        link=message.cause,
    ):
        send(app, message)


def send(app: Celery, message: Message, *, retries: int = 3) -> None:
    """Hand a message to the broker, outside any span of its own. It carries ids, never content.

    A retry costs nothing where a pooled connection was dropped, and 1.5 s where nobody listens (redis-py's own).
    """
    app.send_task(
        message.name,
        kwargs={
            "email_client_id": str(message.client_id) if message.client_id else None,
            "tenant_id": message.tenant_id,
            "user_id": message.user_id,
        },
        task_id=str(message.id),
        retries=message.failures,
        retry_policy={**_RETRY_POLICY, "max_retries": retries},
        headers={"traceparent": message.traceparent},
        # What logs and events show of the arguments is decided here, not by their repr.
        argsrepr="()",
        kwargsrepr="{}",
        add_to_parent=False,
    )
