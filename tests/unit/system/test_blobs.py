"""Attachments in a directory: found by what they hold, by their tenant alone."""

import hashlib
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from email_service.blobs import DirectoryBlobs, directory, open_store
from email_service.errors import BlobError, ConfigError

DATA = b"%PDF-1.7 \0\xff"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path):
    return DirectoryBlobs(tmp_path / "blobs")


def files(store):
    return sorted(path for path in store._root.rglob("*") if path.is_file() and path.name != ".lock")


def test_what_is_put_is_got(store):
    ref = store.put("acme", DATA)
    assert (ref.key, ref.size_bytes, ref.sha256) == (f"acme/{SHA256[:2]}/{SHA256}", len(DATA), SHA256)
    assert store.get(ref.key, "acme") == DATA
    assert store.exists(ref.key, "acme")


def test_nothing_is_something(store):
    assert store.get(store.put("acme", b"").key, "acme") == b""


def test_a_stream_is_read_to_its_end_in_pieces(store, monkeypatch):
    monkeypatch.setattr(directory, "_CHUNK_BYTES", 3)
    assert store.put("acme", io.BytesIO(DATA)) == store.put("acme", DATA)


def test_the_same_content_is_one_file_for_a_tenant_and_another_for_the_next(store):
    for tenant in ("acme", "acme", "other"):
        store.put(tenant, DATA)
    assert len(files(store)) == 2


def test_a_damaged_copy_is_found_and_mended_by_the_next_put(store):
    ref = store.put("acme", DATA)
    (path,) = files(store)
    path.write_bytes(b"damaged")
    with pytest.raises(BlobError) as caught:
        store.get(ref.key, "acme")
    assert not caught.value.transient
    store.put("acme", DATA)
    assert store.get(ref.key, "acme") == DATA


def test_a_missing_file_is_a_permanent_error(store):
    ref = store.put("acme", DATA)
    files(store)[0].unlink()
    assert not store.exists(ref.key, "acme")
    with pytest.raises(BlobError) as caught:
        store.get(ref.key, "acme")
    assert not caught.value.transient


def test_another_tenant_gets_nothing(store):
    ref = store.put("acme", DATA)
    for ask in (store.get, store.exists):
        with pytest.raises(BlobError):
            ask(ref.key, "other")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "acme",
        f"acme/{SHA256}",
        f"acme/../{SHA256[:2]}/{SHA256}",
        f"acme/00/{SHA256}" if SHA256[:2] != "00" else f"acme/01/{SHA256}",
        f"/acme/{SHA256[:2]}/{SHA256}",
        f"acme/{SHA256[:2]}/{SHA256}\n",
        f"acme/{SHA256[:2]}/{SHA256.upper()}",
        f"acme/{SHA256[:2]}/{SHA256}/../../../../etc/passwd",
        "../../etc/passwd",
    ],
)
def test_a_key_that_is_none_never_becomes_a_path(store, key):
    store.put("acme", DATA)
    for ask in (store.get, store.exists):
        with pytest.raises(BlobError):
            ask(key, "acme")


@pytest.mark.parametrize("tenant", ["", ".", "..", "a/b", "/a", "a\0", "a\n", "a b", "-a", "x" * 64])
def test_a_tenant_that_could_leave_the_directory_can_not_put(store, tenant):
    with pytest.raises(BlobError):
        store.put(tenant, DATA)
    assert not store._root.exists()


def test_a_symbolic_link_is_not_followed(store, tmp_path):
    ref = store.put("acme", DATA)
    (path,) = files(store)
    (tmp_path / "elsewhere").write_bytes(DATA)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlobError):
        store.get(ref.key, "acme")


def test_files_are_for_their_owner_alone(store):
    store.put("acme", DATA)
    (path,) = files(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)} == {0o700}


def test_a_put_that_fails_leaves_nothing_behind(store):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(4)

    with pytest.raises(BlobError) as caught:
        store.put("acme", Broken(DATA))
    assert caught.value.transient
    assert files(store) == []


def test_a_full_disk_is_worth_another_try(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory.os, "rename", full)
    with pytest.raises(BlobError, match="No space left") as caught:
        store.put("acme", DATA)
    assert caught.value.transient
    assert files(store) == []


