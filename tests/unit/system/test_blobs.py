"""Attachments in a directory: found by what they hold, by their tenant alone."""

import hashlib
import io
import stat
from pathlib import Path

import pytest

from email_service import blobs
from email_service.blobs import DirectoryBlobs
from email_service.errors import BlobError

DATA = b"%PDF-1.7 \0\xff"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path):
    return DirectoryBlobs(tmp_path / "blobs")


def files(store):
    return sorted(path for path in store._root.rglob("*") if path.is_file())


def test_what_is_put_is_got(store):
    ref = store.put("acme", DATA)
    assert (ref.key, ref.size_bytes, ref.sha256) == (f"acme/{SHA256[:2]}/{SHA256}", len(DATA), SHA256)
    assert store.get(ref.key, "acme") == DATA
    assert store.exists(ref.key, "acme")


def test_nothing_is_something(store):
    assert store.get(store.put("acme", b"").key, "acme") == b""


def test_a_stream_is_read_to_its_end_in_pieces(store, monkeypatch):
    monkeypatch.setattr(blobs, "_CHUNK_BYTES", 3)
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

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(BlobError, match="No space left") as caught:
        store.put("acme", DATA)
    assert caught.value.transient
    assert files(store) == []


def test_content_is_on_the_disk_before_it_has_its_name(store, monkeypatch):
    events = []
    fsync, rename = blobs.os.fsync, Path.rename
    monkeypatch.setattr(blobs.os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "rename", lambda path, target: (events.append("rename"), rename(path, target)))
    store.put("acme", DATA)
    assert events == ["fsync", "rename", "fsync", "fsync"]
