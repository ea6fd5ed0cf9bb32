"""One contract for both blob stores: a directory, and a bucket of a real S3 server in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from email_service.blobs import objects, open_store
from email_service.errors import BlobError, ConfigError

DATA = b"%PDF-1.7 \0\xff"
SHA256 = hashlib.sha256(DATA).hexdigest()
ACCESS_KEY, SECRET_KEY = "CANARYACCESSKEY", "canary-secret-access-key"
SOON, LONG_AGO = timedelta(hours=1), timedelta(hours=-2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """A real S3 server; its address once it answers."""
    url = f"http://127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("s3") / "server.log"
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]]
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        try:
            until = datetime.now(UTC) + timedelta(seconds=60)
            while not _answers(url):
                assert process.poll() is None, log.read_text()
                assert datetime.now(UTC) < until, log.read_text()
            yield url
        finally:
            process.terminate()
            process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def aws(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def bucket(s3_server, aws, monkeypatch):
    """A store in an empty bucket, below a prefix."""
    name = f"mail-{os.urandom(6).hex()}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{name}", method="PUT"), timeout=10).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    return open_store(f"s3://{name}/attachments")


@pytest.fixture(params=["directory", "bucket"])
def store(request, tmp_path):
    if request.param == "directory":
        return open_store((tmp_path / "blobs").as_uri())
    return request.getfixturevalue("bucket")


def damage(store, key: str, content: bytes) -> None:
    """Change a blob behind the store's back."""
    if hasattr(store, "_root"):
        (store._root / key).write_bytes(content)
    else:
        store._store.put(key, content)


def keys(store, tenant: str = "acme", *, older_than: timedelta = SOON, first: str = "") -> list[str]:
    return [blob.key for blob in store.list(tenant, older_than=datetime.now(UTC) + older_than, first=first)]


def test_what_is_put_is_got(store):
    ref = store.put("acme", DATA)
    assert (ref.key, ref.size_bytes, ref.sha256) == (f"acme/{SHA256[:2]}/{SHA256}", len(DATA), SHA256)
    assert store.get(ref.key, "acme") == DATA
    assert store.exists(ref.key, "acme")


def test_many_are_put_in_order_and_the_same_content_is_one_blob(store):
    contents = [b"%d" % (i % 30) for i in range(40)] + [b"", os.urandom(300_000)]
    refs = store.put_many("acme", contents)
    assert [store.get(ref.key, "acme") for ref in refs] == contents
    assert sorted(keys(store)) == sorted({ref.key for ref in refs})
    assert store.put_many("acme", contents) == refs
    assert store.put_many("acme", []) == []


def test_another_tenant_gets_nothing(store):
    ref = store.put("acme", DATA)
    for ask in (store.get, store.exists, store.delete):
        with pytest.raises(BlobError, match="another tenant") as caught:
            ask(ref.key, "other")
        assert not caught.value.transient
    with pytest.raises(BlobError, match="another tenant"):
        store.discard("other", [ref.key], older_than=datetime.now(UTC) + SOON)
    assert store.get(ref.key, "acme") == DATA


@pytest.mark.parametrize(
    "key",
    [
        "",
        "acme",
        f"acme/{SHA256}",
        f"acme/../{SHA256[:2]}/{SHA256}",
        f"/acme/{SHA256[:2]}/{SHA256}",
        f"acme/{SHA256[:2]}/{SHA256}\n",
        f"acme/{SHA256[:2]}/{SHA256}/../x",
        "../../etc/passwd",
    ],
)
def test_a_key_that_is_none_is_refused(store, key):
    for ask in (store.get, store.exists, store.delete):
        with pytest.raises(BlobError, match="malformed"):
            ask(key, "acme")
    with pytest.raises(BlobError, match="malformed"):
        store.discard("acme", [key], older_than=datetime.now(UTC))


