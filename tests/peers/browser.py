"""A headless Chromium that tests speak to over its debugging pipe: one process, a new page for each visit.

Owns: the process, the pipe and the waiting for what a page does. Called by: tests of pages.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
_PATIENCE_S = 30.0
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def _high(pair: tuple[int, int]) -> tuple[int, int]:
    """The same pipe under numbers that are none of the two that the browser knows."""
    first, second = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pair)
    for end in pair:
        os.close(end)
    return first, second


class Browser:
    """A running browser."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self._to = _high(os.pipe())
        self._from, ours = _high(os.pipe())
        argv = [program, *_FLAGS, f"--user-data-dir={profile}"]
        # It reads from descriptor 3 and writes to 4, whatever numbers ours have.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs), str(ours), *argv],
            pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._numbers, self._rest, self.events = itertools.count(1), b"", list[dict]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come meanwhile are kept."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(request).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == number, method)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def wait(self, session: str, event: str) -> None:
        """Until an event has come."""

        def fits(message: dict) -> bool:
            return message.get("method") == event and message.get("sessionId") == session

        if not any(fits(message) for message in self.events):
            self._until(fits, event)

    def _until(self, fits: Callable[[dict], bool], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            message = self._read(deadline, what)
            if "method" in message:
                self.events.append(message)
            if fits(message):
                return message

    def _read(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"the browser did not answer to {what}"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, f"the browser went away at {what}"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Tab:
        """A page in a window of this size."""
        return Tab(self, address, width=width, height=height, dark=dark)


class Tab:
    """One page, and what it told."""

    def __init__(self, browser: Browser, address: str, *, width: int, height: int, dark: bool) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._do(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[scheme])
        self._size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._do("Emulation.setDeviceMetricsOverride", **self._size)
        self._do("Page.navigate", url=address)
        browser.wait(self._session, "Page.loadEventFired")

    def _do(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page; the page's policy does not bind it."""
        answer = self._do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A press of the left button on the middle of the first such element, wherever it is on the page."""
        found = json.dumps(selector)
        x, y = self.ask(
            f"(async () => {{ document.documentElement.style.scrollBehavior = 'auto';"
            f"const found = document.querySelector({found}); found.scrollIntoView({{block: 'center'}});"
            "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
            "const box = found.getClientRects()[0]; return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int) -> None:
        """A key, by its name and its old number."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self._do("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def shoot(self, file: Path) -> Path:
        """The whole page as a picture."""
        content = self._do("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": content["width"], "height": min(content["height"], 15_000), "scale": 1}
        shot = self._do("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file

    def told(self) -> list[str]:
        """What stands in the console: errors, warnings and exceptions."""
        self.ask("0")
        return [text for event in self._own() for text in _console(event)]

    def requested(self) -> list[str]:
        """What the page asked for besides itself."""
        urls = [e["params"]["request"]["url"] for e in self._own() if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls[1:] if not url.startswith("data:")]

    def _own(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]


def _console(event: dict[str, Any]) -> list[str]:
    params = event["params"]
    if event["method"] == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        return [details.get("exception", {}).get("description", details["text"])]
    if event["method"] == "Runtime.consoleAPICalled":
        return [" ".join(str(argument.get("value", "")) for argument in params["args"])]
    return [params["entry"]["text"]] if event["method"] == "Log.entryAdded" else []
