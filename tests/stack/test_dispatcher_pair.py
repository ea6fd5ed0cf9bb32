"""Two dispatchers on one database share the work: each message is published once, and none is left."""

from __future__ import annotations

import base64
import threading
import uuid
from collections import Counter

import pytest
import redis
from service_processes import Bare
from sqlalchemy import text

from email_service import jobs, policy
from email_service.celery_app import celery_for
from email_service.config import settings_from
from email_service.dispatcher import BATCH, Dispatcher
from email_service.tenancy import SYSTEM, Scope

SEND = "email_service.tasks.send_email"
JOBS = 2 * BATCH + 50


@pytest.fixture
def bare(tmp_path):
    bare = Bare(tmp_path)
    yield bare
    bare.close()


def app_on(postgres, redis_url):
    environment = {
        "DATABASE_URL": postgres.app,
        "DATABASE_SYSTEM_URL": postgres.system,
        "REDIS_URL": redis_url,
        "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
        "MAIL_TOKEN_SECRET": "x" * 40,
        "MAIL_BLOB_DIR": "/blobs",
    }
    return celery_for(settings_from(environment))


@pytest.fixture
def overdue(app_rows, system_rows, tenant):
    """Jobs whose messages are lost."""
    with system_rows.session(SYSTEM) as session:
        session.execute(text("UPDATE jobs SET next_publish_at = NULL"))
        session.commit()
    scope, ids = Scope(tenant_id=tenant, user_id="u"), [uuid.uuid4() for _ in range(JOBS)]
    with app_rows.session(scope) as session:
        for job_id in ids:
            jobs.enqueue(session, scope, jobs.NewJob(id=job_id, name=SEND, args={}), time_scale=1, publish=False)
        session.commit()
    return {str(job_id) for job_id in ids}


def published(bare):
    with redis.Redis.from_url(f"{bare.redis_url}/0") as client:
        messages = client.lrange(policy.priority_key("send", 2), 0, -1)
    return Counter(str(uuid.UUID(message.partition(b'"id": "')[2][:36].decode())) for message in messages)


def test_two_dispatchers_publish_each_overdue_job_once(postgres, bare, system_rows, overdue):
    start, shares, app = threading.Barrier(2), {}, app_on(postgres, bare.redis_url)

    def work(name):
        dispatcher = Dispatcher(app, system_rows, listen_url="", alive=lambda _pid, _start: True)
        start.wait()
        shares[name] = 0
        while batch := dispatcher.publish_due():
            shares[name] += batch

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert set(published(bare).items()) == {(job_id, 1) for job_id in overdue}
    assert sum(shares.values()) == JOBS
    assert min(shares.values()) > 0


def test_what_the_broker_did_not_take_is_soon_tried_again(postgres, bare, system_rows, overdue):
    """Nothing is lost with the batch, and the grace of a message (20 s) is not waited for."""
    nowhere = app_on(postgres, "redis://127.0.0.1:9")
    dispatcher = Dispatcher(nowhere, system_rows, listen_url="", alive=lambda _pid, _start: True)
    assert dispatcher.publish_due() == BATCH
    with system_rows.session(SYSTEM) as session:
        query = "SELECT max(extract(epoch FROM next_publish_at - clock_timestamp())) FROM jobs WHERE publishes = 1"
        assert float(session.execute(text(query)).scalar_one()) <= 1.0
    assert not published(bare)
