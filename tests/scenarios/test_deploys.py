"""Deployments to a bucket, with everything going wrong: a killed process at every step, a store that is full or dead, changed content (D1, F39).

One installation of its own keeps its files on the run's S3 server. A gateway is killed once while deployments stand at five points; another
one then goes on.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx2
import pytest

from clients.queue import ArqQueue
from models import database
from schema import ids
from tests.apps.deploying import SITE, deploy, make_app
from tests.schema.test_operations import documents
from tests.support.books import books_of
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.installation import Installation, installation
from tests.support.s3 import FrontDoor
from tests.support.servers import Servers
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

POINTS = ("unpacked", "first_blob", "later_blob", "before_switch", "after_switch")


def second(slug: str) -> dict[str, bytes]:
    """The second version of an app's files: content that no other app has."""
    return {
        "index.html": f"<h1>two of {slug}</h1>".encode(),
        "assets/app-9z8y7x6w.js": f"// {slug}\n".encode() * 100,
        "404.html": SITE["404.html"],
    }


def sha256(content: bytes) -> str:
    """A digest as deployments have it."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class Site:
    """An app of a maker's, and its request that was under way."""

    maker: Tenant
    slug: str
    id: UUID
    task: "asyncio.Task[Any] | None" = None


@dataclass
class Wreck:
    """What the kill left, with the gateway that goes on."""

    over: Installation
    door: FrontDoor
    gateway: Gateway
    queue: ArqQueue
    sites: dict[str, Site] = field(default_factory=dict)
    seen: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """By point, how the deployment stood when its process had died, and whether it was live."""


async def page(url: str, host: str, path: str = "/") -> bytes:
    """What a visitor of an app sees."""
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.get(path, headers={"Host": f"{host}.localhost"})
    assert answer.status_code == 200, answer.text
    return answer.content


async def newest(site: Site) -> Mapping[str, Any]:
    """The newest deployment of an app, as its row says."""
    row = await database.fetch_row(
        """
        SELECT d.id, d.status, d.log::text AS log, d.failure_code, d.failure_retryable, d.job_id, a.live_deployment_id = d.id AS live
          FROM deployment d JOIN app a ON a.id = d.app_id WHERE a.id = $1 ORDER BY d.id DESC LIMIT 1
        """,
        site.id,
    )
    assert row is not None
    return dict(row)


async def site_of(url: str) -> Site:
    """An app whose first version is live."""
    maker = await tenant()
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        slug = await make_app(client, maker)
        assert (await deploy(client, maker, slug, SITE)).status_code == 200
    return Site(maker, slug, await database.fetch_value("SELECT id FROM app WHERE slug = $1", slug))


async def begin(url: str, site: Site, **headers: str) -> httpx2.Response | None:
    """Deploy the second version; None when the process died over it."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        with contextlib.suppress(httpx2.TransportError):
            return await deploy(client, site.maker, site.slug, second(site.slug), **headers)
    return None


@pytest.fixture(scope="module")
async def wreck(servers: Servers, template: str, bucket: FrontDoor, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wreck]:
    """Bring deployments to every point, kill the gateway, and start another one."""
    servers.create_database("deploys", template=template)
    redis = f"{servers.redis_url.partition('?')[0]}?db=7"  # workers of other databases share the server, and would take the ids away
    queue = ArqQueue(redis)
    async with installation(servers, "deploys", tmp_path_factory.mktemp("deploys")) as over, books_of(over.dsn), over.superuser() as admin:
        environment = {**bucket.environment, "REDIS_URL": redis}
        first = await over.gateway(**environment)
        sites = dict(zip(POINTS, await asyncio.gather(*(site_of(first.url) for _ in POINTS)), strict=True))
        holds = {
            "unpacked": bucket.hold(f"^PUT /uploads/.*/{sha256(second(sites['unpacked'].slug)['index.html'])}"),
            "first_blob": bucket.hold(f"^PUT /blobs/{sites['first_blob'].id}/"),
            "later_blob": bucket.hold(f"^PUT /blobs/{sites['later_blob'].id}/", first=2),
        }
        last = bucket.hold(f"^PUT /blobs/{sites['before_switch'].id}/")
        lock = admin.transaction()

        async def switching() -> bool:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE app SET live_deployment_id%' AND wait_event_type = 'Lock'"
            return bool(await database.fetch_value(waiting))

        async def switched() -> bool:
            return bool((await newest(sites["after_switch"]))["live"])

        for site in sites.values():
            site.task = asyncio.create_task(begin(first.url, site, Prefer="respond-async"))
        for held in (last, *holds.values()):
            await asyncio.wait_for(held.came.wait(), 60)
        await lock.start()
        await admin.execute("SELECT FROM app WHERE id = $1 FOR NO KEY UPDATE", sites["before_switch"].id)
        last.go.set()
        await until(switching, "the pointer about to move")
        await until(switched, "the pointer moved")
        first.kill()
        await lock.rollback()
        bucket.holds.clear()
        for held in holds.values():
            held.go.set()
        await asyncio.gather(*(site.task for site in sites.values() if site.task))
        found = Wreck(over, bucket, await over.gateway(**environment), queue, sites)
        for point, site in sites.items():
            row = await newest(site)
            found.seen[point] = (row["status"], bool(row["live"]))
        yield found
    await queue.close()


@pytest.fixture
async def client(wreck: Wreck) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the gateway that goes on, with the books of its database."""
    async with books_of(wreck.over.dsn), httpx2.AsyncClient(base_url=wreck.gateway.url, timeout=60) as opened:
        yield opened


