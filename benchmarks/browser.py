"""Headless Chromium by its DevTools protocol, over a pair of pipes: without a further package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium")
CODES = {"ArrowRight": 39, "ArrowLeft": 37, "Backspace": 8, "Delete": 46, "Enter": 13}


class Browser:
    """A page in a browser. `errors`: what its script or the policy complained of; `requests`: the addresses that it asked for."""

    def __init__(self, page: Path, folder: Path, size: tuple[int, int] = (1100, 800)):
        assert CHROMIUM is not None
        self.errors: list[str] = []
        self.requests: list[str] = []
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        ends = read, write
        read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in ends)  # none is 3 or 4
        words = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'profile'}",
        ]
        words += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        words += [f"--window-size={size[0]},{size[1]}", "about:blank"]
        # the browser reads from descriptor 3 and writes to 4
        shell = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, CHROMIUM, *words],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (*ends, read, write):
            os.close(fd)
        self._count, self._buffer, self._session = 0, b"", None
        target = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")
        self("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete'")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return dict(reply["result"])
            self._event(reply)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _event(self, message: dict[str, Any]) -> None:
        method, values = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(values["exceptionDetails"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(str(values["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(str(values["request"]["url"]))

    def eval(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.eval(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def press(self, *keys: str, control: bool = False) -> None:
        for key in keys:
            known: dict[str, Any] = {"key": key, "modifiers": 2 if control else 0}
            known |= {"windowsVirtualKeyCode": CODES.get(key, ord(key[0].upper()))}
            text = {"text": key} if len(key) == 1 and not control else {"text": "\r"} if key == "Enter" else {}
            self("Input.dispatchKeyEvent", type="keyDown", **known, **text)
            self("Input.dispatchKeyEvent", type="keyUp", **known)

    def downloads_to(self, folder: Path) -> None:
        self("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))
