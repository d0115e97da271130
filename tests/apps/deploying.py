"""What tests of deployments share: an app, its files, and ways to send them."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from uuid import uuid4

import httpx2

from tests.support.world import Tenant

SITE = {"index.html": b"<h1>one</h1>", "assets/app-1a2b3c4d.js": b"console.log(1)\n" * 100, "404.html": b"nothing here"}


def fresh() -> str:
    """Return an id that nobody has taken."""
    return f"app-{uuid4().hex[:12]}"


async def make_app(client: httpx2.AsyncClient, mine: Tenant) -> str:
    """Register an app and return its id."""
    slug = fresh()
    assert (await client.post("/v1/apps", json={"appId": slug, "name": "x"}, headers=mine.bearer)).status_code == 201
    return slug


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """Return files as a zip."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return written.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return files as a tar.gz."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return written.getvalue()


async def deploy(client: httpx2.AsyncClient, mine: Tenant, slug: str, files: Mapping[str, bytes], **headers: str) -> httpx2.Response:
    """Deploy files as single parts of a multipart body."""
    parts = [("files", (name, content)) for name, content in files.items()]
    return await client.post(f"/v1/apps/{slug}/deploy", files=parts, headers={**mine.bearer, **headers})
