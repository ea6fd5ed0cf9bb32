"""What stands before every handler: tokens, the limit, other origins, sizes, methods; without a database."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jwt
import pytest
import redis
from limits.storage import MemoryStorage

from email_service import tokens as auth
from email_service.api import create_app, issue_token
from email_service.api.app import ROUTES
from email_service.api.limits import RateLimit
from email_service.api.routing import Upload
from email_service.celery_app import celery_for
from email_service.config import settings_from
from email_service.errors import ConfigError, DatabaseError, RateLimitError
from email_service.tenancy import Scope

SCOPE = Scope(tenant_id="acme", user_id="u")
SECRET = "canary-" * 6


class Away:
    """A database that is not there."""

    def session(self, _scope, **_):
        raise DatabaseError("OperationalError")


def application(tmp_path, *, rate_limit=None, **variables):
    settings = settings_from(
        {
            "DATABASE_URL": "postgresql://a@h/d",
            "DATABASE_SYSTEM_URL": "postgresql://b@h/d",
            "REDIS_URL": "redis://127.0.0.1:1",
            "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
            "MAIL_TOKEN_SECRET": SECRET,
            "MAIL_BLOB_DIR": str(tmp_path),
            "MAIL_RATE_LIMIT": "off",
            **variables,
        }
    )
    tools = SimpleNamespace(settings=settings, database=Away(), blobs=None)
    return create_app(tools, celery_for(settings), rate_limit=rate_limit)


def bearer(scope=SCOPE, **overrides):
    return {"Authorization": "Bearer " + issue_token(SECRET, scope, ttl_s=60, **overrides)}


class Clock:
    def __init__(self, now_s=1_000_000_000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


def test_a_token_is_verified_once_a_minute_and_its_expiry_is_looked_at_each_time(monkeypatch):
    calls, decode = [], jwt.decode
    monkeypatch.setattr(auth.jwt, "decode", lambda *a, **k: calls.append(1) or decode(*a, **k))
    token, clock = issue_token(SECRET, SCOPE, ttl_s=90), Clock(0.0)
    clock.now_s = jwt.decode(token, options={"verify_signature": False})["iat"]
    calls.clear()
    tokens = auth.Tokens(SECRET, clock=clock)
    for passed_s, verified in ((0, 1), (59, 1), (61, 2), (89, 2), (91, 3)):
        clock.now_s += passed_s - getattr(clock, "passed_s", 0)
        clock.passed_s = passed_s
        assert tokens.scope(f"Bearer {token}") == SCOPE
        assert len(calls) == verified


def test_an_expired_token_is_not_remembered():
    token = issue_token(SECRET, SCOPE, ttl_s=60, now_s=1000)
    with pytest.raises(auth.TokenError, match="Token expired"):
        auth.Tokens(SECRET).scope(f"Bearer {token}")


def test_no_more_tokens_are_remembered_than_a_thousand():
    tokens = auth.Tokens(SECRET)
    for number in range(1200):
        tokens.scope("Bearer " + issue_token(SECRET, Scope(tenant_id="acme", user_id=str(number)), ttl_s=60))
    assert len(tokens._known) == 1024


def forged(**change):
    claims = {"tenant": "acme", "sub": "u", "exp": 4_000_000_000} | change
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dTpw",
        "Bearer a.b.c",
        "Bearer \xff\xfe",
        "Bearer " + jwt.encode({"tenant": "acme", "sub": "u", "exp": 4_000_000_000}, None, algorithm="none"),
        "Bearer " + jwt.encode({"tenant": "acme", "sub": "u", "exp": 4_000_000_000}, "x" * 40, algorithm="HS256"),
        "Bearer " + forged(exp=None),
        "Bearer " + forged(sub=None),
        "Bearer " + forged(tenant=None),
    ],
)
def test_a_token_that_is_not_good_is_401_and_told_how(tmp_path, header):
    answer = application(tmp_path).test_client().get("/api/v1/acme/tasks", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_no_route_answers_without_a_token_or_to_another_tenant(tmp_path, route):
    client = application(tmp_path).test_client()
    path = route.rule.replace("<tenant>", "acme").replace("<", "").replace(">", "")
    assert client.open(path, method=route.method).status_code == 401
    assert client.open(path, method=route.method, headers=bearer(Scope(tenant_id="b", user_id="u"))).status_code == 403


def limit(rule="3/minute", clock=None, counter=None):
    return RateLimit(rule, counter or MemoryStorage(), clock=clock or Clock())


def test_a_tenant_may_ask_so_often_and_then_waits_for_the_next_window():
    clock = Clock(1_000_000_020.0)
    assert clock.now_s % 60 == 0
    rate = limit(clock=clock)
    assert [rate.take("acme").remaining for _ in range(3)] == [2, 1, 0]
    clock.now_s += 48
    with pytest.raises(RateLimitError) as caught:
        rate.take("acme")
    assert caught.value.retry_after_s == 12
    assert rate.take("other").remaining == 2
    clock.now_s += 12
    assert rate.take("acme").remaining == 2


class Counted(MemoryStorage):
    asked = 0

    def incr(self, key, expiry, amount=1):
        self.asked += 1
        return super().incr(key, expiry, amount=amount)


def test_processes_share_a_limit_exactly_and_seldom_ask():
    counter, clock = Counted(), Clock(1_000_000_020.0)
    processes = [limit("6000/minute", clock, counter) for _ in range(3)]
    granted = 0
    for number in range(7000):
        with contextlib.suppress(RateLimitError):
            processes[number % 3].take("acme")
            granted += 1
    assert granted == 6000
    assert counter.asked < 500 + 1000 + 3


class Exact(MemoryStorage):
    """As Redis counts: its own answer is read outside of its lock, and may be another thread's."""

    def __init__(self):
        super().__init__()
        self._one = threading.Lock()

    def incr(self, key, expiry, amount=1):
        with self._one:
            return super().incr(key, expiry, amount=amount)


