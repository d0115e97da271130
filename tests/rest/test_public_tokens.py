"""Public tokens: what visitors of an app get without a back end, and everything that keeps it small (F39)."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx2
import pytest

from domain.access import client_tokens, keys
from domain.access.callers import Caller
from domain.apps import registry
from domain.apps.registry import AppChanges
from domain.errors import Forbidden
from models import database
from models.enums import Scope
from tests.conftest import SECRET
from tests.proxy.test_client_tokens import BODY
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio


async def registered(client: httpx2.AsyncClient, of: Tenant, bearer: dict[str, str] | None = None, **manifest: Any) -> tuple[str, str]:
    """Register an app with a manifest; return its id and its own origin."""
    slug = f"app-{uuid4().hex[:12]}"
    assert (await client.post("/v1/apps", json={"appId": slug, "name": "App"}, headers=of.bearer)).status_code == 201
    if manifest:
        changed = await client.put(f"/v1/apps/{slug}", json={"manifest": manifest}, headers=bearer or of.bearer)
        assert changed.status_code == 200, changed.text
    return slug, f"http://{slug}.localhost:{urlsplit(str(client.base_url)).port}"


async def ask(client: httpx2.AsyncClient, slug: str, origin: str | None, method: str = "POST", **headers: str) -> httpx2.Response:
    """Ask for a token as a page does: without a credential, and without a body."""
    fields = ({} if origin is None else {"Origin": origin}) | {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.request(method, f"/v1/apps/{slug}/tokens", headers=fields)


async def tokens_of(of: Tenant) -> int:
    """How many tokens a workspace has made."""
    found: int = await database.fetch_value("SELECT count(*) FROM client_token WHERE workspace_id = $1", of.workspace_id)
    return found


async def test_a_visitor_gets_a_token_and_calls(client: httpx2.AsyncClient) -> None:
    """200 with `token` and `expiresAt`, bound to the asking page's origin, with the manifest's models and caps; it calls, and the call is the app's."""
    of = await tenant(credit_microusd=1_000_000)
    there = "https://chat.example"
    slug, own = await registered(
        client, of, publicTokens=True, allowedOrigins=[there], models=["echo"], caps={"spendCapMicrousd": 5000, "requestCap": 1}
    )
    for origin in (own, there):
        made = await ask(client, slug, origin)
        assert (made.status_code, set(made.json())) == (200, {"token", "expiresAt"}), made.text
        assert made.headers["access-control-allow-origin"] == origin
        assert "ratelimit" in made.headers
        assert made.headers["cache-control"] == "no-store"
        said = client_tokens.read(SECRET, made.json()["token"], datetime.now(UTC))
        row = await database.fetch_row("SELECT * FROM client_token WHERE workspace_id = $1 AND id = $2", of.workspace_id, said.id)
        assert row is not None
        assert (row["allowed_origins"], row["allowed_models"], row["spend_cap"], row["request_cap"], row["key_id"]) == ([origin], ["echo"], 5000, 1, of.key.id)
    for status in (200, 429):
        call = await client.post("/v1/chat/completions", json=BODY, headers={"Authorization": f"Bearer {made.json()['token']}", "Origin": there})
        assert (call.status_code, call.headers["access-control-allow-origin"]) == (status, there)
    app_id = await database.fetch_value('SELECT app_id FROM "call" WHERE workspace_id = $1', of.workspace_id)
    assert app_id == (await registry.named(of.caller(), slug)).id
    traces = await database.fetch("SELECT action FROM audit_event WHERE workspace_id = $1 AND action LIKE 'clientToken.%'", of.workspace_id)
    assert traces == []
    assert await broken(of) == []


async def test_it_is_off_until_the_manifest_says_so(client: httpx2.AsyncClient) -> None:
    """Off by default and after a change back: 403 that the app's pages can read; `publicTokens` is a boolean; an unknown app is 404."""
    of = await tenant()
    slug, own = await registered(client, of)
    for manifest in ({}, {"publicTokens": False}, {"publicTokens": True}, {"entry": "a.html"}):
        assert (await client.put(f"/v1/apps/{slug}", json={"manifest": manifest}, headers=of.bearer)).status_code == 200
        answer = await ask(client, slug, own)
        assert answer.status_code == (200 if manifest.get("publicTokens") else 403)
        assert answer.headers["access-control-allow-origin"] == own
    assert (await client.put(f"/v1/apps/{slug}", json={"manifest": {"publicTokens": "yes"}}, headers=of.bearer)).status_code == 400
    unknown = await ask(client, f"none-{uuid4().hex[:12]}", own)
    assert (unknown.status_code, set(unknown.json())) == (404, {"error"})
    assert "access-control-allow-origin" not in unknown.headers
    assert await tokens_of(of) == 1


async def test_only_pages_of_the_app_may_ask(client: httpx2.AsyncClient) -> None:
    """A page of another origin, another app's, one without any: 403, nothing to read, no token; preflights pass for the app's own origins exactly."""
    of = await tenant()
    slug, own = await registered(client, of, publicTokens=True, allowedOrigins=["https://chat.example"])
    _, others = await registered(client, of, publicTokens=True)
    for origin in (None, others, "https://evil.example", "null", "https://chat.example.evil.example"):
        refused = await ask(client, slug, origin)
        assert (refused.status_code, set(refused.json())) == (403, {"error"})
        assert "access-control-allow-origin" not in refused.headers
        if origin is not None:
            assert (await ask(client, slug, origin, "OPTIONS", Access_Control_Request_Method="POST")).status_code == 403
    for origin in (own, "https://chat.example"):
        passed = await ask(client, slug, origin, "OPTIONS", Access_Control_Request_Method="POST", Access_Control_Request_Headers="content-type")
        assert (passed.status_code, passed.headers["access-control-allow-origin"], passed.headers["access-control-allow-methods"]) == (204, origin, "POST")
        assert "access-control-allow-credentials" not in passed.headers
    assert (await ask(client, slug, own, "GET")).status_code == 405
    assert await tokens_of(of) == 0


