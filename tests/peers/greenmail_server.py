"""GreenMail as a contract peer: the standalone jar from Maven Central, on free ports, ended by its process id.

Owns: the jar's version and the command line.
Never: loads it (its FETCH is quadratic), or keeps anything but the jar, which stays in pytest's cache folder.
Called by: the fixture ``peer`` of the contract suite.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from imap_peer import ImapPeer
from processes import HOST, free_ports, running

VERSION = "2.1.13"
ARTEFACT = f"com.icegreen:greenmail-standalone:{VERSION}"
PACKAGES = ("default-jre-headless", "maven")
#: The cheap compiler and collector start in half the time; performance data would stay in the temporary folder.
_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx256m")


class NoJarError(Exception):
    """The jar is not in the cache and Maven could not get it."""


def jar(cache: Path) -> Path:
    """The standalone jar, by way of Maven the first time."""
    path = cache / f"greenmail-standalone-{VERSION}.jar"
    if path.exists():
        return path
    maven = shutil.which("mvn")
    if maven is None:
        raise NoJarError("mvn is not installed")
    goal = ("dependency:copy", f"-Dartifact={ARTEFACT}", f"-DoutputDirectory={cache}")
    try:
        done = subprocess.run([maven, "-B", "-q", *goal], capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired as err:
        raise NoJarError(f"mvn has not copied {ARTEFACT} in {err.timeout:g} s") from err
    if not path.exists():
        raise NoJarError(f"mvn could not copy {ARTEFACT}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return path


@contextlib.contextmanager
def greenmail(*, java: str, jar_path: Path, folder: Path) -> Iterator[ImapPeer]:
    """GreenMail from the moment it serves until it is gone."""
    imap, imaps, api = free_ports(3)
    ports = {"imap": imap, "imaps": imaps, "api": api}
    places = [f"-Dgreenmail.{name}.hostname={HOST}" for name in ports]
    places += [f"-Dgreenmail.{name}.port={port}" for name, port in ports.items()]
    argv = [java, *_JVM, *places, "-jar", str(jar_path)]
    with running(argv, log=folder / "greenmail.log", ready=lambda: _serves(api), utc=True):
        yield ImapPeer(
            name="greenmail",
            version=VERSION,
            host=HOST,
            port=imap,
            tls_port=imaps,
            add_user=lambda address, password: _add_user(api, address, password),
            # It compares the token with the password.
            token=lambda _address, password: password,
        )


def _serves(api: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return _call(api, "GET", "/api/service/readiness") == 200
    return False


def _add_user(api: int, address: str, password: str) -> None:
    body = json.dumps({"email": address, "login": address, "password": password})
    assert _call(api, "POST", "/api/user", body) == 200


def _call(api: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection(HOST, api, timeout=10)
    try:
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
