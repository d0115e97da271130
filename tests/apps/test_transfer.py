"""An app that is given to another workspace: what goes with it, what stays, and what stops (AppTransfer)."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest

from clients.issuers import local_session
from domain.access import client_tokens
from domain.access.callers import Caller
from domain.access.client_tokens import NewToken
from domain.apps.addresses import Addresses
from models import database
from schema import ids
from tests.apps.deploying import SITE, deploy, make_app
from tests.apps.test_plans import held, plan
from tests.conftest import SECRET
from tests.schema.test_operations import documents
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio

ORIGIN = "https://chat.example"
BODY = {"model": "echo", "max_tokens": 20, "messages": [{"role": "user", "content": "Say it again."}]}
TWO = SITE | {"index.html": b"<h1>two</h1>"}


class Person:
    """The owner of a workspace, signed in; `at` is the workspace that is meant."""

    def __init__(self, client: httpx2.AsyncClient, of: Tenant) -> None:
        self._client = client
        self._session = local_session(SECRET, of.owner_email, "Olga Owner", at=datetime.now(UTC))

    async def ask(self, query: str, at: str, **variables: object) -> Any:
        """The data of an operation."""
        headers = {"Authorization": f"Bearer {self._session}", "X-Workspace-Id": at}
        answer = (await self._client.post("/graphql", json={"query": query, "variables": variables}, headers=headers)).json()
        assert "errors" not in answer, answer
        return answer["data"]


async def second_workspace(person: Person, of: Tenant) -> tuple[str, str]:
    """Make another workspace of the same person; return its id, and as GraphQL writes it."""
    made = await person.ask('mutation { workspaceCreate(input: { name: "Second" }) { workspace { id } } }', str(of.workspace_id))
    to = made["workspaceCreate"]["workspace"]["id"]
    found = await database.fetch_value("SELECT workspace_id::text FROM member WHERE user_id = $1 AND workspace_id <> $2", of.owner.user_id, of.workspace_id)
    return str(found), to


async def page(client: httpx2.AsyncClient, host: str) -> bytes:
    """The first page of an app, or of a version."""
    answer = await client.get("/", headers={"Host": f"{host}.localhost"})
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_an_app_goes_with_its_deployments(client: httpx2.AsyncClient, gateway: Gateway) -> None:
    """Addresses, versions, content and a deployment under way go with the app; usage and charges stay; tokens of the old workspace stop."""
    mine = await tenant(credit_microusd=1_000_000)
    person = Person(client, mine)
    here, (there, to) = str(mine.workspace_id), await second_workspace(person, mine)
    slug = await make_app(client, mine)
    for files in (SITE, TWO):
        assert (await deploy(client, mine, slug, files)).status_code == 200
    app_id = await database.fetch_value("SELECT id FROM app WHERE slug = $1", slug)
    app = ids.encode("App", app_id)
    key = Caller(at=datetime.now(UTC), workspace_id=mine.workspace_id, name="key", scopes=mine.key.scopes, key_id=mine.key.id)
    made = await client_tokens.create(key, NewToken(app_id=app_id, allowed_origins=(ORIGIN,)), Addresses("http", "localhost", 8000))
    spending = {"Authorization": f"Bearer {client_tokens.sign(SECRET, made)}", "Origin": ORIGIN}
    assert (await client.post("/v1/messages", json=BODY, headers=spending)).status_code == 200
    third = [{"path": "index.html", "bytes": 5, "sha256": hashlib.sha256(b"three").hexdigest()}]
    begun = (await person.ask(documents()["S0_Deploy"], here, id=app, files=third))["deploymentCreate"]
    before = await mine.balance()

    moved = (await person.ask(documents()["AppTransfer"], here, id=app, to=to))["appTransfer"]
    assert moved == {"app": {"slug": slug}, "userErrors": []}

    assert [await page(client, host) for host in (slug, f"{slug}--v1", f"{slug}--v2")] == [TWO["index.html"], SITE["index.html"], TWO["index.html"]]
    history = "query ($slug: Slug!) { app(slug: $slug) { id deployments(first: 9) { totalCount nodes { id version status live fileCount } } } }"
    assert (await person.ask(history, here, slug=slug))["app"] is None
    found = (await person.ask(history, there, slug=slug))["app"]
    assert found["id"] == app
    told = [(each["version"], each["status"], each["live"], each["fileCount"]) for each in found["deployments"]["nodes"]]
    assert told == [(3, "AWAITING_UPLOAD", False, 1), (2, "SUCCEEDED", True, 3), (1, "SUCCEEDED", False, 3)]
    assert [each["slug"] for each in (await person.ask(documents()["S0_Apps"], there))["apps"]["nodes"]] == [slug]
    assert (await person.ask(documents()["S0_Apps"], here))["apps"]["nodes"] == []

    assert (await client.post("/v1/messages", json=BODY, headers=spending)).status_code == 401
    assert (await deploy(client, mine, slug, SITE)).status_code == 403
    old = (await person.ask(documents()["S0_Rollback"], here, id=found["deployments"]["nodes"][2]["id"]))["deploymentRollback"]
    assert (old["app"], old["userErrors"][0]["code"]) == (None, "NOT_FOUND")

    back = (await person.ask(documents()["S0_Rollback"], there, id=found["deployments"]["nodes"][2]["id"]))["deploymentRollback"]
    assert (back["app"]["liveDeployment"]["version"], await page(client, slug)) == (1, SITE["index.html"])
    assert (await client.put(begun["uploads"][0]["url"], content=b"three")).status_code == 204
    done = (await person.ask(documents()["S0_DeployFinalize"], there, id=begun["deployment"]["id"]))["deploymentFinalize"]
    assert done["userErrors"] == []
    again = (await person.ask(documents()["S0_Deploy"], there, id=app, files=named(TWO)))["deploymentCreate"]
    assert again["uploads"] == []  # all of it is the app's already

    by_app = "{ usage { groups(by: [APP]) { dimensions { app { slug } } metrics { requests cost { microUsd } } } } }"
    (group,) = (await person.ask(by_app, here))["usage"]["groups"]
    assert group["metrics"]["requests"] == 1
    assert group["metrics"]["cost"]["microUsd"] == 1_000_000 - before.balance
    assert (await person.ask(by_app, there))["usage"]["groups"] == []
    assert await mine.balance() == before
    assert await broken(mine) == []
    rows = await database.fetch("SELECT workspace_id::text AS place FROM audit_event WHERE action = 'app.transfer' AND workspace_id::text = ANY ($1)", [here, there])
    assert {row["place"] for row in rows} == {here, there}


def named(files: dict[str, bytes]) -> list[dict[str, object]]:
    """Files as `deploymentCreate` takes them."""
    return [{"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for path, content in files.items()]


async def test_an_app_that_there_is_no_room_for(client: httpx2.AsyncClient) -> None:
    """A workspace whose plan allows no more apps, or sites, is given none, and the app stays where it is, served."""
    mine = await tenant()
    person = Person(client, mine)
    here, (there, to) = str(mine.workspace_id), await second_workspace(person, mine)
    slug = await make_app(client, mine)
    assert (await deploy(client, mine, slug, SITE)).status_code == 200
    app = ids.encode("App", await database.fetch_value("SELECT id FROM app WHERE slug = $1", slug))
    await plan(mine_at(mine, there), held("apps", 0))
    refused = (await person.ask(documents()["AppTransfer"], here, id=app, to=to))["appTransfer"]
    assert (refused["app"], [error["code"] for error in refused["userErrors"]]) == (None, ["QUOTA_EXCEEDED"])
    assert (await person.ask("query ($slug: Slug!) { app(slug: $slug) { id } }", here, slug=slug))["app"]["id"] == app
    assert await page(client, slug) == SITE["index.html"]


def mine_at(mine: Tenant, place: str) -> Tenant:
    """The same owner in another workspace."""
    return replace(mine, workspace_id=UUID(place))
