"""A real browser for the console's tests: headless Chromium, driven over its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol (Runtime, Page, Emulation, Log); RFC 6455 by ``websockets``.
"""

import base64
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.model_server import wait_until

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
START_TIMEOUT_S = 60.0
# What one command to the browser may take on a machine that has other things to do.
ANSWER_TIMEOUT_S = 60.0


class Page:
    """One tab. ``complaints`` are the errors and warnings of its console, the content security policy's among them."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning"}:
            self.complaints.append(json.dumps(parameters["args"]))

    def run(self, script: str) -> Any:
        """The JSON value of an expression, awaited if it is a promise; as if a person's click ran it."""
        result = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, (script, result)
        return result["result"].get("value")

    def open(self, url: str) -> None:
        self.command("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && document.body !== null")

    def wait_for(self, condition: str, timeout_s: float = 60.0) -> None:
        """Until a JavaScript expression is true; on failure says what the page shows."""
        try:
            wait_until(lambda: bool(self.run(f"Boolean({condition})")), condition, timeout_s)
        except AssertionError as error:
            shown = self.run("document.body ? document.body.innerText : ''")
            raise AssertionError(f"{error}\n{self.complaints}\n{shown}") from None

    def text(self, selector: str) -> str:
        """What a person reads in the first element that matches; empty where there is none."""
        return str(self.run(f"(document.querySelector({json.dumps(selector)}) ?? {{}}).innerText ?? ''"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def choose(self, selector: str, value: str) -> None:
        """Picks a select's option, or types a field's text, as a person's hand would tell the page."""
        self.run(
            f"{{ const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(value)};"
            " for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, { bubbles: true })); }"
        )

    def show_as(self, width: int, height: int, *, scheme: str) -> None:
        """The size of the window in pixels, and "light" or "dark"."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"])


@contextlib.contextmanager
def browser_page(profile: pathlib.Path) -> Iterator[Page]:
    """An empty tab of a browser of its own, which ends with the block. Skips where there is no Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    if importlib.util.find_spec("websockets") is None:
        pytest.skip('websockets is not installed: pip install -e ".[dev]"')
    from websockets.sync.client import connect

    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars",
        f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(profile), "XDG_RUNTIME_DIR": str(profile)}
    profile.mkdir(parents=True, exist_ok=True)
    with (profile / "browser.log").open("wb") as log:
        process = subprocess.Popen([program, *flags], stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        port_file = profile / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and "\n" in port_file.read_text(), "the browser up", START_TIMEOUT_S)
        port = port_file.read_text().splitlines()[0]

        def tabs() -> list[dict[str, Any]]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
                return [each for each in json.load(answer) if each["type"] == "page"]

        wait_until(lambda: bool(tabs()), "a tab", START_TIMEOUT_S)
        with connect(
            tabs()[0]["webSocketDebuggerUrl"], max_size=64 * 1024 * 1024, compression=None, proxy=None
        ) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
