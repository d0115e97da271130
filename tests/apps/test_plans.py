"""What a plan allows of apps, sites and people: exact for many at once, told with the quota's name, and document 2's numbers beside it."""

import asyncio
from typing import Any

import httpx2
import pytest

from models import database
from schema import ids
from tests.apps.deploying import SITE, deploy, fresh, make_app
from tests.schema.test_operations import documents
from tests.support.world import Tenant, subscribed, tenant

pytestmark = pytest.mark.anyio

CREATE = """mutation ($slug: Slug!) { appCreate(input: { slug: $slug, name: "One more" }) { app { id } userErrors { code message path
  ... on QuotaExceededError { upgradeUrl quota { resource window limit used remaining percent resetsAt } } } } }"""


async def ask(client: httpx2.AsyncClient, mine: Tenant, query: str, **variables: object) -> Any:
    """The data of an operation."""
    answer = (await client.post("/graphql", json={"query": query, "variables": variables}, headers=mine.bearer)).json()
    assert "errors" not in answer, answer
    return answer["data"]


def held(resource: str, limit: int) -> dict[str, object]:
    """A limit of a tier on something that is held."""
    return {"resource": resource, "window": "concurrent", "limit": limit}


async def plan(mine: Tenant, *limits: dict[str, object]) -> None:
    """Give a workspace a plan with these limits, besides the tokens that every plan names."""
    await subscribed(mine, [{"resource": "tokens", "window": "24h", "limit": 1000}, *limits])


INVITE = """mutation ($email: EmailAddress!) { memberInvite(input: { email: $email, role: VIEWER }) { member { id } userErrors { code message
  ... on QuotaExceededError { quota { resource limit used remaining } } } } }"""


async def test_no_more_people_than_the_plan_allows(client: httpx2.AsyncClient) -> None:
    """Of four invited at once beside the owner two are; inviting one of them again takes no place, and an invitation that is over gives its place back."""
    mine = await tenant()
    await plan(mine, held("members", 3))
    emails = [f"{fresh()}@example.com" for _ in range(4)]
    answers = await asyncio.gather(*(ask(client, mine, INVITE, email=email) for email in emails))
    codes = [[error["code"] for error in answer["memberInvite"]["userErrors"]] for answer in answers]
    assert sorted(codes) == [[], [], ["QUOTA_EXCEEDED"], ["QUOTA_EXCEEDED"]]
    refused = next(answer["memberInvite"] for answer, found in zip(answers, codes, strict=True) if found)
    told = "The plan allows 3 members, invitations among them, and there are 3: take one out, or choose a larger plan."
    quota = {"resource": "MEMBERS", "limit": 3, "used": 3, "remaining": 0}
    assert refused == {"member": None, "userErrors": [{"code": "QUOTA_EXCEEDED", "message": told, "quota": quota}]}
    first, second = (email for email, found in zip(emails, codes, strict=True) if not found)
    assert (await ask(client, mine, INVITE, email=first))["memberInvite"]["userErrors"] == []
    await database.fetch("UPDATE member SET invitation_expires_at = clock_timestamp() WHERE workspace_id = $1 AND joined_at IS NULL", mine.workspace_id)
    taken = [(await ask(client, mine, INVITE, email=email))["memberInvite"] for email in (first, f"{fresh()}@example.com", second)]
    assert [bool(answer["member"]) for answer in taken] == [True, True, False]