@pytest.fixture
def events(store, monkeypatch):
    """What the store asks of the disk, in order; its directories are there already."""
    store.put_many("acme", [DATA, *(b"%d" % i for i in range(2000))])
    seen = []
    real = {name: getattr(os, name) for name in ("fsync", "rename", "write")}
    for name, call in real.items():
        monkeypatch.setattr(directory.os, name, lambda *a, name=name, call=call: (seen.append(name), call(*a))[1])
    syncfs = directory._syncfs
    monkeypatch.setattr(directory, "_syncfs", lambda descriptor: (seen.append("syncfs"), syncfs(descriptor))[1])
    return seen


def test_content_is_on_the_disk_before_it_has_its_name(store, events):
    store.put("acme", DATA)
    assert events == ["fsync", "rename", "fsync", "fsync"]


def test_a_batch_takes_one_sync_for_its_contents_and_one_for_its_names(store, events):
    store.put_many("acme", [b"new %d" % i for i in range(20)])
    assert events == ["write"] * 20 + ["syncfs"] + ["rename"] * 20 + ["syncfs"]


def test_a_system_without_syncfs_syncs_each_file_and_directory(store, events, monkeypatch):
    monkeypatch.setattr(directory, "_syncfs", None)
    store.put_many("acme", [b"new %d" % i for i in range(5)])
    assert events[:15] == ["write", "fsync"] * 5 + ["rename"] * 5
    # The shards, and the directory that the names left.
    assert set(events[15:]) == {"fsync"}
    assert 2 <= len(events[15:]) <= 6


def test_a_name_that_another_has_just_given_is_made_durable_again(store, events, monkeypatch):
    store.put_many("acme", [DATA])
    assert events == ["fsync"]
    del events[:]
    monkeypatch.setattr(directory, "_UNSAFE_S", 0.0)
    store.put_many("acme", [DATA])
    assert events == []


def test_a_batch_that_fails_leaves_nothing_behind(store, monkeypatch):
    rename, count = os.rename, iter(range(100))

    def full_at_last(source, target):
        if next(count) == 7:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(directory.os, "rename", full_at_last)
    with pytest.raises(BlobError, match="No space left") as caught:
        store.put_many("acme", [b"%d" % i for i in range(10)])
    assert caught.value.transient
    assert not [path for path in files(store) if path.name.startswith(".incoming")]


def test_a_truncated_copy_is_written_again_by_a_batch(store):
    store.put_many("acme", [DATA])
    (path,) = files(store)
    path.write_bytes(b"cut")
    (ref,) = store.put_many("acme", [DATA])
    assert store.get(ref.key, "acme") == DATA


def test_what_killed_puts_left_is_swept_once_it_is_old(store):
    ref = store.put("acme", DATA)
    left = store._root / "acme" / ".incoming-0"
    left.write_bytes(b"half")
    now = datetime.now(UTC)
    assert store.sweep("acme", older_than=now - timedelta(hours=1)) == 0
    assert store.sweep("acme", older_than=now + timedelta(hours=1)) == 1
    assert not left.exists()
    assert store.exists(ref.key, "acme")


def test_a_blob_that_is_put_while_it_is_discarded_is_there_after_both(store):
    """Whoever comes first: either the file is made young and kept, or it is gone and written again."""
    contents = [b"%d" % i for i in range(8)]
    keys = [ref.key for ref in store.put_many("acme", contents)]
    removed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for _ in range(100):
            for key in keys:
                os.utime(store._root / key, (1, 1))
            older_than = datetime.now(UTC) - timedelta(hours=24)
            discarding = pool.submit(store.discard, "acme", keys, older_than=older_than)
            pool.submit(store.put_many, "acme", contents).result(10)
            removed += discarding.result(10)
            assert [key for key in keys if not store.exists(key, "acme")] == []


@pytest.mark.parametrize(
    "url", ["file:relative", "file://host/path", "s3:///prefix", "http://bucket", "/directory", ""]
)
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_url_of_a_directory_may_be_quoted(tmp_path):
    folder = tmp_path / "a b"
    store = open_store(folder.as_uri())
    store.put("acme", DATA)
    assert folder.is_dir()
