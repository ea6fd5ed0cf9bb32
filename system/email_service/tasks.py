"""The tasks, thin: context in -> service -> policy.decide -> retry or result.

``MailTask`` is what they share: it takes the lease, opens the process span, and turns an error into a decision. A task
body is one call of a use case. ``register`` adds them to an application; they are run by worker processes alone.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task
from celery.exceptions import Ignore
from opentelemetry.trace import Span
from sqlalchemy.orm import Session

from email_service import jobs, policy, telemetry
from email_service.celery_app import MailCelery, submit
from email_service.errors import (
    InternalError,
    LeaseLostError,
    MailServiceError,
    PermissionDeniedError,
    TimeLimitError,
    WorkerLostError,
)
from email_service.jobs import Delivery, Holder, Lease, NewJob
from email_service.policy import GiveUp, TaskRule
from email_service.service import cleaning, deleting, scoring, sending, syncing
from email_service.service.work import Settled, Tools, Work, insist
from email_service.tenancy import SYSTEM, Database, Scope

_log = logging.getLogger(__name__)

#: Celery's own bound on retries; ``policy.decide`` is asked before, and continuations are no retries.
_RETRIES_UNBOUNDED: Final = 1_000_000
#: Synchronisations that are shown in the trace of the fan-out that asked for them. Each has some twenty spans, so that
#: trace stays near a thousand, which a person can still look through; of a larger fan-out each begins its own, by link.
FAN_OUT_NESTED_MAX: Final = 50
#: What a row keeps of an error's words.
DETAIL_CHARS_MAX: Final = 300


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What tasks find in their worker process."""

    tools: Tools
    holder: Holder
    #: Whether the process with this pid and start (nanoseconds) still runs.
    alive: Callable[[int, int], bool]


@dataclass(frozen=True, kw_only=True)
class _PutOff:
    """A running job that is about to wait in its row."""

    work: Work
    span: Span
    error: MailServiceError
    failed: bool