async def hurry(wreck: Wreck, site: Site) -> None:
    """Let the time pass that a dead worker's lease, or a retry, would take."""
    row = await database.fetch_row(
        "UPDATE job SET leased_until = NULL, next_at = clock_timestamp() WHERE id = $1 AND status IN ('queued', 'running') RETURNING id, tries",
        (await newest(site))["job_id"],
    )
    if row is not None:
        await wreck.queue.nudge(row["id"], row["tries"])


async def final(wreck: Wreck, site: Site) -> Mapping[str, Any]:
    """The newest deployment of an app, once it is final, without the waits between its tries."""

    async def look() -> Mapping[str, Any] | None:
        row = await newest(site)
        if row["status"] in ("succeeded", "failed", "cancelled"):
            return row
        if row["status"] == "running" and await database.fetch_value("SELECT leased_until IS NULL FROM job WHERE id = $1", row["job_id"]):
            await hurry(wreck, site)
        return None

    found = await until(look, "the end of a deployment")
    assert found is not None
    return found


def messages(row: Mapping[str, Any]) -> list[str]:
    """What the log of a deployment says."""
    return [line["message"] for line in json.loads(row["log"])]


async def test_a_killed_process_leaves_the_old_version_live(client: httpx2.AsyncClient, wreck: Wreck) -> None:
    """Wherever it was killed, visitors see the version before, whole; only after the switch do they see the new one, whole."""
    assert wreck.seen == {
        "unpacked": ("awaiting_upload", False),
        "first_blob": ("running", False),
        "later_blob": ("running", False),
        "before_switch": ("running", False),
        "after_switch": ("succeeded", True),
    }
    for point, site in wreck.sites.items():
        files = second(site.slug) if point == "after_switch" else SITE
        for path, content in files.items():
            assert await page(wreck.gateway.url, site.slug, f"/{path}") == content


async def test_the_next_process_resumes(client: httpx2.AsyncClient, wreck: Wreck) -> None:
    """What was queued goes on where it stood and goes live once; what had not all been sent is deployed again; nothing is left under way."""
    for point in ("first_blob", "later_blob", "before_switch", "after_switch"):
        site = wreck.sites[point]
        await hurry(wreck, site)
        row = await final(wreck, site)
        assert (row["status"], row["live"], messages(row).count("Version 2 is live.")) == ("succeeded", True, 1), point
        assert await page(wreck.gateway.url, site.slug) == second(site.slug)["index.html"]
        assert await page(wreck.gateway.url, f"{site.slug}--v1") == SITE["index.html"]
    again = wreck.sites["unpacked"]
    answer = await deploy(client, again.maker, again.slug, second(again.slug))
    assert (answer.status_code, answer.json()["version"]) == (200, 3)
    assert await page(wreck.gateway.url, again.slug) == second(again.slug)["index.html"]
    assert await database.fetch_value("SELECT count(*) FROM deployment WHERE status IN ('queued', 'running')") == 0
    lacking = "SELECT count(*) FROM deployed_file f JOIN deployment d ON d.id = f.deployment_id WHERE d.status = 'succeeded' AND f.blob_id IS NULL"
    assert await database.fetch_value(lacking) == 0


@pytest.mark.parametrize("status", [507, 0], ids=["full", "dead"])
async def test_a_store_that_fails_while_files_are_sent(client: httpx2.AsyncClient, wreck: Wreck, status: int) -> None:
    """A store that is full, or dead, when files come is 503 at once; the old version stays, and the same files go live when it is back."""
    site = await site_of(wreck.gateway.url)
    wreck.door.refusals[f"^PUT /uploads/.*/{sha256(second(site.slug)['index.html'])}"] = status
    try:
        refused = await deploy(client, site.maker, site.slug, second(site.slug))
    finally:
        wreck.door.refusals.clear()
    assert (refused.status_code, refused.json()) == (503, {"error": "The store of files is away or full; nothing was changed."})
    assert await page(wreck.gateway.url, site.slug) == SITE["index.html"]
    assert (await deploy(client, site.maker, site.slug, second(site.slug))).status_code == 200
    assert await page(wreck.gateway.url, site.slug) == second(site.slug)["index.html"]


