"""What an owner holds an app to, and takes away from it, as the next inference call of a browser feels it: caps, the kill switch, revocations (F39)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.access import client_tokens
from domain.apps.registry import AppView
from models import database
from schema import ids
from tests.conftest import SECRET
from tests.proxy.test_client_tokens import BODY, ORIGIN, app_of, as_key, minted
from tests.schema.test_operations import documents
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a credential."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as opened:
        yield opened


async def call(client: httpx2.AsyncClient, token: str, **body: Any) -> httpx2.Response:
    """Call a model as a page does, and make sure that the page can read what is answered."""
    answer = await client.post("/v1/messages", json=BODY | body, headers={"Authorization": f"Bearer {token}", "Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    return answer


async def operate(client: httpx2.AsyncClient, of: Tenant, name: str, **variables: Any) -> dict[str, Any]:
    """Run an operation of the contract as the workspace's key, and return what its only field answers."""
    body = {"query": documents()[name], "variables": variables}
    told = (await client.post("/graphql", json=body, headers=of.bearer)).json()
    (payload,) = told["data"].values()
    assert payload["userErrors"] == []
    result: dict[str, Any] = payload
    return result


async def shift(of: Tenant, app: AppView, measure: str, spent: int, ends: str = "1 hour") -> None:
    """Set what the window of an app's only bound of a measure has spent, and when it ends."""
    moved = await database.fetch(
        f"""
        UPDATE bound_window w SET spent = $4, ends_at = clock_timestamp() + interval '{ends}' FROM bound b
         WHERE b.workspace_id = $1 AND b.subject_id = $2 AND b.measure = $3 AND b.removed_at IS NULL AND w.workspace_id = b.workspace_id AND w.bound_id = b.id
        RETURNING w.bound_id
        """,
        of.workspace_id,
        app.id,
        measure,
        spent,
    )
    assert len(moved) == 1


async def test_an_app_s_day_is_capped_from_the_start(client: httpx2.AsyncClient) -> None:
    """Of 5 USD a day that nobody had to set, what is left limits the answer; when nothing is, every token of the app gets 429 until the next day; other
    tokens go on (F3)."""
    of = await tenant(credit_microusd=50_000_000)
    app = await app_of(of)
    (_, one), (_, two), (_, other) = await minted(as_key(of), app_id=app.id), await minted(as_key(of), app_id=app.id), await minted(as_key(of))
    assert (await call(client, one)).status_code == 200
    await shift(of, app, "money", 4_999_980)
    shortened = await call(client, one, max_tokens=1000)
    assert (shortened.status_code, 0 < int(shortened.headers["x-max-tokens-clamped"]) < 1000) == (200, True)
    await shift(of, app, "money", 5_000_000)
    for token in (one, two):
        refused = await call(client, token)
        assert (refused.status_code, refused.json()["error"]["message"][:10]) == (429, "The budget")
    assert (await call(client, other)).status_code == 200
    await shift(of, app, "money", 5_000_000, ends="-1 second")
    assert (await call(client, two)).status_code == 200
    assert await broken(of) == []


async def test_an_address_is_limited_from_the_start(client: httpx2.AsyncClient) -> None:
    """Sixty calls a minute of one address, over all tokens of the app, that nobody had to set: the next is 429 with Retry-After."""
    of = await tenant(credit_microusd=1_000_000)
    app = await app_of(of)
    (_, one), (_, two) = await minted(as_key(of), app_id=app.id), await minted(as_key(of), app_id=app.id)
    assert (await call(client, one)).status_code == 200
    await shift(of, app, "calls", 59, ends="50 seconds")
    assert (await call(client, two)).status_code == 200
    refused = await call(client, one)
    assert (refused.status_code, 0 < int(refused.headers["retry-after"]) <= 51) == (429, True)