@pytest.mark.parametrize("tenant", ["", ".", "..", "a/b", "/a", "a\0", "a b", "-a", "x" * 64])
def test_a_tenant_that_can_not_be_part_of_a_key_is_refused(store, tenant):
    for ask in (lambda: store.put(tenant, DATA), lambda: store.put_many(tenant, [DATA]), lambda: keys(store, tenant)):
        with pytest.raises(BlobError):
            ask()


def test_altered_content_is_found_and_the_next_put_mends_it(store):
    ref = store.put("acme", DATA)
    damage(store, ref.key, DATA[::-1])
    with pytest.raises(BlobError, match="does not hold what its name says") as caught:
        store.get(ref.key, "acme")
    assert not caught.value.transient
    store.put("acme", DATA)
    assert store.get(ref.key, "acme") == DATA


def test_a_truncated_blob_is_mended_by_a_batch(store):
    ref = store.put("acme", DATA)
    damage(store, ref.key, DATA[:-1])
    store.put_many("acme", [DATA])
    assert store.get(ref.key, "acme") == DATA


def test_what_is_not_there_is_a_permanent_error(store):
    ref = store.put("acme", DATA)
    store.delete(ref.key, "acme")
    store.delete(ref.key, "acme")
    assert not store.exists(ref.key, "acme")
    with pytest.raises(BlobError) as caught:
        store.get(ref.key, "acme")
    assert not caught.value.transient


def test_each_tenant_has_a_list_of_its_own(store):
    assert store.tenants() == []
    mine = [ref.key for ref in store.put_many("acme", [b"1", b"2"])]
    store.put("acme2", DATA)
    assert store.tenants() == ["acme", "acme2"]
    assert sorted(keys(store)) == sorted(mine)
    assert keys(store, "nobody") == []
    assert keys(store, older_than=LONG_AGO) == []


def test_a_list_can_begin_anywhere_and_shows_each_blob_once(store):
    all_keys = sorted(ref.key for ref in store.put_many("acme", [b"%d" % i for i in range(60)]))
    first = all_keys[30].split("/")[1]
    found = keys(store, first=first)
    assert sorted(found) == all_keys
    assert found[0].split("/")[1] == first
    assert keys(store, first="ff")[-1] < "acme/ff"


def test_a_list_tells_size_and_age(store):
    store.put("acme", DATA)
    (blob,) = store.list("acme", older_than=datetime.now(UTC) + SOON)
    assert blob.size_bytes == len(DATA)
    assert abs(datetime.now(UTC) - blob.modified_at) < timedelta(minutes=1)


def test_what_is_old_is_discarded_and_what_is_young_is_kept(store):
    refs = store.put_many("acme", [b"%d" % i for i in range(130)])
    wanted = [ref.key for ref in refs]
    assert store.discard("acme", wanted, older_than=datetime.now(UTC) + LONG_AGO) == 0
    assert store.discard("acme", wanted, older_than=datetime.now(UTC) + SOON) == 130
    assert store.discard("acme", wanted, older_than=datetime.now(UTC) + SOON) == 0
    assert keys(store) == []
    assert store.sweep("acme", older_than=datetime.now(UTC) + SOON) == 0


def test_threads_may_put_at_once(store):
    contents = [b"%d" % i for i in range(20)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda _: store.put_many("acme", contents), range(4)))
    assert found == found[:1] * 4
    assert len(keys(store)) == 20


# --- the bucket alone -----------------------------------------------------------------------------------------------


