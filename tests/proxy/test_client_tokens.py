"""Client tokens on the inference roads: let in while they work, inside their bounds, and refused in the dialect's shape."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from domain.access import client_tokens, keys
from domain.access.callers import Caller
from domain.access.client_tokens import NewToken, TokenView
from domain.access.limits import BoundInput
from domain.apps import registry
from domain.apps.addresses import Addresses
from domain.apps.registry import AppChanges, AppView, NewApp
from models import database
from models.enums import Measure
from tests.conftest import SECRET
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio

SITES = Addresses("http", "localhost", 8000)
ORIGIN = "https://chat.example"
BODY: dict[str, Any] = {"model": "echo", "max_tokens": 20, "messages": [{"role": "user", "content": "Say it again."}]}


def as_key(of: Tenant) -> Caller:
    """The workspace's first key as a caller."""
    return Caller(at=datetime.now(UTC), workspace_id=of.workspace_id, name="key", scopes=of.key.scopes, key_id=of.key.id)


async def app_of(of: Tenant) -> AppView:
    """Register an app."""
    return await registry.create(of.caller(), NewApp(f"app-{uuid4().hex[:12]}", "App"))


async def minted(caller: Caller, **new: Any) -> tuple[TokenView, str]:
    """Make a token for ORIGIN."""
    made = await client_tokens.create(caller, NewToken(**({"allowed_origins": (ORIGIN,)} | new)), SITES)
    return made, client_tokens.sign(SECRET, made)


async def call(gateway: Gateway, token: str, origin: str | None = ORIGIN, path: str = "/v1/messages", **body: Any) -> httpx2.Response:
    """Call a model as a browser with a token."""
    headers = {"Authorization": f"Bearer {token}"} | ({"Origin": origin} if origin else {})
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        return await client.post(path, json=BODY | body, headers=headers)


async def test_a_token_calls_for_its_app(gateway: Gateway) -> None:
    """The call is the token's, the app's, the end user's and the key's; the token counts it."""
    of = await tenant(credit_microusd=1_000_000)
    app = await app_of(of)
    made, token = await minted(as_key(of), app_id=app.id, end_user="u1")
    for path in ("/v1/messages", "/v1/chat/completions"):
        answer = await call(gateway, token, path=path)
        assert answer.status_code == 200, answer.text
    rows = await database.fetch('SELECT client_token_id, app_id, end_user, key_id FROM "call" WHERE workspace_id = $1', of.workspace_id)
    assert [tuple(row) for row in rows] == [(made.id, app.id, "u1", of.key.id)] * 2
    assert (await client_tokens.find(of.caller(), made.id)).requests == 2
    assert await broken(of) == []


async def test_a_persons_token_calls(gateway: Gateway) -> None:
    """A token that a signed-in person made calls as that person, for as long as it is a member."""
    of = await tenant(credit_microusd=1_000_000)
    made, token = await minted(of.caller())
    assert (await call(gateway, token)).status_code == 200
    row = await database.fetch_row('SELECT client_token_id, key_id, user_id FROM "call" WHERE workspace_id = $1', of.workspace_id)
    assert row is not None
    assert tuple(row) == (made.id, None, of.owner.user_id)
    await database.fetch("UPDATE member SET removed_at = now() WHERE workspace_id = $1", of.workspace_id)
    assert (await call(gateway, token)).status_code == 401


async def test_what_stops_a_token(gateway: Gateway) -> None:
    """Revoked itself, or with its app or its key, it fails on its next request with 401; switched off with its app, 403."""
    of = await tenant(credit_microusd=1_000_000)
    app, other = await app_of(of), await app_of(of)
    one, first = await minted(as_key(of))
    _, second = await minted(as_key(of), app_id=app.id)
    _, third = await minted(as_key(of), app_id=other.id)
    _, last = await minted(as_key(of))
    for token in (first, second, third, last):
        assert (await call(gateway, token)).status_code == 200
    await client_tokens.revoke_one(of.caller(), one.id)
    refused = await call(gateway, first)
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    await registry.update(of.caller(), app.id, AppChanges(suspended=True))
    assert (await call(gateway, second)).status_code == 403
    await client_tokens.revoke_of_app(of.caller(), app.id)
    await registry.update(of.caller(), app.id, AppChanges(suspended=False))
    assert (await call(gateway, second)).status_code == 401
    await registry.delete(of.caller(), other.id)
    assert (await call(gateway, third)).status_code == 401
    await keys.revoke(of.caller(), of.key.id)
    assert (await call(gateway, last)).status_code == 401
    await database.fetch("UPDATE client_token SET created_at = now() - interval '20 minutes', expires_at = now() - interval '10 minutes' WHERE id = $1", one.id)
    assert (await call(gateway, first)).status_code == 401


async def test_caps_of_money(gateway: Gateway) -> None:
    """A cap of nothing, the token's or the app's, lets no call that costs something in: 429, and nothing is held or spent."""
    of = await tenant(credit_microusd=1_000_000)
    app = await app_of(of)
    made, token = await minted(as_key(of), spend_cap_microusd=0)
    assert (await call(gateway, token, model="claude-haiku-5-5")).status_code == 429
    refused = await call(gateway, token)
    assert (refused.status_code, refused.json()["error"]["message"][:10]) == (429, "The budget")
    await registry.update(of.caller(), app.id, AppChanges(budgets=(BoundInput(Measure.MONEY, "day", 0),)))
    _, bound = await minted(as_key(of), app_id=app.id)
    assert (await call(gateway, bound, model="claude-haiku-5-5")).status_code == 429
    assert (await client_tokens.find(of.caller(), made.id)).spent_microusd == 0
    assert (await of.balance()).held == 0
    assert await broken(of) == []


async def test_what_a_token_may_not(gateway: Gateway) -> None:
    """Another origin, none, another model: 403; a call more than its cap: 429; a forged one, and one of another kind: 401."""
    of = await tenant(credit_microusd=1_000_000)
    made, token = await minted(as_key(of), request_cap=1)
    for origin in (None, "https://evil.example", "null"):
        assert (await call(gateway, token, origin)).status_code == 403
    assert (await call(gateway, token[:-3] + "AAA")).status_code == 401
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        headers = {"Authorization": f"Bearer {client_tokens.named(client_tokens.Claims(made.id, of.workspace_id))}", "Origin": ORIGIN}
        assert (await client.post("/v1/messages", json=BODY, headers=headers)).status_code == 401
        headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN, "Idempotency-Key": "k"}
        assert (await client.post("/v1/messages", json=BODY, headers=headers)).status_code == 400
    assert (await call(gateway, token)).status_code == 200
    assert (await call(gateway, token)).status_code == 429
    _, narrow = await minted(as_key(of), allowed_models=())
    assert (await call(gateway, narrow)).status_code == 403
