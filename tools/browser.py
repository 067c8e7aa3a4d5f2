"""A headless Chromium that a program drives: pages, keys, screenshots.

It speaks the DevTools protocol over two pipes: JSON messages, each followed by a zero byte.
Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import trio

from .external import program

WAIT_S_MAX = 20.0
"""Seconds for which an answer of the browser, or a condition of a page, is waited for."""
_KEYS = {
    "Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), " ": (32, " "), "Home": (36, ""), "End": (35, ""),
    "ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, ""),
}  # fmt: skip
"""The virtual key code and the text of keys whose name is not their character."""
_SAID_OF_A_PAGE_THAT_IS_LEFT = ("navigated or closed", "context was destroyed", "Promise was collected")
_UNTIL = """((check, milliseconds) => new Promise((resolve, reject) => {
  const end = performance.now() + milliseconds;
  const look = () => {
    try {
      const found = check();
      if (found || performance.now() > end) resolve(Boolean(found));
      else setTimeout(look, 16);
    } catch (error) { reject(error); }
  };
  look();
}))"""
_BOX = """((selector) => {
  const box = document.querySelector(selector).getBoundingClientRect();
  return [box.x + scrollX, box.y + scrollY, box.width, box.height];
})"""


class BrowserError(Exception):
    """The browser is missing or has refused a command; the text says why."""


class PageLeftError(BrowserError):
    """The page was left for another one before the answer came."""


class Page:
    """A tab of the browser."""

    def __init__(self, connection: _Connection, session: str) -> None:
        self._connection = connection
        self._session = session
        self.problems = connection.problems
        """Exceptions, ``console.error``, and errors of the browser, such as what the page's policy refuses."""

    async def open(self, url: str) -> None:
        """Load a URL; the page may still run its scripts when this returns."""
        answer = await self.send("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"cannot open {url}: {answer['errorText']}")

    async def resize(self, width: int, height: int = 900, *, scale: float = 1) -> None:
        """Set the size of the page in CSS pixels. Below 500 pixels of width it has a touch screen, as a phone has."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
            mobile=width < 500,
        )  # fmt: skip

    async def theme(self, theme: Literal["light", "dark"]) -> None:
        """Set what the page learns as the colours that the user prefers."""
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    async def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression as plain data; a promise is waited for.

        Raises:
            BrowserError: it has raised an exception.
        """
        answer = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {json.dumps(answer['exceptionDetails'])[:1000]}")
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true, also across pages that replace each other.

        Raises:
            BrowserError: it is not true after ``WAIT_S_MAX`` on one page, or an exception was raised.
            trio.TooSlowError: pages have replaced each other for twice as long.
        """
        milliseconds = WAIT_S_MAX * 1000 - 1000
        is_true = None
        with trio.fail_after(2 * WAIT_S_MAX):
            while is_true is None:
                with contextlib.suppress(PageLeftError):
                    is_true = await self.value(f"{_UNTIL}(() => ({expression}), {milliseconds})")
        if not is_true:
            shown = await self.value("document.body?.innerText?.slice(0, 2000)")
            raise BrowserError(
                f"not true within {milliseconds / 1000:.0f} s: {expression}; the page shows:\n{shown}\n{self.problems}"
            )

    async def press(self, *keys: str) -> None:
        """Press and release keys: characters, or names such as ``Enter`` and ``ArrowDown``."""
        for key in keys:
            code, text = _KEYS.get(key, (ord(key[0].upper()), key))
            await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
            await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def screenshot(self, *, selector: str = "", whole: bool = False) -> bytes:
        """Take a screenshot (PNG) of what is visible, of an element, or of the whole page."""
        options: dict[str, Any] = {"format": "png"}
        if selector or whole:
            [x, y, width, height] = await self.value(f"{_BOX}({json.dumps(selector or 'html')})")
            clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
            options.update(clip=clip, captureBeyondViewport=True)
        answer = await self.send("Page.captureScreenshot", **options)
        return base64.b64decode(answer["data"])

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol, and return its answer."""
        return await self._connection.send(method, parameters, self._session)


class _Connection:
    """The commands and answers of a browser."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._sending = trio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.Event] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self.problems: list[str] = []

    async def send(self, method: str, parameters: dict[str, Any], session: str = "") -> dict[str, Any]:
        number, answered = next(self._numbers), trio.Event()
        self._waiting[number] = answered
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        assert self._process.stdin is not None
        with trio.fail_after(WAIT_S_MAX):
            async with self._sending:
                await self._process.stdin.send_all(json.dumps(message).encode() + b"\0")
            await answered.wait()
        answer = self._answers.pop(number)
        if "error" in answer:
            said = str(answer["error"].get("message"))
            is_left = any(words in said for words in _SAID_OF_A_PAGE_THAT_IS_LEFT)
            raise (PageLeftError if is_left else BrowserError)(f"{method}: {said}")
        found: dict[str, Any] = answer["result"]
        return found

    async def receive(self) -> None:
        """Receive messages until the browser ends."""
        assert self._process.stdout is not None
        unread = b""
        async for piece in self._process.stdout:
            unread += piece
            *messages, unread = unread.split(b"\0")
            for each in messages:
                self._take(json.loads(each))

    def _take(self, message: dict[str, Any]) -> None:
        if (number := message.get("id")) is not None:
            if (answered := self._waiting.pop(number, None)) is not None:
                self._answers[number] = message
                answered.set()
            return
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(given["exceptionDetails"])[:1000])
            case "Runtime.consoleAPICalled" if given["type"] == "error":
                self.problems.append(" ".join(str(each.get("value", each)) for each in given["args"]))
            case "Log.entryAdded" if given["entry"]["level"] == "error":
                self.problems.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")


@asynccontextmanager
async def opened_page(profile: Path) -> AsyncIterator[Page]:
    """A page of a new browser, which ends with the block.

    Args:
        profile: a directory for the browser's files.

    Raises:
        BrowserError: Chromium is not installed.
    """
    name = program("chromium")
    if name is None:
        raise BrowserError("Chromium is not installed; on Debian, as root: apt-get install chromium")
    # The browser reads commands from descriptor 3 and writes answers to 4; here they are stdin and stdout.
    process = await trio.lowlevel.open_process(
        [
            "sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", name, "--headless=new", "--no-sandbox",
            "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with trio.open_nursery() as nursery:
            connection = _Connection(process)
            nursery.start_soon(connection.receive)
            target = await connection.send("Target.createTarget", {"url": "about:blank"})
            attached = await connection.send("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
            page = Page(connection, attached["sessionId"])
            for domain in ("Page", "Runtime", "Log"):
                await page.send(f"{domain}.enable")
            yield page
            with trio.move_on_after(WAIT_S_MAX, shield=True):
                await connection.send("Browser.close", {})
                await process.wait()
            nursery.cancel_scope.cancel(reason="the browser has ended")
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()
