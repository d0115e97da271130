"""Document 4's tenant routes, field for field, against a running gateway."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from domain.access.secrets import well_formed
from models.enums import ApiKeyKind, Scope
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

FIELDS = {"id", "name", "kind", "prefix", "suffix", "status", "created_at", "last_used_at", "expires_at"}


async def test_a_key_is_minted_fetched_listed_and_revoked(client: httpx2.AsyncClient) -> None:
    """The secret is answered once and nowhere else; a revoked key is refused on its next request."""
    mine = await tenant()
    made = await client.post("/tenant/keys", json={"name": "laptop"}, headers=mine.bearer)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    minted = made.json()
    secret = minted.pop("key")
    assert well_formed(secret)
    assert set(minted) == FIELDS
    told = {name: minted[name] for name in ("name", "kind", "prefix", "suffix", "status", "last_used_at", "expires_at")}
    assert told == {
        "name": "laptop",
        "kind": "pay_per_token",
        "prefix": secret[:8],
        "suffix": secret[-4:],
        "status": "active",
        "last_used_at": None,
        "expires_at": None,
    }
    fresh = {"Authorization": f"Bearer {secret}"}
    found = await client.get(f"/tenant/keys/{minted['id']}", headers=mine.bearer)
    assert (found.status_code, found.json()) == (200, minted)
    listed = (await client.get("/tenant/keys", headers=mine.bearer)).json()
    assert set(listed) == {"data"}
    assert [set(row) for row in listed["data"]] == [FIELDS, FIELDS]
    assert listed["data"][0] == minted
    used = (await client.get(f"/tenant/keys/{minted['id']}", headers=fresh)).json()
    assert used.pop("last_used_at").endswith("Z")
    assert used == {name: value for name, value in minted.items() if name != "last_used_at"}

    assert (await client.delete(f"/tenant/keys/{minted['id']}", headers=mine.bearer)).status_code == 204
    refused = await client.get("/tenant/keys", headers=fresh)
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"
    again = await client.delete(f"/tenant/keys/{minted['id']}", headers=mine.bearer)
    assert again.status_code == 204, "revoking twice is no error"
    assert (await client.get(f"/tenant/keys/{minted['id']}", headers=mine.bearer)).json()["status"] == "revoked"


@pytest.mark.parametrize(("kind", "answered"), [("subscription", "subscription"), ("pay_per_token", "pay_per_token"), ("pay-per-token", "pay_per_token")])
async def test_the_kind_of_a_key(client: httpx2.AsyncClient, kind: str, answered: str) -> None:
    """A kind may be written with the document's hyphen, and is answered with an underscore."""
    mine = await tenant()
    made = await client.post("/tenant/keys", json={"kind": kind}, headers=mine.bearer)
    assert (made.status_code, made.json()["kind"]) == (201, answered)


async def test_no_key_is_wider_than_its_minter(client: httpx2.AsyncClient) -> None:
    """A subscription key mints its own kind and not the other: 403, and nothing is made."""
    mine = await tenant(kind=ApiKeyKind.SUBSCRIPTION)
    assert (await client.post("/tenant/keys", json={}, headers=mine.bearer)).json()["kind"] == "subscription"
    refused = await client.post("/tenant/keys", json={"kind": "pay_per_token"}, headers=mine.bearer)
    assert refused.status_code == 403
    assert refused.json()["error"]["type"] == "permission_error"
    assert len((await client.get("/tenant/keys", headers=mine.bearer)).json()["data"]) == 2


async def test_a_key_expires(client: httpx2.AsyncClient) -> None:
    """`expires_at` takes any offset from UTC and is answered in UTC."""
    mine = await tenant()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    sent = (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")
    made = await client.post("/tenant/keys", json={"expires_at": sent}, headers=mine.bearer)
    assert made.json()["expires_at"] == at.strftime("%Y-%m-%dT%H:%M:%SZ")


NO_INSTANTS = [1, True, [], "5", "", "2026-11-21", "2099-01-01T00:00:00", "2099-13-01T00:00:00Z"]
PAST_OR_BEYOND = ["2020-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]


@pytest.mark.parametrize("at", [*NO_INSTANTS, *PAST_OR_BEYOND])
async def test_a_bad_expiry(client: httpx2.AsyncClient, at: object) -> None:
    """An expiry that is no instant with an offset, or not in the future, is refused with the field's name."""
    mine = await tenant()
    refused = await client.post("/tenant/keys", json={"expires_at": at}, headers=mine.bearer)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert len((await client.get("/tenant/keys", headers=mine.bearer)).json()["data"]) == 1


@pytest.mark.parametrize("key_id", ["00000000-0000-7000-8000-000000000000", "nonsense", "%00"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_key_that_is_not_there(client: httpx2.AsyncClient, method: str, key_id: str) -> None:
    """Absent and malformed ids are 404 alike."""
    mine = await tenant()
    refused = await client.request(method, f"/tenant/keys/{key_id}", headers=mine.bearer)
    assert refused.status_code == 404
    assert refused.json() == {"error": {"type": "not_found_error", "message": "There is no such key."}}


async def test_a_key_sees_itself_without_a_scope(client: httpx2.AsyncClient) -> None:
    """Any key may read its own metadata; another key's needs a scope."""
    mine = await tenant()
    key, secret = await mine.mint(scopes=frozenset({Scope.INFERENCE}))
    bearer = {"Authorization": f"Bearer {secret}"}
    assert (await client.get(f"/tenant/keys/{key.id}", headers=bearer)).json()["id"] == str(key.id)
    assert (await client.get(f"/tenant/keys/{mine.key.id}", headers=bearer)).status_code == 403


async def test_the_credits(client: httpx2.AsyncClient) -> None:
    """Micros of a US dollar, as integers."""
    mine = await tenant(credit_microusd=5_000_001)
    told = await client.get("/tenant/credits", headers=mine.bearer)
    assert told.json() == {"balance_micros": 5_000_001, "available_micros": 5_000_001, "held_micros": 0, "currency": "USD"}