async def test_no_more_apps_than_the_plan_allows(client: httpx2.AsyncClient) -> None:
    """Of six at once three are registered; the others are 429 in the document's shape, or the quota as a user error; a deleted one makes room."""
    mine = await tenant()
    await plan(mine, held("apps", 3))
    answers = await asyncio.gather(
        *(client.post("/v1/apps", json={"appId": fresh(), "name": str(number)}, headers=mine.bearer) for number in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 429, 429, 429]
    assert next(answer.json() for answer in answers if answer.status_code == 429) == {
        "error": "The plan allows 3 apps, and there are 3: delete one, or choose a larger plan."
    }
    refused = (await ask(client, mine, CREATE, slug=fresh()))["appCreate"]
    told = {"code": "QUOTA_EXCEEDED", "message": "The plan allows 3 apps, and there are 3: delete one, or choose a larger plan.", "path": None}
    quota = {"resource": "APPS", "window": "concurrent", "limit": 3, "used": 3, "remaining": 0, "percent": 100.0, "resetsAt": None}
    assert refused == {"app": None, "userErrors": [{**told, "upgradeUrl": f"{str(client.base_url).rstrip('/')}/billing", "quota": quota}]}
    first = (await client.get("/v1/apps", headers=mine.bearer)).json()[0]["appId"]
    assert (await client.delete(f"/v1/apps/{first}", headers=mine.bearer)).status_code == 204
    shown = (await ask(client, mine, "{ billing { quotas { resource limit used remaining } } }"))["billing"]["quotas"]
    assert {"resource": "APPS", "limit": 3, "used": 2, "remaining": 1} in shown
    assert (await ask(client, mine, CREATE, slug=fresh()))["appCreate"]["userErrors"] == []
    assert await database.fetch_value("SELECT count(*) FROM app WHERE workspace_id = $1 AND deleted_at IS NULL", mine.workspace_id) == 3


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ([held("hosted_sites", 2)], "The plan allows 2 hosted sites, and there are 2: delete one, or choose a larger plan."),
        (
            [held("web_host_nodes", 1), held("sites_per_node", 2)],
            "The plan allows 1 serving nodes of 2 sites, and they are full: delete a site, or choose a larger plan.",
        ),
    ],
    ids=["sites", "nodes"],
)
async def test_no_more_sites_than_the_plan_allows(client: httpx2.AsyncClient, limits: list[dict[str, object]], message: str) -> None:
    """The third site is refused before anything is kept, over REST and GraphQL; one that is live already is deployed again."""
    mine = await tenant()
    await plan(mine, *limits)
    first, second, third = [await make_app(client, mine) for _ in range(3)]
    for slug in (first, second):
        assert (await deploy(client, mine, slug, SITE)).status_code == 200
    refused = await deploy(client, mine, third, SITE)
    assert (refused.status_code, refused.json()) == (429, {"error": message})
    app = await database.fetch_value("SELECT id FROM app WHERE slug = $1", third)
    files = [{"path": "a", "bytes": 1, "sha256": "0" * 64}]
    told = (await ask(client, mine, documents()["S0_Deploy"], id=ids.encode("App", app), files=files))["deploymentCreate"]
    assert (told["deployment"], told["userErrors"][0]["code"], told["userErrors"][0]["message"]) == (None, "QUOTA_EXCEEDED", message)
    assert await database.fetch_value("SELECT count(*) FROM deployment WHERE app_id = $1", app) == 0
    assert (await deploy(client, mine, first, {"index.html": b"two"})).status_code == 200
    assert (await client.delete(f"/v1/apps/{second}", headers=mine.bearer)).status_code == 204
    assert (await deploy(client, mine, third, SITE)).status_code == 200


async def test_sites_at_once(client: httpx2.AsyncClient) -> None:
    """Of four first deployments at once as many go live as there is room for, exactly."""
    mine = await tenant()
    await plan(mine, held("hosted_sites", 2))
    slugs = [await make_app(client, mine) for _ in range(4)]
    answers = await asyncio.gather(*(deploy(client, mine, slug, SITE) for slug in slugs))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    live = await database.fetch_value("SELECT count(live_deployment_id) FROM app WHERE workspace_id = $1", mine.workspace_id)
    waiting = await database.fetch_value("SELECT count(*) FROM deployment WHERE workspace_id = $1 AND finished_at IS NULL", mine.workspace_id)
    assert (live, waiting) == (2, 0)


async def test_instances_sites_and_nodes(client: httpx2.AsyncClient) -> None:
    """Document 2: five apps are five instances, four of them live are four sites, and three sites on a node make two nodes of them."""
    mine = await tenant()
    slugs = [await make_app(client, mine) for _ in range(5)]
    for slug in slugs[:4]:
        assert (await deploy(client, mine, slug, {"index.html": b"x"})).status_code == 200

    async def usage() -> tuple[int, int, int, int | None, int | None]:
        told = (await client.get("/v1/billing", headers=mine.bearer)).json()["usage"]
        return (told["active_instances"], told["total_hosted_sites"], told["webhost_nodes"], told["instance_limit"], told["max_sites_per_node"])

    assert await usage() == (5, 4, 1, None, None)
    await plan(mine, held("apps", 7), held("sites_per_node", 3))
    assert await usage() == (5, 4, 2, 7, 3)
    for slug in slugs[2:]:
        await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)
    assert await usage() == (2, 2, 1, 7, 3)
    assert (await client.get("/v1/billing", headers=(await tenant()).bearer)).json()["usage"]["webhost_nodes"] == 0