def test_an_old_object_that_is_discarded_while_it_is_put_is_put_again(bucket, monkeypatch):
    """The worst order: who discards has looked, then the object is put, then it is deleted."""
    monkeypatch.setattr(objects, "_YOUNG", timedelta(0))
    (ref,) = bucket.put_many("acme", [DATA])
    monkeypatch.setattr(objects, "_YOUNG", timedelta(seconds=-60))
    put = threading.Event()
    put_all = bucket._put_all

    async def noted(wanted):
        await put_all(wanted)
        if wanted:
            put.set()

    monkeypatch.setattr(bucket, "_put_all", noted)

    async def discard_in_between():
        async with bucket._lock("acme") as until:
            assert until is not None
            putting = pool.submit(bucket.put_many, "acme", [DATA])
            await asyncio.to_thread(put.wait, 10)
            await bucket._store.delete_async(ref.key)
        return putting

    with ThreadPoolExecutor(max_workers=1) as pool:
        asyncio.run(discard_in_between()).result(20)
    assert bucket.get(ref.key, "acme") == DATA


def test_two_do_not_discard_at_once(bucket):
    ref = bucket.put("acme", DATA)

    async def held():
        async with bucket._lock("acme"):
            return await bucket._discard("acme", [ref.key], datetime.now(UTC) + SOON)

    assert asyncio.run(held()) == 0
    assert bucket.discard("acme", [ref.key], older_than=datetime.now(UTC) + SOON) == 1


def test_a_lock_that_was_left_is_believed_for_a_while_only(bucket, monkeypatch):
    ref = bucket.put("acme", DATA)
    bucket._store.put("acme/.discarding", b"")
    assert bucket.discard("acme", [ref.key], older_than=datetime.now(UTC) + SOON) == 0
    monkeypatch.setattr(objects, "_STALE", timedelta(0))
    bucket.put("acme", DATA)
    assert bucket.discard("acme", [ref.key], older_than=datetime.now(UTC) + SOON) == 1
    assert not bucket._store.list("acme/").collect()


def test_a_bucket_that_is_not_there_is_a_permanent_error(bucket):
    store = open_store("s3://no-such-bucket")
    with pytest.raises(BlobError) as caught:
        store.put("acme", DATA)
    assert not caught.value.transient


def refusing(status: int, code: str) -> type[BaseHTTPRequestHandler]:
    """A server that answers every request with one error, as S3 would."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = f"<Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId></Error>".encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815  # the library's names

        def log_message(self, *_):
            pass

    return Handler


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        (301, "PermanentRedirect", False),
        (400, "InvalidRequest", False),
        (401, "InvalidAccessKeyId", False),
        (403, "AccessDenied", False),
        (429, "TooManyRequests", True),
        (500, "InternalError", True),
        (503, "SlowDown", True),
    ],
)
def test_an_error_of_the_server_says_whether_a_retry_may_help(aws, monkeypatch, status, code, transient):
    monkeypatch.setattr(objects, "_RETRY", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    with ThreadingHTTPServer(("127.0.0.1", 0), refusing(status, code)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        store = open_store("s3://bucket")
        for ask in (
            lambda: store.put("acme", DATA),
            lambda: store.put_many("acme", [DATA]),
            lambda: store.get(f"acme/{SHA256[:2]}/{SHA256}", "acme"),
            lambda: store.exists(f"acme/{SHA256[:2]}/{SHA256}", "acme"),
            lambda: keys(store),
        ):
            with pytest.raises(BlobError) as caught:
                ask()
            assert caught.value.transient is transient
            # The library's own words quote the server's, and those the access key.
            assert caught.value.__cause__ is None
            assert "CANARY" not in f"{caught.value!r}"
        server.shutdown()


def test_a_server_that_is_away_is_a_transient_error(aws, monkeypatch):
    monkeypatch.setattr(objects, "_RETRY", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BlobError) as caught:
        open_store("s3://bucket").put("acme", DATA)
    assert caught.value.transient


def test_the_keys_of_the_bucket_are_in_no_repr(bucket):
    assert SECRET_KEY not in f"{bucket._store!r}{bucket!r}"
    assert ACCESS_KEY not in f"{bucket._store!r}{bucket!r}"


def test_an_endpoint_that_is_no_address_is_refused(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "s3.example.com")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL"):
        open_store("s3://bucket")
