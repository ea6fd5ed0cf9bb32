"""Which hosts a tenant may name: with a name service that says what the test wants."""

from __future__ import annotations

import ast
import inspect
import socket
import threading
from dataclasses import dataclass

import pytest

from email_service import hosts
from email_service.errors import ConnectError, HostNotAllowedError


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What hosts reads of the settings."""

    allowed: frozenset[str] = frozenset()
    public_hosts: bool = True

    def host_listed(self, host, port):
        return host.lower().rstrip(".") in self.allowed


def ask(host, *addresses, port=993, rules=None):
    return hosts.permitted(rules or Rules(), host, port, resolve=lambda _host, _port: list(addresses))


INNER = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3",
    "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.254",
    "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1", "fec0::1", "100::1",
    "5f00::1", "192.88.99.1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1",
    "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "64:ff9b:1::808:808",
    "2001:0:5ef5:79fd:0:0:80ff:fffe",
    "2001:4860::5efe:10.0.0.1", "2001:4860::200:5efe:127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
def test_an_address_of_an_inner_net_is_refused(address):
    with pytest.raises(HostNotAllowedError, match="not a public address"):
        ask("mail.example", address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_an_address_of_the_internet_is_permitted(address):
    assert ask("mail.example", address) == (address,)


def test_one_inner_address_among_public_ones_is_too_many():
    with pytest.raises(HostNotAllowedError):
        ask("mail.example", "8.8.8.8", "10.0.0.1")


def test_a_name_without_an_address_is_refused():
    with pytest.raises(ConnectError):
        ask("mail.example")


def test_what_was_checked_is_what_is_connected_to():
    """DNS rebinding: a second question could be answered otherwise, so there is none."""
    replies = iter([["8.8.8.8"], ["127.0.0.1"]])
    found = hosts.permitted(Rules(), "rebind.example", 993, resolve=lambda _host, _port: next(replies))
    assert found == ("8.8.8.8",)


@pytest.mark.parametrize("port", [22, 80, 443, 3306, 5432, 6379, 9200, 11211])
def test_a_port_that_is_not_of_mail_is_refused(port):
    with pytest.raises(HostNotAllowedError, match="the port must be one of"):
        ask("mail.example", "8.8.8.8", port=port)


def test_without_the_word_public_only_the_list_counts():
    rules = Rules(allowed=frozenset({"mail.inner"}), public_hosts=False)
    assert ask("MAIL.inner.", "10.0.0.1", port=3143, rules=rules) == ("10.0.0.1",)
    with pytest.raises(HostNotAllowedError, match="MAIL_ALLOWED_HOSTS"):
        ask("other.inner", "8.8.8.8", rules=rules)


# What this system's own resolver makes of them needs no network: all are addresses, however they are spelt.
@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.",
        "0", "0.0.0.0", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST", "localhost.",
        "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376",
        "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021",
        "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    ],
)  # fmt: skip
def test_no_spelling_of_an_inner_address_gets_through(spelling):
    with pytest.raises((HostNotAllowedError, ConnectError)):
        hosts.permitted(Rules(), spelling, 993)


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "a" * 64 + ".example", "\ud800.example", "a\0b", "xn--\udcff", "ä" * 300, " ", "-"]
)
def test_a_name_that_is_none_is_an_error_of_ours(name):
    with pytest.raises((HostNotAllowedError, ConnectError)):
        hosts.permitted(Rules(), name, 993)


def test_a_name_service_that_is_away_is_worth_a_retry(monkeypatch):
    def away(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    with pytest.raises(ConnectError) as caught:
        hosts.permitted(Rules(), "mail.example", 993)
    assert caught.value.transient


def test_a_resolver_that_does_not_answer_holds_nobody_up(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait(30) and [])
    monkeypatch.setattr(hosts, "RESOLVE_S", 0.05)
    try:
        with pytest.raises(ConnectError, match="did not answer"):
            hosts.permitted(Rules(), "slow.example", 993)
    finally:
        never.set()


def test_the_module_asks_no_name_service_but_through_one_function():
    tree = ast.parse(inspect.getsource(hosts))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("getaddr")]
    assert len(calls) == 1
