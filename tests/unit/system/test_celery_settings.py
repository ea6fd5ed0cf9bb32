from __future__ import annotations

import base64

from celery.app import defaults

from email_service import policy
from email_service.celery_app import celery_for
from email_service.config import settings_from

GOOD = {
    "DATABASE_URL": "postgresql://mail_app:x@db/mail",
    "DATABASE_SYSTEM_URL": "postgresql://mail_system:x@db/mail",
    "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
    "MAIL_TOKEN_SECRET": "x" * 40,
    "MAIL_BLOB_DIR": "/blobs",
}


def test_celery_knows_every_setting_that_we_make():
    """Celery ignores an unknown setting silently."""
    app = celery_for(settings_from(GOOD))
    made = set(app.conf.changes) | set(app._preconf)
    # Celery adds its own key for deprecated names.
    known = {name for name, _ in defaults.flatten(defaults.NAMESPACES)} | {"deprecated_settings"}
    assert made - known == set()


def test_a_task_is_routed_to_its_queue_with_its_priority():
    app = celery_for(settings_from(GOOD))
    for rule in policy.TASKS.values():
        route = app.amqp.router.route({}, rule.name)
        assert route["queue"].name == rule.queue
        assert route["priority"] == policy.QUEUES[rule.queue].message_priority


def test_the_visibility_timeout_outlasts_the_longest_wait_at_full_length():
    options = celery_for(settings_from(GOOD)).conf.broker_transport_options
    assert options["visibility_timeout"] > max(policy.TIME_LIMIT_S, policy.BACKOFF_CAP_S)
