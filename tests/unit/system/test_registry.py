"""What a worker says of itself, and what an exporter believes of it."""

from __future__ import annotations

import json
import os

import psutil
import pytest

from email_service import registry

NOW_NS = 1_700_000_000_000_000_000


def entry(**changes):
    facts = {
        "pid": os.getpid(),
        "host": "here",
        "started_ns": int(psutil.Process().create_time() * 1e9),
        "ready_ns": NOW_NS,
        "concurrency": 4,
        "children": [],
        "seen_ns": NOW_NS,
        "prefetch": 4,
        "capacity": 3,
        "memory": {"main": {"pss": 5}, "child-0": {"pss": 2}},
        "cgroup": {"current": 7},
    }
    return json.dumps(facts | changes).encode()


def seen(host="here", now_ns=NOW_NS, **entries):
    return registry.workers({name.encode(): value for name, value in entries.items()}, host, now_ns=now_ns)


def later(seconds):
    return NOW_NS + int(seconds * 1e9)


def test_a_worker_of_this_host_is_shown_with_the_memory_of_its_processes_now():
    (worker,) = seen(mail=entry())
    assert (worker.node, worker.concurrency, worker.cgroup) == ("mail", 4, {"current": 7})
    assert worker.memory["main"]["rss"] > 1_000_000


def test_a_worker_that_was_killed_is_not_shown_though_its_entry_is_there():
    assert seen(gone=entry(pid=2**22 + 1), reused=entry(started_ns=1)) == []


def test_a_worker_of_another_host_is_shown_as_it_says():
    (worker,) = seen(far=entry(host="elsewhere", pid=1, started_ns=5_000_000_000))
    assert (worker.started_s, worker.capacity, worker.memory["child-0"]) == (5.0, 3, {"pss": 2})


def test_a_worker_of_another_host_that_has_said_nothing_for_a_while_is_not_shown():
    far = entry(host="elsewhere")
    assert len(seen(far=far, now_ns=later(registry.STALE_S))) == 1
    assert seen(far=far, now_ns=later(registry.STALE_S + 1)) == []


def test_a_worker_of_this_host_that_says_nothing_can_run_nothing():
    """It is stopped, stuck, or cut off from the broker; its processes are there all the same."""
    (worker,) = seen(mail=entry(), now_ns=later(registry.STALE_S + 1))
    assert (worker.capacity, worker.cgroup) == (0, {})
    assert worker.memory["main"]


def test_an_entry_of_an_older_version_is_shown_on_its_own_host():
    old = json.loads(entry())
    for name in ("seen_ns", "prefetch", "capacity", "memory", "cgroup"):
        del old[name]
    (worker,) = seen(mail=json.dumps(old).encode())
    assert (worker.concurrency, worker.capacity) == (4, None)


def test_an_entry_that_cannot_be_read_hides_no_other(caplog):
    found = seen(broken=b"{", partial=b"{}", number=b"5", whole=entry())
    assert [worker.node for worker in found] == ["whole"]
    assert "broken" in caplog.text


@pytest.mark.parametrize(
    ("living", "prefetch", "able"), [(4, 4, 4), (4, 1, 1), (2, 4, 2), (4, 0, 4), (0, 4, 0), (-1, 0, 0)]
)
def test_a_worker_can_run_what_it_has_processes_for_and_takes_from_the_broker(living, prefetch, able):
    """A prefetch count that drifts from 4 to 1 leaves four processes and one task at a time."""
    assert registry.capacity(living, prefetch) == able


def test_what_a_worker_says_leaves_out_children_that_are_gone():
    state = registry.state(os.getpid(), [os.getpid(), 2**22 + 1], prefetch=4, now_ns=NOW_NS)
    assert (state["capacity"], state["seen_ns"], sorted(state["memory"])) == (1, NOW_NS, ["child-0", "main"])


def test_memory_is_of_one_reading_and_in_bytes():
    sizes = registry.memory_of(os.getpid())
    assert sizes["uss"] <= sizes["pss"] <= sizes["rss"]
    assert 1_000_000 < sizes["rss"] < 10_000_000_000


def test_a_process_that_is_gone_has_no_memory():
    assert registry.memory_of(2**22 + 1) == {}


def test_only_entries_that_are_long_gone_are_forgotten():
    entries = {b"fresh": entry(), b"old": entry(seen_ns=1), b"never": entry(seen_ns=None, ready_ns=1), b"broken": b"{"}
    assert sorted(registry.forgotten(entries, now_ns=NOW_NS)) == [b"broken", b"never", b"old"]


# --- control groups


def group(tmp_path, line, files):
    of, mount = tmp_path / "cgroup", tmp_path / "mount"
    of.write_text(line)
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    return registry.cgroup(of, mount)


def test_version_2_says_current_and_limit(tmp_path):
    files = {"a/b/memory.current": "100\n", "a/b/memory.max": "512\n"}
    assert group(tmp_path, "0::/a/b\n", files) == {"current": 100, "limit": 512}


def test_without_a_limit_there_is_none(tmp_path):
    files = {"memory.current": "100\n", "memory.max": "max\n"}
    assert group(tmp_path, "0::/\n", files) == {"current": 100}


def test_version_1_says_no_limit_by_a_huge_number(tmp_path):
    files = {"memory/d/memory.usage_in_bytes": "7\n", "memory/d/memory.limit_in_bytes": "9223372036854771712\n"}
    assert group(tmp_path, "3:cpu:/d\n2:memory:/d\n", files) == {"current": 7}


def test_in_a_container_the_group_is_what_is_mounted_whatever_its_path(tmp_path):
    files = {"memory/memory.usage_in_bytes": "7\n", "memory/memory.limit_in_bytes": "9\n"}
    assert group(tmp_path, "2:memory:/docker/0a1b\n0::/docker/0a1b\n", files) == {"current": 7, "limit": 9}


def test_without_a_group_nothing_is_said(tmp_path):
    assert group(tmp_path, "0::/\n", {}) == {}
    assert registry.cgroup(tmp_path / "nowhere", tmp_path) == {}