async def test_caps_that_the_owner_sets_hold_at_once(client: httpx2.AsyncClient) -> None:
    """AppCaps: its lists replace the defaults, and the very next call is held to them."""
    of = await tenant(credit_microusd=1_000_000)
    app = await app_of(of)
    _, token = await minted(as_key(of), app_id=app.id, end_user="u1")
    assert (await call(client, token)).status_code == 200
    await operate(client, of, "AppCaps", id=ids.encode("App", app.id))
    assert (await call(client, token)).status_code == 200
    await shift(of, app, "calls", 20, ends="50 seconds")
    assert (await call(client, token)).status_code == 429


async def test_an_end_user_is_held_from_the_very_first_call(client: httpx2.AsyncClient) -> None:
    """F2: a limit of three calls a day for each end user lets exactly three of twelve first calls at once of one who was never seen through; another has
    three of their own."""
    of = await tenant(credit_microusd=1_000_000)
    app = await app_of(of)
    limits = """mutation ($id: ID!) { appUpdate(input: { id: $id, limits: [{ resource: API_CALLS, window: "day", limit: 3, per: END_USER }] }) {
        app { limits { resource window limit per } } userErrors { code } } }"""
    told = (await client.post("/graphql", json={"query": limits, "variables": {"id": ids.encode("App", app.id)}}, headers=of.bearer)).json()["data"]["appUpdate"]
    assert told == {"app": {"limits": [{"resource": "API_CALLS", "window": "day", "limit": 3, "per": "END_USER"}]}, "userErrors": []}
    _, token = await minted(as_key(of), app_id=app.id, end_user="never-seen")
    _, other = await minted(as_key(of), app_id=app.id, end_user="nor-this-one")
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*(call(client, token) for _ in range(12))))
    assert statuses == [200] * 3 + [429] * 9
    assert [(await call(client, other)).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert await broken(of) == []


async def test_the_kill_switch(client: httpx2.AsyncClient) -> None:
    """AppKill: every token of the app is refused with 403 from the next call on, streamed or not, and nothing is held; no other app notices."""
    of = await tenant(credit_microusd=1_000_000)
    app, other = await app_of(of), await app_of(of)
    (_, token), (_, beside) = await minted(as_key(of), app_id=app.id), await minted(as_key(of), app_id=other.id)
    assert (await call(client, token)).status_code == 200
    assert (await operate(client, of, "AppKill", id=ids.encode("App", app.id)))["app"]["suspendedAt"]
    for stream in (False, True):
        refused = await call(client, token, stream=stream)
        assert (refused.status_code, refused.json()["error"]["message"]) == (403, "The app of this client token is switched off by its owner.")
    assert (await call(client, beside)).status_code == 200
    assert (await of.balance()).held == 0
    assert await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1 AND app_id = $2', of.workspace_id, app.id) == 1


REVOKE = "mutation ($input: ClientTokenRevokeInput!) { clientTokenRevoke(input: $input) { revokedCount userErrors { message } } }"


@pytest.mark.parametrize("by", ["id", "appId", "apiKeyId"])
async def test_revoked_at_once(client: httpx2.AsyncClient, by: str) -> None:
    """By id, by app or by key: the very next call is 401, and the tokens that were not meant go on."""
    of = await tenant(credit_microusd=1_000_000)
    app = await app_of(of)
    made, meant = await minted(as_key(of), app_id=app.id)
    _, spared = await minted(of.caller())  # of a person, for no app
    assert [(await call(client, token)).status_code for token in (meant, spared)] == [200, 200]
    named: dict[str, tuple[str, UUID]] = {"id": ("ClientToken", made.id), "appId": ("App", app.id), "apiKeyId": ("ApiKey", of.key.id)}
    body = {"query": REVOKE, "variables": {"input": {by: ids.encode(*named[by])}}}
    told = (await client.post("/graphql", json=body, headers=of.bearer)).json()
    assert told["data"]["clientTokenRevoke"] == {"revokedCount": 1, "userErrors": []}
    assert [(await call(client, token)).status_code for token in (meant, spared)] == [401, 200]
    assert client_tokens.opens_to(SECRET, meant, ORIGIN)
