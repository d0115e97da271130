"""Document 0, field for field, against a running gateway."""

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx2
import pytest

from domain.access.secrets import well_formed
from domain.money import grants, ledger
from domain.money.grants import NewGrant
from models.enums import ApiKeyKind, ApiKeyMode, Scope
from tests.support.world import TESTS, Tenant, tenant

pytestmark = pytest.mark.anyio

# `echo` counts one token for every four code points begun, and costs 1 USD and 2 USD a million: input 1 and output 2 microdollars a token.
QUESTION = "Say this back to me, word for word."
TOKENS = 9
CHARGE_MICROUSD = TOKENS * 1 + TOKENS * 2


def instant(text: object) -> datetime:
    """Read an instant of an answer: ISO 8601 in UTC, with a Z."""
    assert isinstance(text, str)
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


async def ask_echo(client: httpx2.AsyncClient, of: Tenant) -> None:
    """Make one call."""
    body = {"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}
    assert (await client.post("/v1/chat/completions", json=body, headers=of.bearer)).status_code == 200


async def test_a_key_is_made_listed_used_and_deleted(client: httpx2.AsyncClient) -> None:
    """A key is shown once, is listed by its hash and suffix, works at once, and after its deletion works no more and stays listed as revoked."""
    mine = await tenant()
    made = await client.post("/v1/keys", json={"name": "ci"}, headers=mine.bearer)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    body = made.json()
    assert set(body) == {"id", "key", "createdAt", "name"}
    assert body["name"] == "ci"
    assert well_formed(body["key"])
    assert abs(instant(body["createdAt"]) - datetime.now(UTC)) < timedelta(minutes=5)
    UUID(body["id"])

    fresh = {"Authorization": f"Bearer {body['key']}"}
    listed = (await client.get("/v1/keys", headers=mine.bearer)).json()
    assert listed[0] == {
        "id": body["id"],
        "createdAt": body["createdAt"],
        "keyHash": hashlib.sha256(body["key"].encode()).hexdigest(),
        "lastUsedAt": None,
        "name": "ci",
        "status": "active",
        "suffix": body["key"][-4:],
    }
    assert [key["id"] for key in listed] == [body["id"], str(mine.key.id)]
    seen = await client.get("/v1/keys", headers=fresh)
    assert abs(instant(seen.json()[0]["lastUsedAt"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert body["key"] not in seen.text

    deleted = await client.delete(f"/v1/keys/{body['id']}", headers=mine.bearer)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get("/v1/keys", headers=fresh)).status_code == 401
    assert [key["status"] for key in (await client.get("/v1/keys", headers=mine.bearer)).json()] == ["revoked", "active"]


@pytest.mark.parametrize(("sent", "name"), [(b"", None), (b"{}", None), (b'{"name":null}', None), (b'{"name":""}', None), (b'{"name":"a","name":" b ","x":[1]}', "b")])
async def test_a_key_needs_no_name(client: httpx2.AsyncClient, sent: bytes, name: str | None) -> None:
    """A body may be empty, may repeat a field (the last one counts), and may hold fields that mean nothing."""
    mine = await tenant()
    made = await client.post("/v1/keys", content=sent, headers=mine.bearer)
    assert (made.status_code, made.json()["name"]) == (201, name)


async def test_a_key_makes_its_own_kind(client: httpx2.AsyncClient) -> None:
    """A subscription key makes a subscription key and a test key a test key: never one wider than itself."""
    mine = await tenant(kind=ApiKeyKind.SUBSCRIPTION, mode=ApiKeyMode.TEST)
    made = (await client.post("/v1/keys", headers=mine.bearer)).json()
    assert made["key"].startswith("tg_test_")
    listed = (await client.get("/tenant/keys", headers={"Authorization": f"Bearer {made['key']}"})).json()["data"]
    assert [key["kind"] for key in listed] == ["subscription", "subscription"]


async def test_the_whole_list_of_keys_is_told(client: httpx2.AsyncClient) -> None:
    """The list has no pages: 101 keys are 101 rows, newest first, each once."""
    mine = await tenant()
    ids = [str(mine.key.id)] + [str((await mine.mint(name=f"key {number}"))[0].id) for number in range(100)]
    listed = (await client.get("/v1/keys", headers=mine.bearer)).json()
    assert [key["id"] for key in listed] == ids[::-1]


@pytest.mark.parametrize("key_id", ["00000000-0000-7000-8000-000000000000", "nonsense", "%00", "1"])
async def test_deleting_tells_nothing(client: httpx2.AsyncClient, key_id: str) -> None:
    """What is absent or malformed is deleted as well as what is there: 204, without a hint."""
    mine = await tenant()
    gone = await client.delete(f"/v1/keys/{key_id}", headers=mine.bearer)
    assert (gone.status_code, gone.content) == (204, b"")


async def test_the_balance(client: httpx2.AsyncClient) -> None:
    """Integer microdollars, with the instant of the last change."""
    mine = await tenant(credit_microusd=12_345_678)
    balance = (await client.get("/v1/credits/balance", headers=mine.bearer)).json()
    assert instant(balance.pop("updatedAt")) <= datetime.now(UTC)
    assert balance == {"balanceMicrousd": 12_345_678, "availableMicrousd": 12_345_678, "heldMicrousd": 0, "currency": "USD"}


async def test_transactions_are_signed_and_name_their_call(client: httpx2.AsyncClient) -> None:
    """Newest first: a call's charge is negative and tells model and tokens, credit is positive and tells its reason; together they are the balance."""
    mine = await tenant(credit_microusd=1_000_000)
    await ask_echo(client, mine)
    answer = await client.get("/v1/credits/transactions", headers=mine.bearer)
    charge, credit = answer.json()
    assert set(charge) == {"idempotencyKey", "type", "amountMicrousd", "createdAt", "tokens", "model"}
    assert (charge["type"], charge["amountMicrousd"], charge["tokens"], charge["model"]) == ("charge", -CHARGE_MICROUSD, 2 * TOKENS, "echo")
    assert charge["idempotencyKey"].startswith("charge:")
    now_ms = datetime.now(UTC).timestamp() * 1000
    assert isinstance(charge["createdAt"], int)
    assert now_ms - 300_000 < charge["createdAt"] < now_ms + 300_000
    assert credit == {
        "idempotencyKey": f"adjustment:give:start:{mine.workspace_id}",
        "type": "adjustment",
        "amountMicrousd": 1_000_000,
        "createdAt": credit["createdAt"],
        "tokens": 0,
        "reason": "credit of the test",
    }
    balance = (await client.get("/v1/credits/balance", headers=mine.bearer)).json()
    assert balance["balanceMicrousd"] == 1_000_000 - CHARGE_MICROUSD


async def test_transactions_add_up_to_the_balance_with_grants(client: httpx2.AsyncClient) -> None:
    """A grant that is given and what it pays are in the statement as credit by hand is; all amounts together are `balanceMicrousd`, here and in GraphQL."""
    mine = await tenant(credit_microusd=1_000)
    await grants.create(mine.caller(Scope.OPERATOR), None, NewGrant(10, "launch", idempotency_key="g"))
    await ask_echo(client, mine)
    listed = (await client.get("/v1/credits/transactions", headers=mine.bearer)).json()
    told = [(each["type"], each["amountMicrousd"]) for each in listed]
    assert told == [("charge", 10 - CHARGE_MICROUSD), ("charge", -10), ("grant", 10), ("adjustment", 1_000)]
    assert len({each["idempotencyKey"] for each in listed}) == 4
    balance = (await client.get("/v1/credits/balance", headers=mine.bearer)).json()["balanceMicrousd"]
    assert balance == sum(amount for _, amount in told) == 1_010 - CHARGE_MICROUSD
    query = "{ credits { balance { microUsd } transactions(first: 10) { totalCount edges { change { microUsd } balanceAfter { microUsd } } } } }"
    credits = (await client.post("/graphql", json={"query": query}, headers=mine.bearer)).json()["data"]["credits"]
    edges = [(edge["change"]["microUsd"], edge["balanceAfter"]["microUsd"]) for edge in credits["transactions"]["edges"]]
    assert edges == [(10 - CHARGE_MICROUSD, balance), (-10, 1_000), (10, 1_010), (1_000, 1_000)]
    assert (credits["balance"]["microUsd"], credits["transactions"]["totalCount"]) == (balance, 4)


async def test_transactions_without_the_right_to_usage(client: httpx2.AsyncClient) -> None:
    """A key that may see money and not usage sees the charge, and neither model nor tokens."""
    mine = await tenant(credit_microusd=1_000_000)
    await ask_echo(client, mine)
    _, secret = await mine.mint(scopes=frozenset({Scope.BILLING_READ}))
    charge, _ = (await client.get("/v1/credits/transactions", headers={"Authorization": f"Bearer {secret}"})).json()
    assert (charge["amountMicrousd"], charge["tokens"], "model" in charge) == (-CHARGE_MICROUSD, 0, False)


async def test_the_limit_of_transactions(client: httpx2.AsyncClient) -> None:
    """Fifty without a limit, exactly as many as asked for up to 200, across the domain's pages."""
    mine = await tenant()
    for number in range(210):
        await ledger.give(mine.workspace_id, number + 1, "drop", f"{mine.workspace_id}:{number}", TESTS)

    async def amounts(query: str) -> list[int]:
        return [row["amountMicrousd"] for row in (await client.get(f"/v1/credits/transactions{query}", headers=mine.bearer)).json()]

    newest_first = list(range(210, 0, -1))
    assert await amounts("") == newest_first[:50]
    assert await amounts("?limit=1&unknown=x") == [210]
    assert await amounts("?limit=150") == newest_first[:150]
    assert await amounts("?limit=200") == newest_first[:200]


BAD_LIMITS = ["0", "201", "-1", "", "ten", "5.0", "+5", "1&limit=2", "1_0", "%001", "%FF", "\u0663", "9" * 20]


@pytest.mark.parametrize("query", [f"limit={limit}" for limit in BAD_LIMITS])
async def test_a_bad_limit(client: httpx2.AsyncClient, query: str) -> None:
    """A limit that is no number from 1 to 200, or given twice, is refused in the document's shape."""
    mine = await tenant()
    refused = await client.get(f"/v1/credits/transactions?{query}", headers=mine.bearer)
    assert refused.status_code == 400
    assert set(refused.json()) == {"error"}


@pytest.mark.parametrize("query", ["", "?range=24h", "?range=7d", "?range=30d"])
async def test_the_usage_summary(client: httpx2.AsyncClient, query: str) -> None:
    """A call stands in every window that ends now, to the microdollar, as soon as it is answered."""
    mine = await tenant(credit_microusd=1_000_000)
    await ask_echo(client, mine)
    used = await client.get(f"/v1/usage/summary{query}", headers=mine.bearer)
    assert used.json() == {"requests": 1, "tokens": 2 * TOKENS, "actualCostMicrousd": CHARGE_MICROUSD, "errors": 0}


@pytest.mark.parametrize("query", ["range=1h", "range=", "range=7D", "range=7d&range=7d"])
async def test_a_bad_range(client: httpx2.AsyncClient, query: str) -> None:
    """A range that the document does not list is refused in its shape."""
    mine = await tenant()
    refused = await client.get(f"/v1/usage/summary?{query}", headers=mine.bearer)
    assert refused.status_code == 400
    assert set(refused.json()) == {"error"}
