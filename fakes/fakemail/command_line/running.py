"""The servers as a process: from the options to the signal that ends them.

Owns: what is printed and written once they serve, signals, the end of a parent. Never does: serving (serving does).
Called by: ``__main__``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fakemail.command_line.options import options
from fakemail.command_line.parser import UsageError, parser
from fakemail.serving import Fakes, base_url, version


def serve(words: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; answers the exit code."""
    given = parser().parse_args(words)
    if given.version:
        print(f"fakemail {version()}")
        return 0
    return asyncio.run(_serve_until_told(given))


async def _serve_until_told(given: argparse.Namespace) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if given.stop_with_stdin:
        _watch_stdin(loop, stop)
    async with Fakes(options(given)) as fakes:
        _announce(fakes, given)
        await stop.wait()
    return 0


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when nobody holds the other end any more: a parent that was killed can't say goodbye."""

    def read() -> None:
        if not os.read(0, 65_536):
            loop.remove_reader(0)
            stop.set()

    try:
        loop.add_reader(0, read)
    except OSError as err:
        # A file or /dev/null is always readable, and so never waited for.
        problem = "standard input can't be waited for"
        raise UsageError(f"--stop-with-stdin: {problem} ({err.strerror}); allowed: a pipe or a terminal") from err


def _announce(fakes: Fakes, given: argparse.Namespace) -> None:
    facts = fakes.facts()
    if given.ca_file is not None:
        _write(given.ca_file, fakes.certificates.ca_pem)
        facts["ca_file"] = str(given.ca_file.absolute())
    if not given.quiet and given.ready_file != "-":
        for name, (host, port) in fakes.servers.items():
            scheme = "http" if name == "control" else name
            print(f"{name:8} {base_url(host, port, scheme=scheme)}", flush=True)
    if given.ready_file == "-":
        print(json.dumps(facts), flush=True)
    elif given.ready_file is not None:
        _write(Path(given.ready_file), json.dumps(facts).encode())


def _write(path: Path, content: bytes) -> None:
    """The whole file at once: who waits for it never reads half of it."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        # mkstemp lets nobody else read; what is written here is no secret.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as err:
        raise UsageError(f"{path}: can't be written ({err.strerror})") from err
