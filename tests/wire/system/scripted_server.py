"""A server that plays a script, for what no well-behaved server does.

A script is a list of steps, played in order over one connection:

    "S: text"     send a line; TAG at its beginning is the tag of the client's last command (IMAP)
    "C: pattern"  the client's next line must match; * stands for anything, [*] for itself
    "DATA"        read a message up to its final dot, still stuffed
    "TLS"         go on encrypted
    "DROP"        break off
    "DEAF"        say nothing more until the client has gone
    bytes         send exactly these

Whatever the client does otherwise fails the test, with the place of the script.
"""

import contextlib
import inspect
import re
import socket
import ssl
import threading

#: How long the other side may take, seconds.
DEADLINE_S = 10.0
_STAR = re.compile(r"(?<!\[)\*(?!\])")


class ScriptedServer:
    def __init__(self, *steps, tls=None):
        caller = inspect.stack()[1]
        self._place = f"{caller.filename}:{caller.lineno}"
        self._steps = steps
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_S)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure = None
        self._tag = b""
        self.host, self.port = self._listener.getsockname()
        #: Why the handshake failed, if it did.
        self.handshake_error = None
        #: Lines that the client sent, without their ends.
        self.lines = []
        #: Messages that the client sent, without their final dots.
        self.messages = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(DEADLINE_S)
        self._listener.close()
        assert not self._thread.is_alive(), f"{self._place}: the script has not come to its end"
        if self._failure is not None:
            raise AssertionError(f"{self._place}: {self._failure}") from self._failure

    def _run(self):
        step = "accept"
        connection = stream = None
        try:
            connection, _ = self._listener.accept()
            connection.settimeout(DEADLINE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = connection.makefile("rb")
            for number, step in enumerate(self._steps):
                if step == "TLS":
                    stream.close()
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    stream = connection.makefile("rb")
                elif step == "DROP":
                    break
                else:
                    self._play(connection, stream, step, number)
        except ssl.SSLError as err:
            # A client that does not like the certificate is what some scripts are for.
            self.handshake_error = err
        except (AssertionError, OSError) as err:
            self._failure = AssertionError(f"at {step!r}: {err}")
        finally:
            for closable in filter(None, (stream, connection)):
                closable.close()

    def _play(self, connection, stream, step, number):
        if isinstance(step, bytes):
            connection.sendall(step)
        elif step == "DATA":
            self.messages.append(_until_final_dot(stream))
        elif step == "DEAF":
            # A client that leaves with bytes unread resets the connection.
            with contextlib.suppress(ConnectionError):
                while connection.recv(65536):
                    pass
        elif step.startswith("S: "):
            text = re.sub(r"^TAG\b", self._tag.decode("latin-1"), step[3:])
            connection.sendall(text.encode() + b"\r\n")
        else:
            line = stream.readline().removesuffix(b"\r\n")
            self.lines.append(line)
            # The line that continues a command has no tag of its own.
            if b" " in line:
                self._tag = line.partition(b" ")[0]
            pattern = _pattern(step.removeprefix("C: "))
            assert re.fullmatch(pattern, line, re.DOTALL | re.IGNORECASE), f"step {number}: the client said {line!r}"


def _pattern(text):
    starred = (re.escape(part).replace(re.escape("[*]"), re.escape("*")) for part in _STAR.split(text))
    return ".*".join(starred).encode()


def _until_final_dot(stream):
    lines = []
    while (line := stream.readline()) != b".\r\n":
        assert line, "the connection ended within the message"
        lines.append(line)
    return b"".join(lines)


def server_context(authority, name="127.0.0.1"):
    """TLS for the server's side, with a certificate of a trustme authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_context(authority):
    """TLS for the client's side that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