async def test_a_store_that_fails_while_files_are_kept(client: httpx2.AsyncClient, wreck: Wreck) -> None:
    """It is tried again, which the log tells; after four tries the deployment has failed, may be retried, and the old version is live."""
    site = await site_of(wreck.gateway.url)
    wreck.door.refusals[f"^PUT /blobs/{site.id}/{sha256(second(site.slug)['index.html'])}"] = 500
    try:
        begun = await deploy(client, site.maker, site.slug, second(site.slug), Prefer="respond-async")
        assert begun.status_code == 202
        row = await final(wreck, site)
    finally:
        wreck.door.refusals.clear()
    away = "The store of files is away or full; nothing was changed."
    assert (row["status"], row["live"], row["failure_code"], row["failure_retryable"]) == ("failed", False, "store_unavailable", True)
    assert messages(row)[1:] == [f"{away} Trying again."] * 3 + [away]
    assert await page(wreck.gateway.url, site.slug) == SITE["index.html"]
    assert (await deploy(client, site.maker, site.slug, second(site.slug))).status_code == 200
    assert await page(wreck.gateway.url, site.slug) == second(site.slug)["index.html"]


async def test_visitors_while_the_store_is_away(client: httpx2.AsyncClient, wreck: Wreck) -> None:
    """What is known by heart is served on; what is not is 503 with a time to come again, and served when the store is back."""
    site = await site_of(wreck.gateway.url)
    assert await page(wreck.gateway.url, site.slug) == SITE["index.html"]
    wreck.door.refusals["^GET /blobs/"] = 0
    try:
        assert await page(wreck.gateway.url, site.slug) == SITE["index.html"]
        away = await client.get("/assets/app-1a2b3c4d.js", headers={"Host": f"{site.slug}.localhost"})
        assert (away.status_code, away.headers["retry-after"], away.headers["cache-control"]) == (503, "2", "no-store")
    finally:
        wreck.door.refusals.clear()
    assert await page(wreck.gateway.url, site.slug, "/assets/app-1a2b3c4d.js") == SITE["assets/app-1a2b3c4d.js"]


async def ask(client: httpx2.AsyncClient, mine: Tenant, name: str, **variables: object) -> Any:
    """The data of an operation of the contract."""
    answer = (await client.post("/graphql", json={"query": documents()[name], "variables": variables}, headers=mine.bearer)).json()
    assert "errors" not in answer, answer
    return answer["data"]


