"""Deploying over REST, against a running gateway with its worker inside."""

import asyncio
import gzip
from uuid import UUID, uuid4

import brotli
import httpx2
import pytest

from domain.apps import archives
from models import database
from models.enums import Scope
from tests.apps.deploying import SITE, deploy, fresh, make_app, tar_of, zip_of
from tests.apps.hostile import CASES, hostile
from tests.conftest import Suite
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio


async def counts(slug: str) -> tuple[int, int]:
    """How many deployments an app has, and how much content."""
    deployments = await database.fetch_value("SELECT count(*) FROM deployment d JOIN app a ON a.id = d.app_id WHERE a.slug = $1", slug)
    blobs = await database.fetch_value("SELECT count(*) FROM blob b JOIN app a ON a.id = b.app_id WHERE a.slug = $1", slug)
    return deployments, blobs


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/zip", zip_of(SITE)),
        ("application/gzip", tar_of(SITE)),
        ("application/octet-stream", zip_of(SITE)),
        ("", tar_of({f"./{name}": content for name, content in SITE.items()})),
    ],
)
async def test_an_archive_as_the_body(client: httpx2.AsyncClient, books: Suite, media_type: str, body: bytes) -> None:
    """A zip or tar.gz is deployed and answered once it is served, whatever its media type says; every file lies in the store, and compressed beside itself."""
    mine = await tenant()
    slug = await make_app(client, mine)
    answer = await client.post(f"/v1/apps/{slug}/deploy", content=body, headers={**mine.bearer, "content-type": media_type})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert UUID(told["deploymentId"])
    assert {name: told[name] for name in ("status", "files", "bytes", "version")} == {
        "status": "succeeded",
        "files": 3,
        "bytes": sum(map(len, SITE.values())),
        "version": 1,
    }
    assert told["url"].startswith(f"http://{slug}.localhost:")
    assert told["versionUrl"].startswith(f"http://{slug}--v1.localhost:")
    rows = await database.fetch("SELECT b.app_id, b.sha256, b.id, b.bytes FROM blob b JOIN app a ON a.id = b.app_id WHERE a.slug = $1", slug)
    kept = {}
    for row in rows:
        place = books.folder / "files" / "blobs" / str(row["app_id"]) / row["sha256"] / str(row["id"])
        content = place.read_bytes()
        kept[content] = place
    assert set(kept) == set(SITE.values())
    script = kept[SITE["assets/app-1a2b3c4d.js"]]
    assert gzip.decompress(script.with_name(f"{script.name}.gzip").read_bytes()) == SITE["assets/app-1a2b3c4d.js"]
    assert brotli.decompress(script.with_name(f"{script.name}.br").read_bytes()) == SITE["assets/app-1a2b3c4d.js"]


@pytest.mark.parametrize(("name", "body"), [("site.zip", zip_of(SITE)), ("site.tar.gz", tar_of(SITE)), ("SITE.TGZ", tar_of(SITE))])
async def test_an_archive_as_a_part(client: httpx2.AsyncClient, name: str, body: bytes) -> None:
    """One archive in a multipart body is opened."""
    mine = await tenant()
    slug = await make_app(client, mine)
    answer = await client.post(f"/v1/apps/{slug}/deploy", files={"file": (name, body)}, headers=mine.bearer)
    assert (answer.status_code, answer.json()["files"]) == (200, 3)


async def test_files_as_parts_and_the_same_again(client: httpx2.AsyncClient) -> None:
    """Files with paths are deployed; the same content again is what is live already, and nothing happens (no version, no content)."""
    mine = await tenant()
    slug = await make_app(client, mine)
    first = await deploy(client, mine, slug, SITE)
    assert first.status_code == 200
    before = await counts(slug)
    assert before == (1, 3)
    assert (await deploy(client, mine, slug, SITE)).json() == first.json()
    again = await client.post(f"/v1/apps/{slug}/deploy", content=zip_of(SITE), headers=mine.bearer)
    assert again.json() == first.json()
    assert await counts(slug) == before
    second = (await deploy(client, mine, slug, SITE | {"index.html": b"two"})).json()
    assert (second["version"], second["files"]) == (2, 3)
    assert await counts(slug) == (2, 4)


async def test_answered_before_it_is_done(client: httpx2.AsyncClient) -> None:
    """With `Prefer: respond-async` the answer is 202 with the place to look at, which tells how far it is."""
    mine, other = await tenant(), await tenant()
    slug, wrong = await make_app(client, mine), await make_app(client, mine)
    answer = await deploy(client, mine, slug, SITE, Prefer="respond-async")
    assert answer.status_code == 202
    assert answer.json()["status"] in ("queued", "running", "succeeded")
    place = answer.headers["location"]
    assert place == f"/v1/apps/{slug}/deployments/{answer.json()['deploymentId']}"
    for _ in range(600):
        found = (await client.get(place, headers=mine.bearer)).json()
        if found["status"] == "succeeded":
            break
        await asyncio.sleep(0.05)
    assert (found["status"], found["files"]) == ("succeeded", 3)
    assert (await client.get(place, headers=other.bearer)).status_code == 403
    for stranger in (place.replace(slug, wrong), f"/v1/apps/{slug}/deployments/{uuid4()}", f"/v1/apps/{slug}/deployments/nonsense"):
        assert (await client.get(stranger, headers=mine.bearer)).status_code == 404