async def test_an_address_gets_a_few(client: httpx2.AsyncClient, gateway: Gateway) -> None:
    """Thirty at once for one address, then 429 with when to come again, which the page can read; other apps are not touched."""
    of = await tenant()
    slug, own = await registered(client, of, publicTokens=True)
    made = 0
    while (refused := await ask(client, slug, own)).status_code == 200:
        made += 1
    assert (refused.status_code, made >= 30) == (429, True)
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert refused.headers["access-control-allow-origin"] == own
    assert await tokens_of(of) == made
    other, there = await registered(client, of, publicTokens=True)
    assert (await ask(client, other, there)).status_code == 200


async def test_what_stops_them(client: httpx2.AsyncClient) -> None:
    """The kill switch, the end of who switched them on, and the app's: no token any more, and those that are out stop at once."""
    of = await tenant(credit_microusd=1_000_000)
    key, secret = await of.mint(name="deploys", scopes=frozenset({Scope.APPS_WRITE, Scope.APPS_READ, Scope.CLIENT_TOKENS_WRITE, Scope.INFERENCE}))
    slug, own = await registered(client, of, {"Authorization": f"Bearer {secret}"}, publicTokens=True)
    app = await registry.named(of.caller(), slug)
    token = (await ask(client, slug, own)).json()["token"]

    async def calls() -> int:
        return (await client.post("/v1/messages", json=BODY, headers={"Authorization": f"Bearer {token}", "Origin": own})).status_code

    assert await calls() == 200
    await registry.update(of.caller(), app.id, AppChanges(suspended=True))
    assert ((await ask(client, slug, own)).status_code, await calls()) == (403, 403)
    await registry.update(of.caller(), app.id, AppChanges(suspended=False))
    assert ((await ask(client, slug, own)).status_code, await calls()) == (200, 200)
    await keys.revoke(of.caller(), key.id)
    assert ((await ask(client, slug, own)).status_code, await calls()) == (403, 401)
    await registry.update(of.caller(), app.id, AppChanges(manifest={"publicTokens": True}))  # now it stands on the owner
    token = (await ask(client, slug, own)).json()["token"]
    assert await calls() == 200
    await registry.delete(of.caller(), app.id)
    assert ((await ask(client, slug, own)).status_code, await calls()) == (404, 401)


async def test_they_are_never_wider_than_who_switched_them_on(client: httpx2.AsyncClient) -> None:
    """A key's models hold for what its app hands out, and a key that may not make tokens cannot switch them on; nothing is changed then."""
    of = await tenant(credit_microusd=1_000_000)
    scopes = frozenset({Scope.APPS_WRITE, Scope.APPS_READ, Scope.INFERENCE})
    _, without = await of.mint(name="without", scopes=scopes)
    _, narrow = await of.mint(name="narrow", scopes=scopes | {Scope.CLIENT_TOKENS_WRITE}, allowed_models=("claude-haiku-5-5",))
    slug, own = await registered(client, of)
    body = {"manifest": {"publicTokens": True}}
    assert (await client.put(f"/v1/apps/{slug}", json=body, headers={"Authorization": f"Bearer {without}"})).status_code == 403
    assert (await registry.named(of.caller(), slug)).manifest == {}
    assert (await client.put(f"/v1/apps/{slug}", json=body, headers={"Authorization": f"Bearer {narrow}"})).status_code == 200
    token = (await ask(client, slug, own)).json()["token"]
    refused = await client.post("/v1/messages", json=BODY, headers={"Authorization": f"Bearer {token}", "Origin": own})
    assert refused.status_code == 403


async def test_an_app_that_was_given_away(client: httpx2.AsyncClient) -> None:
    """After a transfer its tokens stand on the person who gave it, and are paid by the new workspace."""
    of, to = await tenant(), await tenant(credit_microusd=1_000_000)
    slug, own = await registered(client, of, publicTokens=True)
    app = await registry.named(of.caller(), slug)
    assert of.owner.user_id is not None
    await _join(to, of.owner.user_id)
    await registry.transfer(of.caller(), app.id, to.workspace_id)
    token = (await ask(client, slug, own)).json()["token"]
    assert (await client.post("/v1/messages", json=BODY, headers={"Authorization": f"Bearer {token}", "Origin": own})).status_code == 200
    assert await tokens_of(of) == 0
    assert await tokens_of(to) == 1


async def _join(to: Tenant, user_id: UUID) -> None:
    await database.fetch(
        """
        INSERT INTO member (id, workspace_id, user_id, role, joined_at, created_at) VALUES ($1, $2, $3, 'admin', now(), now())
        """,
        uuid4(),
        to.workspace_id,
        user_id,
    )


async def test_a_key_of_elsewhere_cannot_stand_for_them(books: object) -> None:
    """An operator's key of another workspace is refused: what it switched on would stand on nobody."""
    of, other = await tenant(), await tenant()
    app = await registry.create(of.caller(), registry.NewApp(f"app-{uuid4().hex[:12]}", "App"))
    operator = Caller(at=datetime.now(UTC), workspace_id=of.workspace_id, name="operator", scopes=frozenset(Scope), key_id=other.key.id)
    with pytest.raises(Forbidden):
        await registry.update(operator, app.id, AppChanges(manifest={"publicTokens": True}))
