"""What publishing costs besides the message: nothing at the results' store."""

from __future__ import annotations

import base64
import uuid

import pytest
from kombu.transport import memory

from email_service import celery_app
from email_service.config import settings_from
from email_service.jobs import Message

MESSAGE = Message(
    id=uuid.UUID(int=1),
    tenant_id="acme",
    user_id="u",
    name="email_service.tasks.send_email",
    queue="send",
    client_id=None,
    failures=0,
    publishes=1,
    traceparent=None,
    cause=None,
)


@pytest.fixture
def app(tmp_path):
    made = celery_app.celery_for(
        settings_from(
            {
                "DATABASE_URL": "postgresql://a@h/d",
                "DATABASE_SYSTEM_URL": "postgresql://b@h/d",
                "REDIS_URL": "redis://127.0.0.1:1",
                "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
                "MAIL_TOKEN_SECRET": "s" * 40,
                "MAIL_BLOB_DIR": str(tmp_path),
            }
        )
    )
    made.conf.broker_url = "memory://"
    for queue in memory.Channel.queues.values():
        queue.queue.clear()
    return made


def test_a_publisher_does_not_subscribe_to_the_result_of_each_task(app):
    """Nothing listens where the results are kept: a subscription would be an error."""
    celery_app.send(app, MESSAGE)
    with app.connection_for_read() as connection:
        assert connection.SimpleQueue("send").get(timeout=1).headers["id"] == str(MESSAGE.id)