def named(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    """Files as `deploymentCreate` takes them."""
    return [{"path": path, "bytes": len(content), "sha256": sha256(content)} for path, content in files.items()]


async def follow(client: httpx2.AsyncClient, mine: Tenant, deployment: str, told: list[Any]) -> None:
    """Add what Console_Deploy tells by server-sent events, until its end."""
    body = {"query": documents()["Console_Deploy"], "variables": {"id": deployment}}
    async with client.stream("POST", "/graphql", json=body, headers={**mine.bearer, "accept": "text/event-stream"}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:") and len(line) > 6:
                payload = json.loads(line[5:])
                if payload.get("data"):
                    told.append(payload["data"]["deploymentChanged"])


async def test_signed_uploads_straight_to_the_bucket(client: httpx2.AsyncClient, wreck: Wreck) -> None:
    """S0_Deploy, S0_DeployFinalize, Console_Deploy: addresses are the bucket's own, signed, and only for content that it lacks."""
    site = await site_of(wreck.gateway.url)
    app = ids.encode("App", site.id)
    begun = (await ask(client, site.maker, "S0_Deploy", id=app, files=named(second(site.slug))))["deploymentCreate"]
    assert {upload["path"] for upload in begun["uploads"]} == {"index.html", "assets/app-9z8y7x6w.js"}
    for upload in begun["uploads"]:
        assert upload["url"].startswith(f"{wreck.door.url}/")
        assert (await client.put(upload["url"].replace("X-Amz-Expires=3600", "X-Amz-Expires=36000"), content=b"x")).status_code == 403
        assert (await client.put(upload["url"], content=second(site.slug)[upload["path"]])).status_code == 200
    told: list[Any] = []
    following = asyncio.create_task(follow(client, site.maker, begun["deployment"]["id"], told))
    done = (await ask(client, site.maker, "S0_DeployFinalize", id=begun["deployment"]["id"]))["deploymentFinalize"]
    assert done["userErrors"] == []
    await following
    assert (told[-1]["status"], told[-1]["live"], told[-1]["log"][-1]["message"]) == ("SUCCEEDED", True, "Version 2 is live.")
    for path, content in second(site.slug).items():
        assert await page(wreck.gateway.url, site.slug, f"/{path}") == content


async def test_uploads_through_the_gateway_to_a_bucket_that_clients_cannot_reach(wreck: Wreck) -> None:
    """TALLYGATE_UPLOADS=gateway, as with the store of docker-compose.yml: addresses are the gateway's, which proves what comes, and the bucket gets it."""
    gateway = await wreck.over.gateway(**wreck.door.environment, TALLYGATE_UPLOADS="gateway")
    async with books_of(wreck.over.dsn), httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        site = await site_of(gateway.url)
        begun = (await ask(client, site.maker, "S0_Deploy", id=ids.encode("App", site.id), files=named(second(site.slug))))["deploymentCreate"]
        before = len(wreck.door.requests)
        for upload in begun["uploads"]:
            assert upload["url"].startswith(f"{gateway.url}/")
            assert (await client.put(upload["url"], content=b"x")).status_code == 400
            assert (await client.put(upload["url"], content=second(site.slug)[upload["path"]])).is_success
        assert [name.split("/")[1] for name in wreck.door.requests[before:] if name.startswith("PUT")] == ["uploads"] * 2
        done = (await ask(client, site.maker, "S0_DeployFinalize", id=begun["deployment"]["id"]))["deploymentFinalize"]
        assert done["userErrors"] == []
        assert (await final(wreck, site))["status"] == "succeeded"


@pytest.mark.parametrize(("sent", "code"), [(b"", "INVALID_STATE"), (b"longer than it said", "INVALID_STATE"), (b"hone5t", None)])
async def test_content_that_is_not_what_was_announced(client: httpx2.AsyncClient, wreck: Wreck, sent: bytes, code: str | None) -> None:
    """The bucket takes anything; we do not: another size is refused at once, another digest fails the deployment, and the old version stays."""
    site = await site_of(wreck.gateway.url)
    begun = (await ask(client, site.maker, "S0_Deploy", id=ids.encode("App", site.id), files=named({"index.html": b"honest"})))["deploymentCreate"]
    assert (await client.put(begun["uploads"][0]["url"], content=sent)).status_code == 200
    done = (await ask(client, site.maker, "S0_DeployFinalize", id=begun["deployment"]["id"]))["deploymentFinalize"]
    assert [error["code"] for error in done["userErrors"]] == ([code] if code else [])
    if code is None:
        row = await final(wreck, site)
        assert (row["status"], row["failure_code"], row["failure_retryable"]) == ("failed", "content_differs", False)
    assert await page(wreck.gateway.url, site.slug) == SITE["index.html"]


async def test_a_deployment_is_stopped_while_it_runs(client: httpx2.AsyncClient, wreck: Wreck) -> None:
    """DeployCancel: its followers hear of it at once, what was being kept changes nothing any more, and the next deployment is let in."""
    site = await site_of(wreck.gateway.url)
    held = wreck.door.hold(f"^PUT /blobs/{site.id}/")
    try:
        assert (await deploy(client, site.maker, site.slug, second(site.slug), Prefer="respond-async")).status_code == 202
        await asyncio.wait_for(held.came.wait(), 60)
        deployment = ids.encode("Deployment", (await newest(site))["id"])
        told: list[Any] = []
        following = asyncio.create_task(follow(client, site.maker, deployment, told))
        await until(lambda: _some(told), "a first word of the deployment")
        assert (await deploy(client, site.maker, site.slug, {"index.html": b"three"})).status_code == 409
        stopped = (await ask(client, site.maker, "DeployCancel", id=deployment))["deploymentCancel"]
        assert stopped == {"deployment": {"status": "CANCELLED"}, "userErrors": []}
        await following
    finally:
        wreck.door.holds.clear()
        held.go.set()
    assert [each["status"] for each in (told[0], told[-1])] == ["RUNNING", "CANCELLED"]
    assert (await deploy(client, site.maker, site.slug, {"index.html": b"three"})).status_code == 200
    row = await database.fetch_row("SELECT status FROM deployment WHERE app_id = $1 AND version = 2", site.id)
    assert row is not None
    assert row["status"] == "cancelled"
    assert await page(wreck.gateway.url, site.slug) == b"three"


async def _some(told: list[Any]) -> bool:
    return bool(told)