class MailTask(Task):  # type: ignore[misc]  # Celery ships no types
    """A task whose truth is a job row."""

    abstract = True
    #: A failure that was decided on is ``on_failure``'s to tell, in one line, not Celery's in a traceback.
    throws = (MailServiceError,)
    #: The name without its module, for people.
    short_name: str
    #: Set by ``register``: the use case, and how to reach this process's tools.
    use_case: Callable[[MailCelery, Work], Settled]
    runtime: Callable[[], Runtime]
    #: Set while ``retry`` runs, so that ``apply_async`` knows the row.
    put_off: _PutOff | None = None

    def __call__(self, *_args: Any, **kwargs: Any) -> dict[str, object]:
        """Run the task for the message in ``self.request``, if its job may run now."""
        runtime, rule = self.runtime(), policy.TASKS[self.name]
        scope = _scope(rule, kwargs)
        received_ns, span_id = telemetry.received(self.request)
        lease = _lease(runtime, rule, scope, self.request, received_ns=received_ns, span_id=span_id)
        if lease is None:
            _refuse(runtime.tools, rule, scope, self.request)
            raise Ignore
        work = Work(tools=runtime.tools, lease=lease)
        with (
            telemetry.log_context(
                task_id=str(lease.job_id),
                task=self.short_name,
                execution_id=str(lease.execution_id),
                ordinal=lease.ordinal,
                tenant_id=lease.scope.tenant_id,
            ),
            telemetry.process_span(
                queue=lease.queue,
                task_id=str(lease.job_id),
                task_name=lease.name,
                tenant_id=lease.scope.tenant_id,
                creation=lease.traceparent,
                span_id=span_id,
                execution_id=str(lease.execution_id),
                ordinal=lease.ordinal,
                node=runtime.holder.node,
                received_ns=received_ns,
                enqueued_or_due_ns=_ns(max(lease.created_at, lease.due_at)),
                started_ns=_ns(lease.started_at),
            ) as span,
        ):
            telemetry.task_starting(self.short_name, str(lease.job_id), **_waits(lease, received_ns))
            return self._run(work, rule, span)

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Publish; but a retry of the running job waits in its row until the dispatcher publishes it when it is due.

        In the mode ``eta`` the row waits as well and Celery publishes at once, with a countdown: what that costs is
        for the rig to show.
        """
        put_off = self.put_off
        if put_off is None:
            return super().apply_async(*args, **options)
        _reschedule(put_off, delay_s=float(options["countdown"]))
        _mark(put_off.work, put_off.span, "retry", put_off.error.code)
        lease = put_off.work.lease
        if put_off.work.tools.settings.retry_mode == "eta":
            with telemetry.publish_span(
                lease.queue,
                str(lease.job_id),
                lease.name,
                tenant_id=lease.scope.tenant_id,
                kind="client",
                parent=lease.traceparent,
                link=telemetry.traceparent(put_off.span),
            ):
                return super().apply_async(*args, **options)
        return self.AsyncResult(options["task_id"])

    def on_failure(self, exc: BaseException, task_id: str, _args: Any, kwargs: Mapping[str, Any], _einfo: Any) -> None:
        """Celery's hook, in the child; for a hard time limit in the main process. One line for who watches the logs.

        The row has it already, and the exporter counts rows: what was counted here would be missed at a SIGKILL and
        counted twice at a hard limit.
        """
        code = exc.code if isinstance(exc, MailServiceError) else type(exc).__name__
        with telemetry.log_context(
            task_id=task_id,
            task=self.short_name,
            traceparent=_creation(self.request),
            tenant_id=(kwargs or {}).get("tenant_id") or SYSTEM.tenant_id,
            client_id=(kwargs or {}).get("email_client_id"),
            queue=policy.TASKS[self.name].queue,
            failures=self.request.retries,
            error_type=code,
        ):
            _log.error("%s failed (%s)", self.name, code)

    def _run(self, work: Work, rule: TaskRule, span: Span) -> dict[str, object]:
        # What follows is outside of any except clause: the cause of an error may quote rows or replies, and Celery
        # would write it to Redis with the traceback.
        settled = self._attempt(work)
        if isinstance(settled, MailServiceError):
            return self._decide(work, rule, span, settled)
        _mark(work, span, settled.state, None)
        telemetry.task_completed(self.short_name, outcome=settled.outcome, run_s=_run_s(work))
        return settled.result

    def _attempt(self, work: Work) -> Settled | MailServiceError:
        try:
            _refuse_poison(work)
            return self.use_case(self.app, work)
        except LeaseLostError:
            # Whoever has taken the job ended this execution's row, and wrote its span.
            raise
        except SoftTimeLimitExceeded:
            return TimeLimitError(self.name)
        except MailServiceError as err:
            return _alone(err)
        except Exception as err:  # noqa: BLE001  # whatever it is, the row must not wait for a lease to end
            # A defect, or what no retry can mend: settled as failed, loudly, with its traceback in the log.
            _log.exception("%s failed", self.name)
            return InternalError(type(err).__name__)

    def _decide(self, work: Work, rule: TaskRule, span: Span, err: MailServiceError) -> dict[str, object]:
        resumes = rule.resumes and isinstance(err, TimeLimitError)
        decision = policy.decide(err, attempt=work.lease.failures, max_retries=rule.max_retries)
        if isinstance(decision, GiveUp) and not resumes:
            return self._give_up(work, span, err)
        delay_s = 0.0 if resumes or isinstance(decision, GiveUp) else decision.delay_s
        delay_s *= work.tools.settings.time_scale
        telemetry.task_retries(self.short_name, err, delay_s=delay_s, failed=not resumes, run_s=_run_s(work))
        self.put_off = _PutOff(work=work, span=span, error=err, failed=not resumes)
        try:
            raise self.retry(exc=err, countdown=delay_s, max_retries=_RETRIES_UNBOUNDED)
        finally:
            self.put_off = None

    def _give_up(self, work: Work, span: Span, err: MailServiceError) -> dict[str, object]:
        """Settle the job for good; a send that reached some of its recipients has a result, anything else fails."""
        if work.lease.name == f"{_PREFIX}send_email":
            settled = sending.give_up_send(work, err.code, error_detail=_detail(err))
        else:
            settled = _fail(work, err)
        _mark(work, span, settled.state, err.code)
        if settled.state == "succeeded":
            _log.warning("%s gives up on some recipients (%s)", self.name, err.code)
            return settled.result
        raise err


_PREFIX: Final = "email_service.tasks."


def register(app: MailCelery, runtime: Callable[[], Runtime], *, request: type) -> None:
    """Add the tasks to an application.

    ``runtime`` is called in the worker process, at each task; ``request`` is what a message is in the main process.
    """
    for name, use_case in _USE_CASES.items():
        rule = policy.TASKS[_PREFIX + name]
        task = type(
            name,
            (MailTask,),
            {
                "__doc__": use_case.__doc__,
                "__module__": __name__,
                "name": rule.name,
                "short_name": name,
                "max_retries": rule.max_retries,
                "default_retry_delay": policy.BACKOFF_BASE_S,
                "Request": request,
                "use_case": staticmethod(use_case),
                "runtime": staticmethod(runtime),
                "run": lambda self, **kwargs: self(**kwargs),
            },
        )
        app.register_task(task())


def _send_email(_app: MailCelery, work: Work) -> Settled:
    """Deliver one message."""
    return sending.send_message(work)


def _sync_emails(_app: MailCelery, work: Work) -> Settled:
    """Bring one mailbox up to date."""
    return syncing.sync_mailbox(work)


def _delete_emails(_app: MailCelery, work: Work) -> Settled:
    """Move messages to the trash, or expunge them."""
    return deleting.delete_messages(work)


def _check_spam(_app: MailCelery, work: Work) -> Settled:
    """Score messages."""
    return scoring.check_spam(work)


def _cleanup_stale_results(_app: MailCelery, work: Work) -> Settled:
    """Remove what is no longer needed."""
    return cleaning.clean_up(work)


def _periodic_sync(app: MailCelery, work: Work) -> Settled:
    """Ask for a synchronisation of every client that is due."""
    clients = syncing.due_clients(work.tools)
    for client in clients:
        job = NewJob(
            id=uuid.uuid4(),
            name=f"{_PREFIX}sync_emails",
            args={},
            client_id=client.id,
            parent_job_id=work.lease.job_id,
            # A second execution of this fan-out finds what the first one asked for.
            idempotency_key=f"periodic:{work.lease.job_id}:{client.id}",
            request=b"",
        )
        submit(app, work.tools.database, client.scope, job, own_trace=len(clients) > FAN_OUT_NESTED_MAX)
    result: dict[str, object] = {"outcome": "fanned-out", "clients": len(clients)}
    with work.tools.system.session(SYSTEM) as session:
        jobs.finish(session, work.lease, work.ending("succeeded"), state="succeeded", outcome="fanned-out")
        session.commit()
    return Settled(state="succeeded", outcome="fanned-out", result=result)


_USE_CASES: Final[Mapping[str, Callable[[MailCelery, Work], Settled]]] = {
    "send_email": _send_email,
    "sync_emails": _sync_emails,
    "delete_emails": _delete_emails,
    "check_spam": _check_spam,
    "cleanup_stale_results": _cleanup_stale_results,
    "periodic_sync": _periodic_sync,
}


def _scope(rule: TaskRule, kwargs: Mapping[str, Any]) -> Scope:
    """Whose task this is.

    Raises:
        PermissionDeniedError: it names no tenant or no user, or the one that sees all rows.
    """
    if rule.system:
        return SYSTEM
    tenant_id, user_id = kwargs.get("tenant_id"), kwargs.get("user_id")
    if not (isinstance(tenant_id, str) and isinstance(user_id, str) and tenant_id and user_id):
        raise PermissionDeniedError(f"{rule.name} needs tenant_id and user_id")
    if tenant_id == SYSTEM.tenant_id:
        raise PermissionDeniedError(f"{rule.name} never runs for the system's own tenant")
    return Scope(tenant_id=tenant_id, user_id=user_id)


def _database(tools: Tools, scope: Scope) -> Database:
    return tools.system if scope == SYSTEM else tools.database


def _lease(
    runtime: Runtime, rule: TaskRule, scope: Scope, request: Any, *, received_ns: int, span_id: str
) -> Lease | None:
    tools = runtime.tools
    delivery = Delivery(
        job_id=uuid.UUID(request.id),
        execution_id=uuid.uuid4(),
        span_id=span_id,
        received_at=datetime.fromtimestamp(0, UTC) + timedelta(microseconds=received_ns // 1000),
        started_at=tools.clock(),
        pss_before_bytes=tools.pss_bytes(),
    )
    with _database(tools, scope).session(scope) as session:
        if rule.system:
            job = NewJob(id=delivery.job_id, name=rule.name, args={}, traceparent=_creation(request))
            jobs.adopt(session, scope, job, time_scale=tools.settings.time_scale)
        lease = _take(session, runtime, scope, delivery)
        if lease is None and jobs.release_dead(session, runtime.holder.host, runtime.alive, only=delivery.job_id):
            # The first try may have waited for what the dead had locked: its start would be in the dead one's lifetime.
            lease = _take(session, runtime, scope, replace(delivery, started_at=tools.clock()))
        session.commit()
    if lease is not None:
        jobs.tell(lease.vanished)
    return lease


def _take(session: Session, runtime: Runtime, scope: Scope, delivery: Delivery) -> Lease | None:
    return jobs.lease(
        session,
        scope,
        delivery,
        runtime.holder,
        trace_id=telemetry.trace_id_of(str(delivery.job_id)),
        lease_s=runtime.tools.settings.lease_s,
    )


def _refuse(tools: Tools, rule: TaskRule, scope: Scope, request: Any) -> None:
    """A copy of a message whose job is leased, settled or not due: count it, and let it go."""
    with (
        telemetry.log_context(task_id=request.id, task=rule.name.rpartition(".")[2], tenant_id=scope.tenant_id),
        telemetry.settle_span(
            rule.queue, request.id, rule.name, tenant_id=scope.tenant_id, creation=_creation(request)
        ),
        _database(tools, scope).session(scope) as session,
    ):
        _log.info("task %s has nothing to do here: it is leased, settled or not due", request.id)
        jobs.refuse(session, uuid.UUID(request.id))
        session.commit()


def _creation(request: Any) -> str | None:
    """The trace context in the message's headers; Celery shows custom headers as attributes or in ``headers``."""
    value = getattr(request, "traceparent", None) or (request.headers or {}).get("traceparent")
    return value if isinstance(value, str) else None


