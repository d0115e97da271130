"""What a manifest says of an app's visitors is enforced by the tokens that are made for the app: origins, models and caps."""

from typing import Any

import httpx2
import pytest

from models import database
from tests.apps.deploying import make_app
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio

ALLOWED = "https://chat.example"
BODY: dict[str, Any] = {"model": "echo", "max_tokens": 20, "messages": [{"role": "user", "content": "Say it again."}]}


async def manifested(client: httpx2.AsyncClient, mine: Tenant, manifest: dict[str, Any]) -> str:
    """An app with a manifest."""
    slug = await make_app(client, mine)
    assert (await client.put(f"/v1/apps/{slug}", json={"manifest": manifest}, headers=mine.bearer)).status_code == 200
    return slug


async def token(client: httpx2.AsyncClient, mine: Tenant, slug: str) -> str:
    """A token for an app, as its maker's back end gets one."""
    made = await client.post("/v1/client-tokens", json={"appId": slug}, headers=mine.bearer)
    assert made.status_code == 200, made.text
    return str(made.json()["token"])


async def call(client: httpx2.AsyncClient, with_token: str, origin: str = ALLOWED, **body: Any) -> int:
    """The status of a visitor's call."""
    answer = await client.post("/v1/messages", json=BODY | body, headers={"Authorization": f"Bearer {with_token}", "Origin": origin})
    return answer.status_code


async def test_origins_of_the_manifest(client: httpx2.AsyncClient) -> None:
    """`allowedOrigins` and the app's own origin may call, and no other; a manifest without it leaves the app's own alone."""
    mine = await tenant(credit_microusd=1_000_000)
    slug = await manifested(client, mine, {"allowedOrigins": [ALLOWED]})
    plain = await make_app(client, mine)
    first, second = await token(client, mine, slug), await token(client, mine, plain)
    own = await _origins(mine)
    assert [await call(client, first, origin) for origin in (ALLOWED, own[slug])] == [200, 200]
    assert await call(client, second, own[plain]) == 200
    for with_token, origin in ((first, own[plain]), (first, f"{ALLOWED}.evil.example"), (second, ALLOWED), (first, "null"), (first, "http://chat.example")):
        assert await call(client, with_token, origin) == 403, origin
    rows = await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1', mine.workspace_id)
    assert rows == 3


async def _origins(mine: Tenant) -> dict[str, str]:
    """The own origin of each app, which a token without any in the manifest has alone."""
    rows = await database.fetch(
        "SELECT a.slug, t.allowed_origins[1] AS origin FROM client_token t JOIN app a ON a.id = t.app_id WHERE t.workspace_id = $1", mine.workspace_id
    )
    return {row["slug"]: row["origin"] for row in rows}


async def test_models_of_the_manifest(client: httpx2.AsyncClient) -> None:
    """`models` is all that a visitor may call; an empty list is none at all; a new manifest holds for the tokens that are made from then on."""
    mine = await tenant(credit_microusd=1_000_000)
    slug = await manifested(client, mine, {"allowedOrigins": [ALLOWED], "models": ["echo"]})
    first = await token(client, mine, slug)
    assert (await call(client, first), await call(client, first, model="claude-haiku-5-5")) == (200, 403)
    assert (await client.put(f"/v1/apps/{slug}", json={"manifest": {"allowedOrigins": [ALLOWED], "models": []}}, headers=mine.bearer)).status_code == 200
    second = await token(client, mine, slug)
    assert (await call(client, second), await call(client, first)) == (403, 200)


async def test_caps_of_the_manifest(client: httpx2.AsyncClient) -> None:
    """`requestCap` calls of one token are let in and no more, `spendCapMicrousd` is never passed; another token begins anew; nothing stays held."""
    mine = await tenant(credit_microusd=1_000_000)
    slug = await manifested(client, mine, {"allowedOrigins": [ALLOWED], "caps": {"requestCap": 2}})
    first, second = await token(client, mine, slug), await token(client, mine, slug)
    assert [await call(client, first) for _ in range(3)] == [200, 200, 429]
    assert await call(client, second) == 200
    poor = await manifested(client, mine, {"allowedOrigins": [ALLOWED], "caps": {"spendCapMicrousd": 1}})
    assert await call(client, await token(client, mine, poor), model="claude-haiku-5-5") == 429
    spent = await database.fetch_value(
        "SELECT coalesce(sum(e.charge_microusd), 0) FROM usage_event e JOIN app a ON a.id = e.app_id WHERE a.slug = $1", poor
    )
    assert spent == 0
    assert (await mine.balance()).held == 0
    assert await broken(mine) == []
