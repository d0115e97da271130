"""Client tokens over GraphQL: the operations of the contract, and what they refuse."""

from datetime import UTC, datetime
from typing import Any

import pytest

from domain.access import client_tokens
from domain.access.callers import Caller
from domain.access.client_tokens import NewToken
from domain.apps.addresses import Addresses
from domain.errors import MissingScope, NotFound, OutOfRange, WiderThanCaller
from models import database
from models.enums import Scope
from tests.schema.serving import Served
from tests.schema.test_apps import make
from tests.schema.test_operations import instant, run
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

SITES = Addresses("http", "localhost", 8000)
LISTED = """query ($slug: Slug!) { app(slug: $slug) { clientTokens(first: 10) { totalCount nodes { id app { slug } allowedOrigins allowedModels { name }
  spendCap { microUsd } spent { microUsd } requestCap requests createdAt expiresAt revokedAt createdBy { kind } } } } }"""
REVOKE = "mutation ($input: ClientTokenRevokeInput!) { clientTokenRevoke(input: $input) { revokedCount userErrors { code message path } } }"


def as_key(of: Tenant, *without: Scope) -> Caller:
    """The workspace's first key as a caller."""
    return Caller(at=datetime.now(UTC), workspace_id=of.workspace_id, name="key", scopes=of.key.scopes - frozenset(without), key_id=of.key.id)


async def test_tokens_are_made_listed_and_revoked(served: Served) -> None:
    """S0_ClientToken, ClientTokenBounded, ClientTokenRevoke: a token is listed with its app while it works, and revoked at once."""
    owner, other = await served.owner(), await served.owner()
    app_id, slug = await make(served, owner)
    await served.offer("auto", input_usd="1", output_usd="2")
    plain = (await run(served, "S0_ClientToken", owner.session, app=app_id))["clientTokenCreate"]
    assert plain["userErrors"] == []
    bounded = (await run(served, "ClientTokenBounded", owner.session, app=app_id))["clientTokenCreate"]
    assert bounded["userErrors"] == []
    assert bounded["token"].count(".") == 2

    page = (await served.ask(LISTED, credential=owner.session, slug=slug)).data["app"]["clientTokens"]
    assert page["totalCount"] == 2
    told: dict[str, Any] = page["nodes"][0]
    assert told["id"] == bounded["clientToken"]["id"]
    assert (told["app"], told["allowedOrigins"], told["allowedModels"]) == ({"slug": slug}, ["https://my-app.example"], [{"name": "auto"}])
    assert (told["spendCap"], told["spent"], told["requestCap"], told["requests"]) == ({"microUsd": 100_000}, {"microUsd": 0}, 50, 0)
    assert (instant(told["expiresAt"]) - instant(told["createdAt"])).total_seconds() == 600
    assert (told["revokedAt"], told["createdBy"]) == (None, {"kind": "USER"})

    foreign = (await served.ask(REVOKE, credential=other.session, input={"id": told["id"]})).data["clientTokenRevoke"]
    assert (foreign["revokedCount"], foreign["userErrors"][0]["code"]) == (None, "NOT_FOUND")
    assert (await run(served, "ClientTokenRevoke", other.session, app=app_id))["clientTokenRevoke"]["userErrors"][0]["code"] == "NOT_FOUND"
    assert (await run(served, "S0_ClientToken", other.session, app=app_id))["clientTokenCreate"]["userErrors"][0]["code"] == "NOT_FOUND"
    for expected in (1, 0):
        one = (await served.ask(REVOKE, credential=owner.session, input={"id": told["id"]})).data["clientTokenRevoke"]
        assert one == {"revokedCount": expected, "userErrors": []}
    assert (await run(served, "ClientTokenRevoke", owner.session, app=app_id))["clientTokenRevoke"] == {"revokedCount": 1, "userErrors": []}
    assert (await served.ask(LISTED, credential=owner.session, slug=slug)).data["app"]["clientTokens"] == {"totalCount": 0, "nodes": []}


async def test_a_token_for_an_end_user_without_a_name_is_refused(served: Served) -> None:
    """An empty `endUserId` is a fault of the back end that sends it: no token is made, which could name any end user."""
    owner = await served.owner()
    app_id, _ = await make(served, owner)
    asked = "mutation ($app: ID) { clientTokenCreate(input: { appId: $app, endUserId: \"\" }) { token userErrors { code path } } }"
    told = (await served.ask(asked, credential=owner.session, app=app_id)).data["clientTokenCreate"]
    assert told == {"token": None, "userErrors": [{"code": "INVALID", "path": ["input", "endUserId"]}]}


