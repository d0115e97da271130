"""Deployments over GraphQL: only what changed is sent, progress is told, and a deployment that ends badly changes nothing (F39)."""

import asyncio
import hashlib
import json
from typing import Any
from uuid import UUID

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from domain.apps import blobs, deployments
from domain.apps.deployments import NewFile
from domain.errors import InvalidState
from models import database
from models.enums import JobStatus, Scope
from tests.apps.deploying import SITE, deploy, make_app
from tests.conftest import Suite
from tests.schema.test_operations import documents
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio


async def ask(client: httpx2.AsyncClient, mine: Tenant, name: str, **variables: object) -> Any:
    """The data of an operation of the contract."""
    answer = (await client.post("/graphql", json={"query": documents()[name], "variables": variables}, headers=mine.bearer)).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def app_id_of(client: httpx2.AsyncClient, mine: Tenant, slug: str) -> str:
    """The global ID of an app."""
    query = {"query": "query ($slug: Slug!) { app(slug: $slug) { id } }", "variables": {"slug": slug}}
    found: str = (await client.post("/graphql", json=query, headers=mine.bearer)).json()["data"]["app"]["id"]
    return found


def named(files: dict[str, bytes]) -> list[dict[str, object]]:
    """Files as `deploymentCreate` takes them."""
    return [{"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for path, content in files.items()]


async def watch(gateway: Gateway, mine: Tenant, deployment: str) -> list[dict[str, Any]]:
    """What Console_Deploy tells of a deployment until it is final."""
    told = []
    async with connect(gateway.url.replace("http", "ws") + "/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": mine.bearer["Authorization"]}}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        payload = {"query": documents()["Console_Deploy"], "variables": {"id": deployment}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        while (message := json.loads(await socket.recv()))["type"] == "next":
            assert "errors" not in message["payload"], message
            told.append(message["payload"]["data"]["deploymentChanged"])
    return told


async def test_digests_uploads_finalize_and_the_way_back(client: httpx2.AsyncClient, gateway: Gateway) -> None:
    """S0_Deploy, S0_DeployFinalize, Console_Deploy and S0_Rollback: content is sent once, a version goes live, and the pointer goes back."""
    mine = await tenant()
    slug = await make_app(client, mine)
    app_id = await app_id_of(client, mine, slug)
    begun = (await ask(client, mine, "S0_Deploy", id=app_id, files=named(SITE)))["deploymentCreate"]
    assert begun["userErrors"] == []
    assert begun["deployment"]["status"] == "AWAITING_UPLOAD"
    assert {upload["path"] for upload in begun["uploads"]} == set(SITE)
    early = (await ask(client, mine, "S0_DeployFinalize", id=begun["deployment"]["id"]))["deploymentFinalize"]
    assert (early["deployment"], early["userErrors"][0]["code"]) == (None, "INVALID_STATE")
    for upload in begun["uploads"]:
        assert (upload["method"], upload["headers"]) == ("PUT", [])
        assert (await client.put(upload["url"], content=SITE[upload["path"]])).status_code == 204
    watching = asyncio.create_task(watch(gateway, mine, begun["deployment"]["id"]))
    done = (await ask(client, mine, "S0_DeployFinalize", id=begun["deployment"]["id"]))["deploymentFinalize"]
    assert done["userErrors"] == []
    told = await watching
    assert (told[-1]["status"], told[-1]["live"], told[-1]["failure"]) == ("SUCCEEDED", True, None)
    assert told[-1]["log"][-1]["message"] == "Version 1 is live."
    assert (await client.get("/", headers={"Host": f"{slug}.localhost"})).content == SITE["index.html"]

    changed = SITE | {"index.html": b"<h1>two</h1>"}
    second = (await ask(client, mine, "S0_Deploy", id=app_id, files=named(changed)))["deploymentCreate"]
    assert [upload["path"] for upload in second["uploads"]] == ["index.html"]
    assert (await client.put(second["uploads"][0]["url"], content=changed["index.html"])).status_code == 204
    await ask(client, mine, "S0_DeployFinalize", id=second["deployment"]["id"])
    assert (await watch(gateway, mine, second["deployment"]["id"]))[-1]["status"] == "SUCCEEDED"
    same = (await ask(client, mine, "S0_Deploy", id=app_id, files=named(changed)))["deploymentCreate"]
    assert (same["deployment"]["id"], same["deployment"]["status"], same["uploads"]) == (second["deployment"]["id"], "SUCCEEDED", [])
    back = (await ask(client, mine, "S0_Rollback", id=begun["deployment"]["id"]))["deploymentRollback"]
    assert (back["app"]["liveDeployment"]["version"], back["userErrors"]) == (1, [])
    assert (await client.get("/", headers={"Host": f"{slug}.localhost"})).content == SITE["index.html"]
    never = (await ask(client, mine, "S0_Deploy", id=app_id, files=named({"a": b"never sent"})))["deploymentCreate"]
    refused = (await ask(client, mine, "S0_Rollback", id=never["deployment"]["id"]))["deploymentRollback"]
    assert refused["userErrors"][0]["currentState"] == "awaiting_upload"
    stopped = (await ask(client, mine, "DeployCancel", id=never["deployment"]["id"]))["deploymentCancel"]
    assert (stopped["deployment"]["status"], stopped["userErrors"]) == ("CANCELLED", [])
    for name in ("S0_DeployFinalize", "DeployCancel"):
        answer = next(iter((await ask(client, mine, name, id=second["deployment"]["id"])).values()))
        assert [error["code"] for error in answer["userErrors"]] == ([] if name == "S0_DeployFinalize" else ["INVALID_STATE"])


async def test_an_upload_address_takes_only_what_was_announced(client: httpx2.AsyncClient) -> None:
    """Another content, another size, another address or a deployment that was stopped: refused, and nothing is kept."""
    mine = await tenant()
    slug = await make_app(client, mine)
    app_id = await app_id_of(client, mine, slug)
    begun = (await ask(client, mine, "S0_Deploy", id=app_id, files=named({"a.txt": b"honest"})))["deploymentCreate"]
    url = begun["uploads"][0]["url"]
    for content in (b"hone5t", b"honest and more", b"hon", b""):
        assert (await client.put(url, content=content)).status_code == 400
    base, token = url.rsplit("/", 1)
    for other in (token[:-1], f"{token}x", token.replace(".", "x"), "nonsense", "A" + token[1:]):
        assert (await client.put(f"{base}/{other}", content=b"honest")).status_code == 403
    early = (await ask(client, mine, "S0_DeployFinalize", id=begun["deployment"]["id"]))["deploymentFinalize"]
    assert early["userErrors"][0]["code"] == "INVALID_STATE"
    await ask(client, mine, "DeployCancel", id=begun["deployment"]["id"])
    assert (await client.put(url, content=b"honest")).status_code == 409


async def test_files_that_cannot_be(client: httpx2.AsyncClient) -> None:
    """A fault is told with the path to the file, and begins nothing."""
    mine = await tenant()
    slug = await make_app(client, mine)
    app_id = await app_id_of(client, mine, slug)
    good = named({"a.txt": b"x"})[0]
    for files, path in (
        ([], ["input", "files"]),
        ([good, {**good, "path": "../evil"}], ["input", "files", "1", "path"]),
        ([good, good], ["input", "files", "1", "path"]),
        ([{**good, "sha256": "X" * 64}], ["input", "files", "0", "sha256"]),
        ([{**good, "bytes": -1}], ["input", "files", "0", "bytes"]),
        ([{**good, "bytes": 60_000_000}], ["input", "files", "0", "bytes"]),
        ([{**good, "contentType": "text/html\r\nx: y"}], ["input", "files", "0", "contentType"]),
    ):
        refused = (await ask(client, mine, "S0_Deploy", id=app_id, files=files))["deploymentCreate"]
        assert (refused["deployment"], refused["userErrors"][0]["path"]) == (None, path)
    stranger = await tenant()
    refused = (await ask(client, stranger, "S0_Deploy", id=app_id, files=[good]))["deploymentCreate"]
    assert refused["userErrors"][0]["code"] == "NOT_FOUND"
    assert await database.fetch_value("SELECT count(*) FROM deployment WHERE workspace_id = $1", mine.workspace_id) == 0


async def test_content_that_was_swapped_fails_the_deployment(client: httpx2.AsyncClient, gateway: Gateway, books: Suite) -> None:
    """What lies in the store is proved before it is served: another content fails the deployment, and what was live stays live."""
    mine = await tenant()
    slug = await make_app(client, mine)
    await deploy(client, mine, slug, SITE)
    app_id = await app_id_of(client, mine, slug)
    begun = (await ask(client, mine, "S0_Deploy", id=app_id, files=named({"index.html": b"honest"})))["deploymentCreate"]
    await client.put(begun["uploads"][0]["url"], content=b"honest")
    deployment_id = await database.fetch_value("SELECT id FROM deployment WHERE workspace_id = $1 ORDER BY id DESC LIMIT 1", mine.workspace_id)
    staged = books.folder / "files" / blobs.staging_key(deployment_id, hashlib.sha256(b"honest").hexdigest())
    staged.write_bytes(b"hone5t")
    await ask(client, mine, "S0_DeployFinalize", id=begun["deployment"]["id"])
    last = (await watch(gateway, mine, begun["deployment"]["id"]))[-1]
    assert (last["status"], last["live"], last["failure"]["code"], last["failure"]["retryable"]) == ("FAILED", False, "content_differs", False)
    assert (await client.get("/", headers={"Host": f"{slug}.localhost"})).content == SITE["index.html"]


async def test_one_at_a_time_and_a_cancelled_one_never_goes_live(client: httpx2.AsyncClient) -> None:
    """While one is on its way a second is refused; one that was cancelled before its worker came is not served."""
    mine = await tenant()
    slug = await make_app(client, mine)
    caller = mine.caller()
    app = await database.fetch_value("SELECT id FROM app WHERE slug = $1", slug)
    digests = [hashlib.sha256(text).hexdigest() for text in (b"one", b"two")]
    first, second = [(await deployments.create(caller, app, [NewFile("index.html", 3, digest)]))[0] for digest in digests]
    await database.fetch("UPDATE deployment SET status = 'running' WHERE id = $1", first.id)

    class Sent:
        async def size(self, key: str) -> int:
            return 3

    with pytest.raises(InvalidState):
        await deployments.finalize(caller, second.id, Sent())  # type: ignore[arg-type]  # only sizes are asked
    assert (await deployments.cancel(caller, first.id)).status is JobStatus.CANCELLED
    assert await database.fetch_value("SELECT live_deployment_id FROM app WHERE id = $1", app) is None


async def test_content_that_nobody_needs_is_collected(client: httpx2.AsyncClient, books: Suite) -> None:
    """After the grace, content of deleted apps goes, row by row; what any version still has stays, and the same content sent again is kept anew."""
    from clients.storage import Storage

    mine = await tenant()
    kept, gone = await make_app(client, mine), await make_app(client, mine)
    await deploy(client, mine, kept, SITE)
    await deploy(client, mine, gone, SITE)
    await deploy(client, mine, kept, {"index.html": b"two"})
    assert (await client.delete(f"/v1/apps/{gone}", headers=mine.bearer)).status_code == 204
    ids: dict[str, UUID] = {row["slug"]: row["id"] for row in await database.fetch("SELECT slug, id FROM app WHERE slug = ANY ($1)", [kept, gone])}
    await database.fetch("UPDATE blob SET touched_at = touched_at - interval '2 days' WHERE app_id = ANY ($1)", list(ids.values()))
    await database.fetch("UPDATE app SET deleted_at = deleted_at - interval '2 days' WHERE id = $1", ids[gone])
    store = Storage.in_folder(books.folder / "files")
    await blobs.collect(store)
    await blobs.collect(store)
    folder = books.folder / "files" / "blobs"
    assert not [path for path in (folder / str(ids[gone])).rglob("*") if path.is_file()]
    assert (await client.get("/", headers={"Host": f"{kept}--v1.localhost"})).content == SITE["index.html"]
    assert await database.fetch_value("SELECT count(*) FROM blob WHERE app_id = $1 AND erased_at IS NULL", ids[kept]) == 4


async def test_a_stranger_s_hand(client: httpx2.AsyncClient) -> None:
    """Another workspace's deployment is not there to be finalized, stopped or gone back to, and waits on for its files."""
    mine, other = await tenant(), await tenant()
    slug = await make_app(client, mine)
    begun = (await ask(client, mine, "S0_Deploy", id=await app_id_of(client, mine, slug), files=named({"a": b"x"})))["deploymentCreate"]
    for name in ("S0_DeployFinalize", "DeployCancel", "S0_Rollback"):
        refused = next(iter((await ask(client, other, name, id=begun["deployment"]["id"])).values()))
        assert [error["code"] for error in refused["userErrors"]] == ["NOT_FOUND"], name
    assert await database.fetch_value("SELECT status FROM deployment WHERE workspace_id = $1", mine.workspace_id) == "awaiting_upload"


async def test_who_may_watch(client: httpx2.AsyncClient, gateway: Gateway) -> None:
    """Another workspace's deployment cannot be watched."""
    mine, other = await tenant(), await tenant()
    slug = await make_app(client, mine)
    begun = (await ask(client, mine, "S0_Deploy", id=await app_id_of(client, mine, slug), files=named({"a": b"x"})))["deploymentCreate"]
    _, bare = await mine.mint(scopes=frozenset({Scope.USAGE_READ}))
    for credential in (other.secret, bare):
        async with connect(gateway.url.replace("http", "ws") + "/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {credential}"}}))
            await socket.recv()
            payload = {"query": documents()["Console_Deploy"], "variables": {"id": begun["deployment"]["id"]}}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            message = json.loads(await socket.recv())
            errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
            assert errors
