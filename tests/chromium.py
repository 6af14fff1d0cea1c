"""Drives a headless Chromium through its debugging pipe, without further packages."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_READ, _WRITE = 3, 4  # descriptors that Chromium reads commands from and writes answers to
_PATIENCE_SECONDS = 60.0
_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "f": 70}


@dataclass
class Tab:
    """An open page.

    Attributes:
        events: all that Chromium reported, such as requests and errors.
    """

    commands: int
    answers: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _rest: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol; gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self.answers, 1 << 20)
            assert data, "Chromium has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self.js(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, in the window."""
        found = self.js(
            f"(b => [b.left, b.top, b.width, b.height])(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        left, top, width, height = found
        return left, top, width, height

    def mouse(self, kind: str, x: float, y: float, buttons: int = 1) -> None:
        """mousePressed, mouseMoved or mouseReleased."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1)

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """With the mouse."""
        self.mouse("mousePressed", x0, y0)
        self.mouse("mouseMoved", (x0 + x1) / 2, (y0 + y1) / 2)
        self.mouse("mouseMoved", x1, y1)
        self.mouse("mouseReleased", x1, y1, buttons=0)

    def swipe(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """With a finger."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x0, "y": y0}])
        for part in (0.25, 0.5, 0.75, 1):
            point = {"x": x0 + (x1 - x0) * part, "y": y0 + (y1 - y0) * part}
            self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[point])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def screenshot(self) -> NDArray[np.uint8]:
        """What is seen, (H, W, 3)."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            return np.asarray(image.convert("RGB"))


def requests(tab: Tab) -> list[str]:
    """Addresses that the page asked for."""
    return [e["params"]["request"]["url"] for e in tab.events if e.get("method") == "Network.requestWillBeSent"]


def complaints(tab: Tab) -> list[Any]:
    """Exceptions of scripts and what stands in the console."""
    kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    return [e["params"] for e in tab.events if e.get("method") in kinds]


@contextmanager
def opened(program: str, page: Path, profile: Path, width: int = 1000, height: int = 1400) -> Iterator[Tab]:
    """A page in a window of this size; `profile` is a new empty folder."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]  # away from where they go
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" {_READ}<&{theirs[0]} {_WRITE}>&{theirs[1]}', program, *_FLAGS,
         f"--user-data-dir={profile}", f"--window-size={width},{height}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=theirs,
    )  # fmt: skip
    for end in (to_browser, from_browser, *theirs):
        os.close(end)
    try:
        tab = Tab(commands, answers)
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        tab.call("Page.navigate", url=page.as_uri())
        tab.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        yield tab
    finally:
        os.close(commands)  # ends it, and the processes that it started
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answers)