async def test_a_token_is_never_wider_than_its_key(books: None) -> None:
    """Origins and models outside the calling key's are refused, absent ones become the key's; revoking by key finds its tokens; it is audited."""
    of = await tenant(allowed_models=("echo",), allowed_origins=("https://a.example",))
    caller = as_key(of)
    for wider in (NewToken(allowed_models=("auto",)), NewToken(allowed_origins=("https://b.example",))):
        with pytest.raises(WiderThanCaller):
            await client_tokens.create(caller, wider, SITES, offered=("auto", "echo"))
    made = await client_tokens.create(caller, NewToken(), SITES)
    assert (made.allowed_models, made.allowed_origins, made.key_id) == (("echo",), ("https://a.example",), of.key.id)
    stranger = await tenant()
    with pytest.raises(NotFound):
        await client_tokens.revoke_of_key(as_key(stranger), of.key.id)
    with pytest.raises(NotFound):
        await client_tokens.revoke_one(as_key(stranger), made.id)
    with pytest.raises(NotFound):
        await client_tokens.find(as_key(stranger), made.id)
    assert await client_tokens.revoke_of_key(caller, of.key.id) == 1
    assert (await client_tokens.find(caller, made.id)).revoked_at is not None
    rows = await database.fetch("SELECT action FROM audit_event WHERE workspace_id = $1 AND action LIKE 'clientToken.%' ORDER BY id", of.workspace_id)
    assert [row["action"] for row in rows] == ["clientToken.create", "clientToken.revoke"]


async def test_what_is_out_of_range_makes_no_token(books: None) -> None:
    """Five to fifteen minutes, a cap of calls of at least one, a scope: anything else is refused, and nothing is written."""
    of = await tenant()
    for bad in (NewToken(seconds=299), NewToken(seconds=901), NewToken(request_cap=0), NewToken(spend_cap_microusd=-1)):
        with pytest.raises(OutOfRange):
            await client_tokens.create(as_key(of), bad, SITES)
    with pytest.raises(NotFound):
        await client_tokens.create(as_key(of), NewToken(allowed_models=("nobody",)), SITES)
    with pytest.raises(MissingScope):
        await client_tokens.create(as_key(of, Scope.CLIENT_TOKENS_WRITE), NewToken(), SITES)
    assert await database.fetch_value("SELECT count(*) FROM client_token WHERE workspace_id = $1", of.workspace_id) == 0


async def test_tokens_that_are_over_are_let_go(served: Served) -> None:
    """A day after its end one that was never used goes, with its caps; one that was used goes with the calls that name it; one that works, or has work, stays."""
    of = await tenant()
    now = datetime.now(UTC)
    made = {name: (await client_tokens.create(as_key(of), NewToken(spend_cap_microusd=5), SITES)).id for name in ("works", "unused", "used", "busy")}
    for name in ("used", "busy"):
        counts = (0, 1) if name == "busy" else (1, 0)
        window = "INSERT INTO bound_window (workspace_id, bound_id, scope, spent, held) SELECT workspace_id, id, '', $2, $3 FROM bound WHERE subject_id = $1"
        await database.fetch(window, made[name], *counts)
    old = "UPDATE client_token SET created_at = created_at - interval '2 days', expires_at = expires_at - interval '2 days' WHERE workspace_id = $1 AND id <> $2"
    await database.fetch(old, of.workspace_id, made["works"])

    async def left() -> set[str]:
        await client_tokens.retire(now)
        rows = await database.fetch("SELECT id FROM client_token WHERE workspace_id = $1", of.workspace_id)
        caps = await database.fetch("SELECT subject_id FROM bound WHERE workspace_id = $1 AND subject_kind = 'client_token'", of.workspace_id)
        assert sorted(row["subject_id"] for row in caps) == sorted(2 * [row["id"] for row in rows])
        names = {id_: name for name, id_ in made.items()}
        return {names[row["id"]] for row in rows}

    assert await left() == {"works", "used", "busy"}
    sums = await database.fetch("SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'usage_retired' AND data_type IN ('bigint', 'numeric')")
    names = ", ".join(row["name"] for row in sums)
    await database.fetch(
        f"INSERT INTO usage_retired (workspace_id, mode, before, {names}) VALUES ($1, 'live', $2{', 0' * len(sums)})", of.workspace_id, now
    )
    assert await left() == {"works", "busy"}
