"""A headless Chromium, steered through the pipe of its debugging protocol."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

# Without the windows that nobody sees it starts in a quarter of the time, and opens pages in two thirds of it.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

_PATIENCE_SECONDS = 15


class Browser:
    """One page; what it requests and logs is noted."""

    def __init__(self, profile: Path, *flags: str, seconds: float = 90) -> None:
        self._profile, self._flags, self._seconds = profile, flags, seconds
        self._numbers = itertools.count(1)
        self._loads = 0
        self._loaded: set[str] = set()
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        to_read, self._commands = os.pipe()
        self._answers, to_write = os.pipe()
        # The protocol's descriptors are 3 and 4.
        command = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
        arguments = [str(CHROMIUM), *FLAGS, *self._flags, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", *arguments], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        # A browser that hangs ends the test, and not the other way round.
        self._alarm = threading.Timer(self._seconds, self._process.kill)
        self._alarm.start()
        self._rest = b""
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> Any:
        """One command, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]
            self._note(found)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until an expression in the page is true; an error, with the page's text, if that takes too long."""
        failure = "`not true in time: ${document.body?.innerText}`"
        self.run(
            f"new Promise((done, fail) => {{ setTimeout(() => fail(new Error({failure})), {_PATIENCE_SECONDS * 1000});"
            f" const look = () => ({script}) ? done() : setTimeout(look, 20); look(); }})"
        )

    def open(self, url: str) -> None:
        loader = self.call("Page.navigate", url=url)["loaderId"]
        # Not any load: that of the browser's first, empty page may come late.
        while loader not in self._loaded:
            self._note(self._read())

    def follow(self, script: str) -> None:
        """Run what leads to another page, and wait until that is loaded."""
        loads = self._loads
        self.call("Runtime.evaluate", expression=f"setTimeout(() => {{ {script} }}); 0")
        while self._loads == loads:
            self._note(self._read())

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """How large the page is, and in which colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._answers, 1 << 16)
            assert piece, "the browser ended"
            self._rest += piece
        line, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif event.get("method") == "Page.loadEventFired":
            self._loads += 1
        elif event.get("method") == "Page.lifecycleEvent" and parameters["name"] == "load":
            self._loaded.add(parameters["loaderId"])
        elif event.get("method") == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
