"""An SMTP server in this process, on a loop of its own, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from fakemail.faults import Plan, parse_faults
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore
from fakemail.smtp_server import Handler, SmtpConnection, SmtpOptions
from fakemail.tls import Certificates, TlsGate

DEADLINE_S = 20
USER, PASSWORD, TOKEN = "ann@example.test", "canary-password", "canary-token"
FROM, FAR = "bob@elsewhere.test", "far@elsewhere.test"
RAW = b"From: bob@elsewhere.test\r\nSubject: hello\r\nMessage-ID: <1@example.test>\r\n\r\n.dot\r\nbody\r\n"
#: As it goes over the line after DATA.
WIRE = RAW.replace(b"\r\n.", b"\r\n..") + b".\r\n"


class NoisyLedger(Ledger):
    """Wakes a test that waits for an entry."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()

    def record(self, **facts):
        super().record(**facts)
        with self.changed:
            self.changed.notify_all()


@dataclass(kw_only=True)
class Server:
    """What a test may look at and change."""

    handler: Handler
    store: MailStore
    ledger: NoisyLedger
    plan: Plan
    certificates: Certificates
    loop: asyncio.AbstractEventLoop
    port: int = 0
    tls_port: int = 0
    problems: list = field(default_factory=list)

    def call(self, function, *arguments):
        """Do it where the server does everything."""

        async def run():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE_S)

    def faults(self, *faults):
        """Put these in force; id, point and when have defaults."""
        full = [{"id": f"f{n}", "when": {"always": True}} | fault for n, fault in enumerate(faults)]
        self.call(self.plan.replace, parse_faults(full))

    def entries(self, kind=None, **facts):
        entries = self.call(lambda: self.ledger.after(0, limit=100_000))
        return [entry for entry in entries if kind in {None, entry["kind"]} and facts.items() <= entry.items()]

    def entry(self, kind, **facts):
        """The one such entry, as soon as it is there."""
        while True:
            seq = self.ledger.seq
            if found := self.entries(kind, **facts):
                assert len(found) == 1, found
                return found[0]
            with self.ledger.changed:
                came = self.ledger.changed.wait_for(lambda seq=seq: self.ledger.seq != seq, DEADLINE_S)
            assert came, f"no {kind} entry with {facts}: {self.entries()}"

    def inbox(self, address=USER):
        def read():
            folder = self.store.user(address).folder("INBOX")
            return [folder.raw(uid) for uid in folder.uids]

        return self.call(read)


async def _serve(server_box, ready, options, with_tls):
    loop = asyncio.get_running_loop()
    store, ledger, plan, certificates = MailStore(seed=1), NoisyLedger(), Plan(1), Certificates()
    store.add_user(USER, PASSWORD, TOKEN)
    handler = Handler(store, ledger, plan, options=options, certificates=certificates if with_tls else None)
    server = Server(handler=handler, store=store, ledger=ledger, plan=plan, certificates=certificates, loop=loop)
    loop.set_exception_handler(lambda _, context: server.problems.append(context))

    def plain():
        return SmtpConnection(handler, loop)

    def gated():
        return TlsGate(plain(), certificates=certificates, loop=loop)

    ports = [await loop.create_server(factory, "127.0.0.1", 0, backlog=512) for factory in (plain, gated)]
    server.port, server.tls_port = (port.sockets[0].getsockname()[1] for port in ports)
    server_box.append((server, stop := asyncio.Event()))
    ready.set()
    await stop.wait()
    for port in ports:
        port.close()
    for transport in tuple(handler.connections):
        transport.abort()
    deadline = time.monotonic() + DEADLINE_S
    while handler.connections or len(asyncio.all_tasks()) > 1:
        assert time.monotonic() < deadline, (handler.connections, asyncio.all_tasks())
        await asyncio.sleep(0)


@contextlib.contextmanager
def serving(*, with_tls=True, **options):
    """A server with these options; it must end clean."""
    box, ready = [], threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(box, ready, SmtpOptions(**options), with_tls)), daemon=True
    )
    thread.start()
    assert ready.wait(DEADLINE_S)
    server, stop = box[0]
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert server.problems == []


class Client:
    """A raw SMTP client: what it sends is what goes out."""

    def __init__(self, port, *, greeting=True):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._held = b""
        #: How often something arrived since the last ``send``.
        self.reads = 0
        if greeting:
            assert self.reply().startswith("220 ")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.reads = 0
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def reply(self):
        """One whole reply, its lines joined by LF; empty at the end of the connection."""
        lines = []
        while True:
            while b"\r\n" not in self._held:
                data = self._read()
                if not data:
                    assert not self._held, self._held
                    return ""
                self._held += data
            line, _, self._held = self._held.partition(b"\r\n")
            lines.append(line.decode())
            if line[3:4] != b"-":
                return "\n".join(lines)

    def _read(self):
        try:
            data = self.sock.recv(65_536)
        except ConnectionResetError:
            return b""
        self.reads += 1
        return data

    def say(self, *lines):
        """Send each line and read its reply: the last of them."""
        answer = ""
        for line in lines:
            self.send(line.encode("utf-8", "surrogateescape") + b"\r\n" if isinstance(line, str) else line + b"\r\n")
            answer = self.reply()
        return answer

    def codes(self, *lines):
        """What each line is answered, without the text."""
        return [" ".join(self.say(line).split(" ")[:2]) for line in lines]

    def begin(self, *recipients, extended=True):
        """Up to the 354."""
        self.say("EHLO client.test" if extended else "HELO client.test", f"MAIL FROM:<{FROM}>")
        for recipient in recipients or (USER,):
            assert self.say(f"RCPT TO:<{recipient}>").startswith("250")
        assert self.say("DATA").startswith("354 ")

    def deliver(self, wire=WIRE):
        self.begin()
        self.send(wire)
        return self.reply()

    def is_over(self):
        """Whether the server has closed; waits for it."""
        return self.reply() == ""

    def is_silent(self):
        """Whether nothing has arrived up to now."""
        return not self._held and not select.select([self.sock], [], [], 0)[0]

    def flood(self, data, *, bytes_max=64 * 1024 * 1024):
        """Send the same again and again; whether the server stopped reading in the end."""
        self.sock.settimeout(0.5)
        try:
            for _ in range(bytes_max // len(data)):
                self.sock.sendall(data)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(DEADLINE_S)
        return False

    def start_tls(self, context):
        assert self.say("STARTTLS").startswith("220 ")
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")


def trusting(server):
    """A TLS client context that trusts the server's authority."""
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=server.certificates.ca_pem.decode())
    return context


def b64(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def plain(user=USER, password=PASSWORD, authorize=""):
    """What AUTH PLAIN sends."""
    return b64(f"{authorize}\0{user}\0{password}")


def bearer(user=USER, token=TOKEN):
    """What AUTH XOAUTH2 sends."""
    return b64(f"user={user}\x01auth=Bearer {token}\x01\x01")


def question(reply):
    """The challenge of a 334."""
    assert reply.startswith("334 "), reply
    return base64.b64decode(reply[4:])