@pytest.fixture(scope="module")
async def target(gateway: Gateway) -> tuple[Tenant, str]:
    """An app that nothing is ever deployed to, because all that it is sent is refused."""
    mine = await tenant()
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        return mine, await make_app(client, mine)


@pytest.mark.parametrize("case", CASES)
async def test_a_hostile_archive_changes_nothing(client: httpx2.AsyncClient, target: tuple[Tenant, str], case: str) -> None:
    """Every hostile archive is 400 with a message, and leaves no deployment and no content (F39)."""
    mine, slug = target
    archive, told = hostile(case)
    refused = await client.post(f"/v1/apps/{slug}/deploy", content=archive, headers=mine.bearer)
    assert (refused.status_code, set(refused.json())) == (400, {"error"})
    for words in told:
        assert words in refused.json()["error"]
    assert await counts(slug) == (0, 0)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a\\b", "C:/x", "a//b", "./a", "a\tb", "a\u202eb", ""])
async def test_a_part_with_a_hostile_name(client: httpx2.AsyncClient, target: tuple[Tenant, str], path: str) -> None:
    """Single files obey the rules of archives."""
    mine, slug = target
    boundary = "b" * 20
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{path}"\r\n\r\nx\r\n--{boundary}--\r\n'.encode()
    headers = {**mine.bearer, "content-type": f"multipart/form-data; boundary={boundary}"}
    refused = await client.post(f"/v1/apps/{slug}/deploy", content=body, headers=headers)
    assert (refused.status_code, set(refused.json())) == (400, {"error"})
    assert await counts(slug) == (0, 0)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", ""),
        (b"", "application/zip"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b"garbage", "multipart/form-data; boundary=x"),
        (b"x", "multipart/form-data"),
        (b'--x\r\nContent-Disposition: form-data; name="message"\r\n\r\nhello\r\n--x--\r\n', "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nhello', "multipart/form-data; boundary=x"),
    ],
)
async def test_a_body_that_is_no_upload(client: httpx2.AsyncClient, target: tuple[Tenant, str], body: bytes, media_type: str) -> None:
    """A missing, empty or broken upload is 400 in the document's shape."""
    mine, slug = target
    refused = await client.post(f"/v1/apps/{slug}/deploy", content=body, headers={**mine.bearer, "content-type": media_type})
    assert (refused.status_code, set(refused.json())) == (400, {"error"})
    assert await counts(slug) == (0, 0)


async def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(client: httpx2.AsyncClient) -> None:
    """A length over the bound is 413 at once: nothing of the body is waited for."""
    mine = await tenant()
    slug = await make_app(client, mine)
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    host = f"{client.base_url.host}:{client.base_url.port}"
    fields = f"Host: {host}\r\nAuthorization: {mine.bearer['Authorization']}\r\nContent-Length: {archives.LARGEST_TOTAL_BYTES + 1}\r\n\r\n"
    head = f"POST /v1/apps/{slug}/deploy HTTP/1.1\r\n{fields}"
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_whose_app_it_is(client: httpx2.AsyncClient) -> None:
    """Another workspace's app is 403 and nobody's 404, before anything is read; a key that only reads is 403."""
    mine, other = await tenant(), await tenant()
    slug = await make_app(client, mine)
    assert (await deploy(client, other, slug, SITE)).status_code == 403
    assert (await deploy(client, other, fresh(), SITE)).status_code == 404
    _, reading = await mine.mint(scopes=frozenset({Scope.APPS_READ}))
    refused = await client.post(f"/v1/apps/{slug}/deploy", content=zip_of(SITE), headers={"Authorization": f"Bearer {reading}"})
    assert refused.status_code == 403
    assert await counts(slug) == (0, 0)


async def test_two_at_once(client: httpx2.AsyncClient) -> None:
    """Of many deployments at once each is served in its turn or is told 409: one is live at the end, and it is one of those that were answered 200."""
    mine = await tenant()
    slug = await make_app(client, mine)
    answers = await asyncio.gather(*(deploy(client, mine, slug, {"index.html": f"version {number}".encode()}) for number in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    served = {answer.json()["deploymentId"] for answer in answers if answer.status_code == 200}
    assert served
    live = await database.fetch_value("SELECT live_deployment_id::text FROM app WHERE slug = $1", slug)
    assert live in served
    left = await database.fetch_value("SELECT count(*) FROM deployment d JOIN app a ON a.id = d.app_id WHERE a.slug = $1 AND d.finished_at IS NULL", slug)
    assert left == 0


async def test_a_retry_deploys_once(client: httpx2.AsyncClient) -> None:
    """With an `Idempotency-Key` a repeat returns the first deployment, and the key with other files is 422."""
    mine = await tenant()
    slug = await make_app(client, mine)
    first = await deploy(client, mine, slug, SITE, **{"Idempotency-Key": "k1"})
    await deploy(client, mine, slug, {"index.html": b"between"})
    again = await deploy(client, mine, slug, SITE, **{"Idempotency-Key": "k1"})
    assert again.json() == first.json()
    assert (await deploy(client, mine, slug, {"index.html": b"else"}, **{"Idempotency-Key": "k1"})).status_code == 422
    assert (await counts(slug))[0] == 2