def test_threads_of_a_process_never_exceed_a_limit():
    rate = limit("1000/minute", Clock(1_000_000_020.0), Exact())

    def take(_):
        with contextlib.suppress(RateLimitError):
            return rate.take("acme") is not None
        return False

    with ThreadPoolExecutor(max_workers=8) as pool:
        granted = sum(pool.map(take, range(1500)))
    # A thread that was not scheduled may put its permits down when all others have been refused.
    granted += sum(map(take, range(3)))
    assert granted == 1000


def test_a_limit_is_told_with_each_answer_and_with_429(tmp_path):
    client = application(tmp_path, rate_limit=limit("2/minute", Clock(1_000_000_020.0))).test_client()
    answers = [client.get("/api/v1/acme/tasks?limit=0", headers=bearer()) for _ in range(3)]
    assert [a.status_code for a in answers] == [400, 400, 429]
    assert answers[2].headers["RateLimit"] == '"tenant";r=0;t=60'
    assert answers[2].headers["RateLimit-Policy"] == '"tenant";q=2;w=60'
    assert (answers[2].headers["Retry-After"], answers[2].json["title"]) == ("60", "Too many requests")


class Broken:
    def __init__(self):
        self.asked = 0

    def incr(self, key, expiry, amount=1):
        self.asked += 1
        raise redis.ConnectionError("away")


def test_a_broker_that_is_away_limits_nobody_and_is_left_alone_for_a_while(caplog):
    clock, counter = Clock(), Broken()
    rate = limit(clock=clock, counter=counter)
    with caplog.at_level(logging.WARNING):
        for second in range(61):
            clock.now_s = 1_000_000_000.0 + second
            assert [rate.take("acme") for _ in range(10)] == [None] * 10
    assert counter.asked == 13
    assert len(caplog.records) == 2


