"""The client of model providers over TLS: spoken to only who proves to be the provider, on both event loops."""

import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.upstream import BROKEN, Response, Upstreams
from tests.support.peers import Peer, Server

pytestmark = pytest.mark.anyio

START = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
MOST = 1 << 30


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every test on the standard loop and on the one that serves."""
    return "asyncio", {"use_uvloop": request.param}


@contextlib.asynccontextmanager
async def opened(tls: ssl.SSLContext | None = None, *, connect_seconds: float = 10) -> AsyncIterator[Upstreams]:
    """A client, closed at the end."""
    upstreams = Upstreams(tls=tls, connect_seconds=connect_seconds)
    try:
        yield upstreams
    finally:
        await upstreams.close()


async def asked(upstreams: Upstreams, url: str, body: bytes = b"{}") -> tuple[int, bytes | None]:
    """Ask once; give status and body."""
    async with upstreams.post(url, [], body) as response:
        return response.status, await response.read(MOST)


async def to_the_end(response: Response) -> None:
    """Read what is left."""
    async for _ in response:
        pass


def _certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `name` and a client's that believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    file = folder / "server.pem"
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + pem)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    return serving, ssl.create_default_context(cadata=pem.decode())


async def test_tls_is_spoken_and_kept(tmp_path: Path) -> None:
    """A provider whose certificate is right is spoken to over TLS, one connection for many calls, large bodies both ways."""
    serving, believing = _certificate(tmp_path, "localhost")

    async def serve(peer: Peer) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    server = Server(serve)
    async with server.listening(serving, "localhost") as url, opened(believing) as upstreams:
        for size in (2, 3_000_000, 2):
            assert await asked(upstreams, url, bytes(size)) == (200, bytes(size))
    assert server.connections == 1


@pytest.mark.parametrize("fault", ["another name", "an unknown authority"])
async def test_a_certificate_that_proves_nothing_ends_the_call(tmp_path: Path, fault: str) -> None:
    """No request, and no provider's key, is sent to who cannot prove to be the provider."""
    serving, believing = _certificate(tmp_path, "localhost" if fault == "an unknown authority" else "other.test")
    asked_for: list[bytes] = []

    async def serve(peer: Peer) -> None:
        asked_for.append(await peer.request())

    server = Server(serve)
    if fault == "an unknown authority":
        believing = ssl.create_default_context()
    async with server.listening(serving, "localhost") as url, opened(believing) as upstreams:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asked(upstreams, url)
    assert asked_for == []


async def test_a_handshake_that_hangs_is_not_waited_for() -> None:
    """The handshake is a part of connecting."""
    async with Server(Peer.gone).listening() as url, opened(connect_seconds=0.2) as upstreams:
        with pytest.raises(TimeoutError):
            await asked(upstreams, url.replace("http:", "https:"))


async def test_tls_that_is_cut_is_broken(tmp_path: Path) -> None:
    """A connection that ends in the middle ends the same way over TLS."""
    serving, believing = _certificate(tmp_path, "127.0.0.1")

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START, b"2\r\n{}\r\n")
        peer.reset()

    async with Server(serve).listening(serving) as url, opened(believing) as upstreams, upstreams.post(url, [], b"{}") as response:
        with pytest.raises(BROKEN):
            await to_the_end(response)