def _reschedule(put_off: _PutOff, *, delay_s: float) -> None:
    work = put_off.work
    settings = work.tools.settings
    ending = work.ending("retry", put_off.error.code, error_detail=_detail(put_off.error))
    grace_s = policy.publish_grace_s(1) * settings.time_scale if settings.retry_mode == "eta" else 0.0

    def change() -> None:
        with _database(work.tools, work.lease.scope).session(work.lease.scope) as session:
            jobs.reschedule(session, work.lease, ending, delay_s=delay_s, failed=put_off.failed, grace_s=grace_s)
            session.commit()

    # The likeliest error is the database's own: a job that could not be put off would wait for its lease to end.
    insist(work, change)


def _fail(work: Work, err: MailServiceError) -> Settled:
    ending = work.ending("failed", err.code, error_detail=_detail(err))

    def change() -> None:
        with _database(work.tools, work.lease.scope).session(work.lease.scope) as session:
            jobs.finish(session, work.lease, ending, state="failed", outcome="failed")
            session.commit()

    insist(work, change)
    return Settled(state="failed", outcome="failed", result={"outcome": "failed", "error": err.code})


def _detail(err: MailServiceError) -> str | None:
    """What our own error says, for the tenant's eyes; what a library says is never asked for."""
    return err.detail[:DETAIL_CHARS_MAX] or None


