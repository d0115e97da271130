"""`python -m bench.clients`: our upstream client beside aiohttp, in one process and one run: whole answers and streams, with and without TLS.

What is counted is the processor time of this process, in which only the client under test works; the mock upstream is another process.
"""

import asyncio
import contextlib
import datetime
import functools
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import click
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench import answers
from bench.answers import SCRIPTS, WHOLE, unstamped
from bench.processes import await_answer, free_port, on_cores, split_cores
from bench.rounds import table
from clients.upstream import Upstreams

CHUNKS = 100
MOST = 1 << 30
FIELDS = {"content-type": "application/json", "authorization": "Bearer sk-bench", "user-agent": "bench", "accept": "application/json"}
Ask = Callable[[str, bytes], Awaitable[bytes]]


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for `localhost`, and the context of a client that believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=12))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    file = folder / "mock.pem"
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + pem)
    return file, ssl.create_default_context(cadata=pem.decode())


@contextlib.asynccontextmanager
async def _ours(tls: ssl.SSLContext) -> AsyncIterator[Ask]:
    upstreams = Upstreams(tls=tls)
    fields = [(name.encode(), value.encode()) for name, value in FIELDS.items()]

    async def ask(url: str, body: bytes) -> bytes:
        async with upstreams.post(url, fields, body) as response:
            return await response.read(MOST) or b""

    try:
        yield ask
    finally:
        await upstreams.close()


@contextlib.asynccontextmanager
async def _aiohttp(tls: ssl.SSLContext) -> AsyncIterator[Ask]:
    """The session as a careful gateway sets it up: no pool limit, no cookies, no decompression, time-outs for connecting and for reading."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, ttl_dns_cache=60, ssl=tls),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )

    async def ask(url: str, body: bytes) -> bytes:
        async with session.post(url, data=body, headers=FIELDS, allow_redirects=False) as response:
            return b"".join([piece async for piece in response.content.iter_any()])

    async with session:
        yield ask


async def _course(ask: Ask, url: str, body: bytes, expected: bytes, *, streamed: bool, connections: int, seconds: float) -> tuple[int, float]:
    """Ask again and again on so many connections; return how many right answers came, and the processor time in seconds."""
    count = 0
    until = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal count
        while time.perf_counter() < until:
            got = await ask(url, body)
            if (unstamped(got) if streamed else got) != expected:
                raise RuntimeError("a wrong answer")
            count += 1

    before = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(worker())
    return count, time.process_time() - before


def _runs(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is None


async def _compare(seconds: float, rounds: int) -> list[list[str]]:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        file, tls = _certificate(Path(folder))
        plain, secure = free_port(), free_port()
        with on_cores(split_cores()[1]):
            mocks = [subprocess.Popen([sys.executable, "-m", "bench.mock", str(plain)]), subprocess.Popen([sys.executable, "-m", "bench.mock", str(secure), str(file)])]
        try:
            for port, mock in zip((plain, secure), mocks, strict=True):
                await asyncio.to_thread(await_answer, port, "/", functools.partial(_runs, mock), secure=port == secure)
            async with _ours(tls) as ours, _aiohttp(tls) as theirs:
                for origin in (f"http://127.0.0.1:{plain}", f"https://localhost:{secure}"):
                    for streamed in (False, True):
                        model = answers.stream_model(CHUNKS, 0) if streamed else answers.WHOLE_MODEL
                        body = answers.request_body("openai", model, 400, streamed=streamed)
                        expected = SCRIPTS["openai"].whole(CHUNKS) if streamed else WHOLE["openai"]
                        costs: dict[str, list[float]] = {"ours": [], "aiohttp": []}
                        for number in range(rounds + 1):  # the first round warms up
                            for name, ask in (("ours", ours), ("aiohttp", theirs)):
                                count, spent = await _course(ask, origin + answers.PATHS["openai"], body, expected, streamed=streamed, connections=32, seconds=seconds)
                                if number:
                                    costs[name].append(spent * 1e6 / count)
                        mine, other = statistics.median(costs["ours"]), statistics.median(costs["aiohttp"])
                        what = f"{'a stream of 100 chunks' if streamed else 'a whole answer'}, {'TLS' if origin.startswith('https') else 'plain'}"
                        lines.append([what, f"{mine:.0f}", f"{other:.0f}", f"{other / mine:.2f}"])
        finally:
            for mock in mocks:
                mock.terminate()
                mock.wait()
    return lines


@click.command()
@click.option("--seconds", default=1.0, show_default=True, help="How long each client of each round runs.")
@click.option("--rounds", default=3, show_default=True, help="How often each client runs; the medians are over these.")
def main(seconds: float, rounds: int) -> None:
    """Compare upstream clients, 32 connections, processor time of the client for a call; every answer is compared byte for byte."""
    lines = uvloop.run(_compare(seconds, rounds))
    print(table(("call", "ours us", "aiohttp us", "aiohttp / ours"), lines))


if __name__ == "__main__":
    main()
