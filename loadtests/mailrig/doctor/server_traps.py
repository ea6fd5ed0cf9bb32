"""What a Redis server does to a Celery broker. Rows for ``findings``, over what ``server`` has asked."""

from __future__ import annotations

from typing import Final

from mailrig.doctor.facts import Server
from mailrig.doctor.findings import Family, Seen, ok, trap, unknown

SERVER: Final = Family[Server]()
#: The oldest server that the figures hold for.
VERSION_MIN: Final = (6, 2)
#: Of maxmemory: above it a burst of messages meets the limit.
USED_SHARE_MAX: Final = 0.8


@SERVER.row(
    "redis-version",
    consequence="kombu and redis-py are tested from Redis 6.2 on",
    right="Redis 6.2 or newer, or Valkey",
)
def _version(server: Server) -> Seen:
    if server.version is None:
        return unknown("the server does not say")
    numbers = tuple(int(part) for part in server.version.split(".")[:2] if part.isdecimal())
    return (ok if numbers >= VERSION_MIN else trap)(f"version {server.version}")


@SERVER.row(
    "redis-eviction",
    consequence="at maxmemory an allkeys policy evicts whole queues: their messages are gone without a word",
    right="maxmemory-policy noeviction",
)
def _eviction(server: Server) -> Seen:
    policy = server.maxmemory_policy
    if policy is None:
        return unknown("the server does not say")
    limit = f"at {server.maxmemory_bytes:,} bytes" if server.maxmemory_bytes else "with no maxmemory yet"
    if policy.startswith("allkeys"):
        return trap(f"maxmemory-policy {policy}, {limit}")
    # Queues have no time to live: what volatile policies evict is results.
    return ok(f"maxmemory-policy {policy}" + ("" if policy == "noeviction" else ": results may go before their time"))


@SERVER.row(
    "redis-memory",
    consequence="under noeviction a full server refuses every publish and every acknowledgement",
    right="maxmemory above the longest backlog",
)
def _memory(server: Server) -> Seen:
    if not server.maxmemory_bytes or server.used_bytes is None:
        return ok("there is no maxmemory") if server.maxmemory_bytes == 0 else unknown("the server does not say")
    share = server.used_bytes / server.maxmemory_bytes
    return (trap if share > USED_SHARE_MAX else ok)(f"{share:.0%} of {server.maxmemory_bytes:,} bytes is used")


@SERVER.row(
    "redis-appendonly",
    consequence="a restart without the append-only file loses everything that is queued or held; with everysec 1,000 "
    "of 1,000 queued messages were there 0.1 s after a SIGKILL",
    right="appendonly yes",
)
def _appendonly(server: Server) -> Seen:
    if server.appendonly is None:
        return unknown("the server does not say")
    return ok("appendonly yes") if server.appendonly else trap("appendonly no")


@SERVER.row(
    "redis-appendfsync",
    consequence="with no, the kernel decides when messages reach the disk: up to half a minute of them is lost with "
    "the machine",
    right="appendfsync everysec",
)
def _appendfsync(server: Server) -> Seen:
    if server.appendonly is False:
        return ok("there is no append-only file to write")
    if server.appendfsync is None:
        return unknown("the server does not say")
    return (trap if server.appendfsync == "no" else ok)(f"appendfsync {server.appendfsync}")


@SERVER.row(
    "redis-write-error",
    consequence="after a failed write to disk Redis refuses every further command that writes",
    right="room on the disk, and rights to its folder",
)
def _write_error(server: Server) -> Seen:
    return trap(f"the last {' and '.join(server.write_errors)} failed") if server.write_errors else ok("none is told")


@SERVER.row(
    "redis-role",
    consequence="a replica takes no message and no acknowledgement",
    right="the URL of the primary, or Sentinel",
)
def _role(server: Server) -> Seen:
    if server.role is None:
        return unknown("the server does not say")
    return (ok if server.role == "master" else trap)(f"role {server.role}")


@SERVER.row(
    "redis-result-ttl",
    consequence="a result without a time to live stays for ever: memory grows by every task that ever ran",
    right="result_expires above 0",
)
def _results(server: Server) -> Seen:
    if not server.results_seen:
        return unknown("there is no result to look at")
    if server.results_endless:
        return trap(f"{server.results_endless} of {server.results_seen} results have no time to live")
    return ok(f"{server.results_seen} results, the next one gone in {server.result_ttl_s_min} s")
