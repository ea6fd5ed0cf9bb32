from __future__ import annotations

import base64

import pytest

from email_service.config import settings_from
from email_service.errors import ConfigError

KEY = base64.b64encode(b"k" * 32).decode()
GOOD = {
    "DATABASE_URL": "postgresql://mail_app:canary-password@db/mail",
    "DATABASE_SYSTEM_URL": "postgresql://mail_system:canary-password@db/mail",
    "REDIS_URL": "redis://:canary-password@redis:6379",
    "CREDENTIAL_ENCRYPTION_KEY": KEY,
    "MAIL_TOKEN_SECRET": "canary-password-" * 3,
    "MAIL_BLOB_DIR": "/blobs",
}


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


def test_a_repr_shows_no_secret():
    assert "canary" not in repr(settings_from(GOOD))
    assert KEY not in repr(settings_from(GOOD))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "", "DATABASE_URL is not set"),
        ("DATABASE_URL", "mysql://canary-password@db", "postgresql://user:password@host"),
        ("REDIS_URL", "redis://host/3", "without a database number"),
        ("CREDENTIAL_ENCRYPTION_KEY", "canary-password", "32 bytes in base64"),
        ("MAIL_TOKEN_SECRET", "canary-password", "32 characters"),
        ("MAIL_TIME_SCALE", "2", "from 0.05 to 1"),
        ("MAIL_TIME_SCALE", "fast", "from 0.05 to 1"),
        ("MAIL_RETRY_MODE", "later", "row, eta"),
    ],
)
def test_a_bad_setting_says_which_and_what_would_be_right(name, value, says):
    with pytest.raises(ConfigError) as caught:
        settings_from(GOOD | {name: value})
    assert name in str(caught.value)
    assert says in str(caught.value)
    assert "canary" not in str(caught.value)
