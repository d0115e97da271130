"""An S3 server in a process of its own (moto, from requirements-s3.lock), behind a front door that can be told to hold, refuse or vanish.

The front door proves what moto takes on trust: signatures of version 4, in fields and in addresses, their age, and digests of bodies.
"""

import asyncio
import contextlib
import hashlib
import hmac
import io
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

import aiohttp
from aiohttp import web

from tests.support.gateway import free_port

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(".venv-s3")
KEY_ID, SECRET, BUCKET, PREFIX = "AKIATESTS", "tests-only-secret", "files", "tallygate/x"
START_SECONDS = 60


@dataclass
class Hold:
    """Requests that wait at the front door: `came` when there is one, until `go`; with `first` n, the n before it pass."""

    pattern: re.Pattern[str]
    first: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


class FrontDoor:
    """What stands between the gateway and the server; a request is known as `METHOD /key`, the bucket and prefix left out;
    in `requests`, one of an upload in parts ends with `?uploadId`."""

    def __init__(self, inner: str) -> None:
        self._inner = inner
        self.url = ""
        self.requests: list[str] = []
        self.holds: list[Hold] = []
        self.refusals: dict[str, int] = {}
        """Status by pattern of request; 0 cuts the connection."""
        self._conditional = asyncio.Lock()
        """Held over a conditional write: a store decides it in one step, moto looks first and writes then."""

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a process that keeps its files here, as docs/apps/storage.md has them."""
        return {
            "TALLYGATE_STORAGE": f"s3://{BUCKET}/{PREFIX}",
            "S3_ENDPOINT": self.url,
            "S3_ACCESS_KEY_ID": KEY_ID,
            "S3_SECRET_ACCESS_KEY": SECRET,
        }

    def hold(self, pattern: str, *, first: int = 0) -> Hold:
        """Hold requests that a pattern finds."""
        held = Hold(re.compile(pattern), first)
        self.holds.append(held)
        return held

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request: as told, or as the server does."""
        body = await request.read()
        name = f"{request.method} {unquote(request.path).removeprefix(f'/{BUCKET}').removeprefix(f'/{PREFIX}')}"
        self.requests.append(f"{name}{'?uploadId' if 'uploadId' in request.query else ''}")
        for pattern, status in self.refusals.items():
            if re.search(pattern, name):
                if status == 0:
                    assert request.transport is not None
                    request.transport.abort()
                return web.Response(status=status or 500, text="<Error><Code>InternalError</Code></Error>", content_type="application/xml")
        for held in self.holds:
            if held.pattern.search(name):
                if held.first:
                    held.first -= 1
                    continue
                held.came.set()
                await held.go.wait()
        fault = self._fault(request, body)
        if fault is not None:
            return web.Response(status=403, text=f"<Error><Code>{fault}</Code></Error>", content_type="application/xml")
        async with self._conditional if "If-None-Match" in request.headers else contextlib.nullcontext():
            return await self._forward(request, body)

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        fields = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length", "transfer-encoding")}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as client,
            client.request(request.method, self._inner + request.raw_path, data=io.BytesIO(body), headers={**fields, "Content-Length": str(len(body))}) as answer,
        ):
            told = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in ("transfer-encoding", "connection", "server", "date")}
            if request.method != "HEAD":
                kept.pop("Content-Length", None)
            return web.Response(status=answer.status, body=told, headers=kept)

    def _fault(self, request: web.Request, body: bytes) -> str | None:
        """Return what S3 would refuse a request for: None for one that is signed as it should be."""
        query = parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True)
        signed = dict(query)
        if "X-Amz-Signature" in signed:
            given, scope, names, at = signed["X-Amz-Signature"], signed["X-Amz-Credential"], signed["X-Amz-SignedHeaders"], signed["X-Amz-Date"]
            payload = "UNSIGNED-PAYLOAD"
            query = [each for each in query if each[0] != "X-Amz-Signature"]
            if datetime.now(UTC) > _instant(at) + timedelta(seconds=int(signed["X-Amz-Expires"])):
                return "AccessDenied"
        else:
            found = re.fullmatch(
                r"AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})", request.headers.get("Authorization", "")
            )
            if found is None:
                return "AccessDenied"
            scope, names, given = found.groups()
            at, payload = request.headers["X-Amz-Date"], request.headers["X-Amz-Content-Sha256"]
            if re.fullmatch(r"[0-9a-f]{64}", payload) and hashlib.sha256(body).hexdigest() != payload:
                return "XAmzContentSHA256Mismatch"
        key_id, day, region, service, ending = scope.split("/")
        lines = [
            request.method,
            request.raw_path.partition("?")[0],
            "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query)),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names.split(";")),
            "",
            names,
            payload,
        ]
        text = "\n".join(("AWS4-HMAC-SHA256", at, f"{day}/{region}/{service}/{ending}", hashlib.sha256("\n".join(lines).encode()).hexdigest()))
        key = f"AWS4{SECRET}".encode()
        for part in (day, region, service, ending):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        right = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return None if key_id == KEY_ID and hmac.compare_digest(right, given) else "SignatureDoesNotMatch"


def _instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _install() -> None:
    """Make the server's environment, as `make install-test` has done before; at once when it is there."""
    command = [sys.executable, "-I", "embedded/install.py", "--into", str(VENV), "requirements-s3.lock"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.asynccontextmanager
async def serving(log: Path) -> AsyncIterator[FrontDoor]:
    """Run the server with an empty bucket, and give its front door."""
    await asyncio.to_thread(_install)
    port = free_port()
    with log.open("ab") as told:
        process = await asyncio.create_subprocess_exec(
            str(ROOT / VENV / "bin" / "python"), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), stdout=told, stderr=told, cwd=log.parent
        )
    try:
        inner = f"http://127.0.0.1:{port}"
        await _make_bucket(inner, process, log)
        door = FrontDoor(inner)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", door.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", own := free_port())
            await site.start()
            door.url = f"http://127.0.0.1:{own}"
            yield door
        finally:
            for held in door.holds:
                held.go.set()
            await runner.cleanup()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _make_bucket(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with aiohttp.ClientSession() as client:
        for _ in range(START_SECONDS * 20):
            assert process.returncode is None, log.read_text(errors="replace")[-4000:]
            try:
                async with client.put(f"{url}/{BUCKET}") as made:
                    assert made.status == 200, await made.text()
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace")[-4000:])