def _alone(err: MailServiceError) -> MailServiceError:
    """An error without what led to it."""
    err.__cause__ = err.__context__ = err.__traceback__ = None
    return err


def _refuse_poison(work: Work) -> None:
    """A job whose executions keep vanishing takes a process with it each time.

    Raises:
        WorkerLostError: it has done so too often.
    """
    if work.lease.lost > policy.LOST_EXECUTIONS_MAX:
        raise WorkerLostError(f"{work.lease.lost} executions", transient=False)


def _mark(work: Work, span: Span, outcome: str, error_type: str | None) -> None:
    """The row is ended: say it on the span. Nothing that takes time: a kill before the span is written loses it."""
    peak_bytes = work.endings[-1].pss_peak_bytes if work.endings else None
    telemetry.set_outcome(span, outcome, error_type, work.lease.pss_before_bytes, peak_bytes)


def _waits(lease: Lease, received_ns: int) -> dict[str, float]:
    """Seconds from when it was due, and from when this worker had its message, to the start."""
    due_ns, started_ns = _ns(max(lease.created_at, lease.due_at)), _ns(lease.started_at)
    waits = {"queue_time_s": started_ns - due_ns, "prefetch_wait_s": started_ns - received_ns}
    return {name: round(max(0, wait_ns) / 1e9, 6) for name, wait_ns in waits.items()}


def _run_s(work: Work) -> float:
    """Seconds since the start of the execution, by the clock that its row was made with."""
    return round((work.tools.clock() - work.lease.started_at).total_seconds(), 6)


def _ns(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
