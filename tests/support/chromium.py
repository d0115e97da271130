"""A real browser for stories: Chromium, headless, driven over its DevTools protocol. It ends with the test run, even one that is killed."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from embedded.processes import Kept

VARIABLE = "TALLYGATE_BROWSER"
REQUIRED = "TALLYGATE_BROWSER_REQUIRED"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check", "--disable-breakpad"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage"),
    *("--no-proxy-server", "--mute-audio", "--remote-debugging-port=0"),
)
PATIENCE_SECONDS = 60.0


def find() -> str | None:
    """Return the browser of this machine: what TALLYGATE_BROWSER names, or one on the path; None when there is none."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class PageError(AssertionError):
    """What was asked of a page raised, or never became true."""


class Browser:
    """One browser process with an empty profile of its own."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._last = 0
        self._reading = asyncio.create_task(self._read())

    async def open(self, url: str) -> "Page":
        """Open a page in a window of its own, and wait until it is loaded."""
        target = await self.ask("Target.createTarget", url="about:blank")
        session = (await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            await page.ask(f"{domain}.enable")
        await page.ask("Page.navigate", url=url)
        await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page

    async def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; raises PageError when it is refused."""
        self._last += 1
        number = self._last
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})))
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = await answer
        if "error" in told:
            raise PageError(f"{method}: {told['error']}")
        result: dict[str, Any] = told["result"]
        return result

    async def close(self) -> None:
        """Let go of the connection."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message)
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if not answer.done():
                    answer.set_result(told)
            elif told.get("sessionId") in self._pages:
                self._pages[told["sessionId"]].hear(told["method"], told["params"])


class Page:
    """One page; `faults` are exceptions that nobody caught and what the console called an error."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.faults: list[str] = []

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command about this page."""
        return await self._browser.ask(method, self._session, **parameters)

    async def run(self, script: str) -> Any:
        """Return the value of an expression, of a promise when that is kept; raises PageError with what the page threw."""
        answer = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise PageError(thrown.get("exception", {}).get("description") or thrown["text"])
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression is true, and return its value; raises PageError when that never comes."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(PageError):  # in the middle of a navigation there is nothing to ask
                found = await self.run(script)
                if found:
                    return found
            await asyncio.sleep(0.02)
        raise PageError(f"never true: {script}\n{await self.run('document.documentElement.outerHTML')}\n{self.faults}")

    async def type(self, text: str) -> None:
        """Type text where the focus is, as a keyboard does."""
        await self.ask("Input.insertText", text=text)

    async def press_enter(self) -> None:
        """Press Enter."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **key)

    async def click(self, selector: str) -> None:
        """Click in the middle of an element, with the mouse."""
        where = f"(box => [box.x + box.width / 2, box.y + box.height / 2])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        x, y = await self.run(where)
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hear(self, method: str, told: dict[str, Any]) -> None:
        """Note what the page tells by itself."""
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.faults.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())


@contextlib.asynccontextmanager
async def browsing(program: str) -> AsyncIterator[Browser]:
    """Start a browser, and stop it with everything that it started."""
    with tempfile.TemporaryDirectory(prefix="tallygate-browser-", ignore_cleanup_errors=True) as profile:
        with (Path(profile) / "output.log").open("wb") as output:
            command = [program, *FLAGS, f"--user-data-dir={profile}/profile", "about:blank"]
            started = Kept(command, steps=(("TERM", 10.0),), output=output, errors=output)
        try:
            async with connect(await _address(Path(profile), started), max_size=None, ping_interval=None) as socket:
                browser = Browser(socket)
                try:
                    yield browser
                finally:
                    await browser.close()
        finally:
            await asyncio.to_thread(started.stop)


async def _address(profile: Path, started: Kept) -> str:
    """Wait until the browser says where it is spoken to."""
    told = profile / "profile" / "DevToolsActivePort"
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and started.poll() is None:
        lines = told.read_text().splitlines() if told.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.02)
    raise AssertionError(f"the browser did not start: {(profile / 'output.log').read_text(errors='replace')[-4000:]}")