@pytest.mark.parametrize("rule", ["often", "5", "5/fortnight", "", "-1/minute"])
def test_a_malformed_limit_is_refused_at_start(tmp_path, rule):
    with pytest.raises(ConfigError, match="MAIL_RATE_LIMIT"):
        limit(rule)


def test_without_a_limit_nobody_counts(tmp_path):
    answer = application(tmp_path).test_client().get("/api/v1/acme/tasks", headers=bearer())
    assert (answer.status_code, "RateLimit" in answer.headers) == (503, False)


ORIGIN = "https://mail.example"


def preflight(tmp_path, origin, **variables):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return application(tmp_path, **variables).test_client().options("/api/v1/acme/email/send", headers=headers)


def test_a_preflight_needs_no_token(tmp_path):
    answer = preflight(tmp_path, ORIGIN, MAIL_CORS_ORIGINS=f"{ORIGIN}, http://localhost:3000")
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "https://mail.example.evil", "null", "http://mail.example"])
def test_another_origin_is_told_nothing(tmp_path, origin):
    answer = preflight(tmp_path, origin, MAIL_CORS_ORIGINS=ORIGIN)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


def test_without_origins_there_is_no_cors(tmp_path):
    assert "Access-Control-Allow-Origin" not in preflight(tmp_path, ORIGIN).headers


def test_an_error_can_be_read_by_a_front_end_too(tmp_path):
    app = application(tmp_path, MAIL_CORS_ORIGINS="*")
    answer = app.test_client().get("/api/v1/acme/tasks", headers={"Origin": ORIGIN})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, "*")
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("path", ["/api/v1/acme/email/send", "/api/v1/acme/email/attachments"])
def test_a_request_that_is_too_large_is_413(tmp_path, path):
    client = application(tmp_path, MAIL_REQUEST_BYTES_MAX="2048").test_client()
    kind = "application/json" if path.endswith("send") else "multipart/form-data; boundary=b"
    answer = client.post(path, data=b"x" * 4096, content_type=kind, headers=bearer())
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")


def test_a_body_whose_length_nobody_told_is_limited_as_well(tmp_path):
    client = application(tmp_path, MAIL_REQUEST_BYTES_MAX="2048").test_client()
    answer = client.post(
        "/api/v1/acme/email/send",
        input_stream=io.BytesIO(b"x" * 4096),
        content_type="application/json",
        headers=bearer() | {"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 413, answer.data


def test_a_method_that_is_not_there_is_told_which_are(tmp_path):
    answer = application(tmp_path).test_client().put("/api/v1/acme/email/clients", headers=bearer())
    assert answer.status_code == 405
    assert {m.strip() for m in answer.headers["Allow"].split(",")} == {"GET", "HEAD", "OPTIONS", "POST"}
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_path_that_is_not_there_is_a_problem(tmp_path):
    answer = application(tmp_path).test_client().get("/api/v2")
    assert (answer.status_code, json.loads(answer.data)["status"]) == (404, 404)


def test_a_database_that_is_away_is_503_and_says_when_to_come_back(tmp_path):
    answer = application(tmp_path).test_client().get("/api/v1/acme/tasks", headers=bearer())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_defect_is_500_and_shows_nothing(tmp_path, caplog):
    app = application(tmp_path)
    app.extensions.clear()
    app.view_functions["list_tasks"] = lambda **_: 1 / 0
    answer = app.test_client().get("/api/v1/acme/tasks", headers=bearer())
    assert (answer.status_code, answer.json["detail"]) == (500, "it was logged")
    assert b"ZeroDivision" not in answer.data


@pytest.mark.parametrize("path", ["/api/v1/acme/tasks", "/nowhere", "/api/v1/openapi.json"])
def test_no_answer_is_kept_or_guessed_at(tmp_path, path):
    answer = application(tmp_path).test_client().get(path)
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_a_call_shows_no_upload_in_its_repr():
    assert "canary" not in repr(Upload(filename="f", content_type="c", data=b"canary"))
    assert dataclasses.is_dataclass(Upload)
