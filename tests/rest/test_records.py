"""Document 3, field for field, against a running gateway."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from clients.issuers import local_session
from domain.money import ledger
from domain.pages import Page
from models.enums import ApiKeyMode, TransferKind
from tests.conftest import SECRET
from tests.rest.test_aaas import CHARGE_MICROUSD, TOKENS, ask_echo
from tests.support.world import Tenant, broken, operator_key, tenant

pytestmark = pytest.mark.anyio

EXAMPLE: dict[str, Any] = {"api_name": "llm_query", "endpoint": "/chat", "units_used": 346, "cost_usd": 0.0043, "api_key_used": "pk_live_abc123"}
COST = 4_300
START = 1_000_000


@pytest.fixture
async def mine() -> Tenant:
    """A workspace with a dollar."""
    return await tenant(credit_microusd=START)


async def log(client: httpx2.AsyncClient, of: Tenant, key: str | None = None, **changes: Any) -> httpx2.Response:
    """Log the document's example, changed."""
    headers = of.bearer if key is None else {**of.bearer, "Idempotency-Key": key}
    return await client.post("/usage", json=EXAMPLE | changes, headers=headers)


async def admin(of: Tenant) -> dict[str, str]:
    """The header of an operator in another workspace."""
    return {"Authorization": f"Bearer {await operator_key(await tenant())}"}


async def moved(of: Tenant) -> list[tuple[TransferKind, int]]:
    """What changed the balance since it was given, oldest first."""
    entries = (await ledger.statement(of.caller(), Page(100))).items
    return [(entry.transfer.kind, entry.change) for entry in reversed(entries)][1:]


async def test_the_example(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """The document's own request gets its own answer, with the key masked, and charges the workspace."""
    answer = await log(client, mine)
    assert answer.status_code == 201
    body = answer.json()
    assert abs(datetime.fromisoformat(body.pop("created_at")) - datetime.now(UTC)) < timedelta(minutes=5)
    usage_id = UUID(body.pop("usage_id"))
    assert body == EXAMPLE | {"user_id": str(mine.owner.user_id), "api_key_used": "pk_live_…", "status_active": True}
    assert "abc123" not in answer.text
    assert (await mine.balance()).balance == START - COST
    assert await moved(mine) == [(TransferKind.CHARGE, -COST)]
    assert (await client.get(f"/usage/{usage_id}", headers=mine.bearer)).json() == answer.json()
    summary = (await client.get("/v1/usage/summary", headers=mine.bearer)).json()
    assert summary == {"requests": 1, "tokens": 0, "actualCostMicrousd": COST, "errors": 0}
    assert await broken(mine) == []


async def test_calls_are_logged_by_themselves(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """An inference call is a record like any other, with the key it used, masked."""
    await ask_echo(client, mine)
    (record,) = (await client.get("/usage", headers=mine.bearer)).json()
    assert (record["endpoint"], record["units_used"], record["cost_usd"]) == ("/v1/chat/completions", 2 * TOKENS, CHARGE_MICROUSD / 1_000_000)
    assert record["api_key_used"] == f"tg_live_…{mine.secret[-4:]}"
    assert mine.secret not in str(record)


async def test_a_key_of_ours_is_found_and_never_told(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """A record that names one of the workspace's keys is that key's; the secret is not kept."""
    other, secret = await mine.mint(name="other")
    record = (await log(client, mine, api_key_used=secret)).json()
    assert record["api_key_used"] == f"tg_live_…{secret[-4:]}"
    assert [key["lastUsedAt"] for key in (await client.get("/v1/keys", headers=mine.bearer)).json() if key["id"] == str(other.id)] == [None]


async def test_a_repeat_is_the_first_record(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """The same Idempotency-Key, eight times at once, makes one record and one charge; with another input it is refused and nothing changes."""
    answers = await asyncio.gather(*(log(client, mine, key="a1") for _ in range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json()["usage_id"] for answer in answers}) == 1
    assert (await log(client, mine, key="a1", units_used=347)).status_code == 422
    assert (await mine.balance()).balance == START - COST
    assert (await log(client, mine, key="a2")).json()["usage_id"] != answers[0].json()["usage_id"]
    assert len((await client.get("/usage", headers=mine.bearer)).json()) == 2


@pytest.mark.parametrize("key", ["", "x" * 241])
async def test_a_key_that_is_none(client: httpx2.AsyncClient, mine: Tenant, key: str) -> None:
    """An empty or too long Idempotency-Key: 422 that names the header, and nothing is logged."""
    refused = await log(client, mine, key=key)
    assert refused.status_code == 422
    assert [fault["loc"] for fault in refused.json()["detail"]] == [["header", "Idempotency-Key"]]
    assert await moved(mine) == []


async def test_what_cannot_be_paid_is_not_logged(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """402 in the document's shape, and neither a record nor a charge; the last cent can be spent."""
    refused = await log(client, mine, cost_usd=1.000001)
    assert (refused.status_code, refused.json()) == (402, {"detail": "There is too little credit."})
    assert (await client.get("/usage", headers=mine.bearer)).json() == []
    assert (await mine.balance()).balance == START
    assert (await log(client, mine, cost_usd=1)).status_code == 201
    assert (await mine.balance()).balance == 0
    assert (await log(client, mine, cost_usd=0)).status_code == 201


async def test_a_test_key_logs_without_a_charge(client: httpx2.AsyncClient) -> None:
    """A test record is listed, costs nothing, and stands in no total."""
    mine = await tenant(credit_microusd=START, mode=ApiKeyMode.TEST)
    record = (await log(client, mine)).json()
    assert (record["cost_usd"], record["units_used"]) == (0, 346)
    assert (await mine.balance()).balance == START
    assert (await client.get("/v1/usage/summary", headers=mine.bearer)).json()["requests"] == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"units_used": -1}, "units_used"),
        ({"units_used": 1.5}, "units_used"),
        ({"units_used": "1"}, "units_used"),
        ({"units_used": True}, "units_used"),
        ({"units_used": 2**53}, "units_used"),
        ({"cost_usd": -0.000001}, "cost_usd"),
        ({"cost_usd": 0.0000001}, "cost_usd"),
        ({"cost_usd": 1.0000001}, "cost_usd"),
        ({"cost_usd": 1_000_001}, "cost_usd"),
        ({"cost_usd": 1e300}, "cost_usd"),
        ({"cost_usd": "0.1"}, "cost_usd"),
        ({"cost_usd": None}, "cost_usd"),
        ({"cost_usd": True}, "cost_usd"),
        ({"api_name": ""}, "api_name"),
        ({"api_name": "x" * 65}, "api_name"),
        ({"api_name": None}, "api_name"),
        ({"endpoint": "x" * 101}, "endpoint"),
        ({"api_key_used": ""}, "api_key_used"),
        ({"api_key_used": 5}, "api_key_used"),
    ],
)
async def test_a_bad_value(client: httpx2.AsyncClient, mine: Tenant, changes: dict[str, Any], field: str) -> None:
    """422 with a list that names the field, and nothing is logged."""
    refused = await log(client, mine, **changes)
    assert refused.status_code == 422
    (fault,) = refused.json()["detail"]
    assert fault["loc"][:2] == ["body", field]
    assert (await client.get("/usage", headers=mine.bearer)).json() == []
    assert (await mine.balance()).balance == START


@pytest.mark.parametrize("missing", sorted(EXAMPLE))
async def test_a_missing_field(client: httpx2.AsyncClient, mine: Tenant, missing: str) -> None:
    """422 with the kind `missing`."""
    body = {name: value for name, value in EXAMPLE.items() if name != missing}
    refused = await client.post("/usage", json=body, headers=mine.bearer)
    assert refused.status_code == 422
    assert [(fault["loc"], fault["type"]) for fault in refused.json()["detail"]] == [(["body", missing], "missing")]


async def test_pages_by_offset(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Newest first, 50 unless said otherwise, `skip` past the end is an empty list."""
    ids = [(await log(client, mine, cost_usd=0)).json()["usage_id"] for _ in range(52)][::-1]

    async def listed(query: str) -> list[str]:
        return [record["usage_id"] for record in (await client.get(f"/usage{query}", headers=mine.bearer)).json()]

    assert await listed("") == ids[:50]
    assert await listed("?skip=50&limit=50") == ids[50:]
    assert await listed("?skip=1&limit=2") == ids[1:3]
    assert await listed("?skip=52") == []
    for query in ("skip=-1", "limit=0", "limit=201", "limit=ten", "skip=1&skip=2", f"skip={'9' * 12}"):
        refused = await client.get(f"/usage?{query}", headers=mine.bearer)
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["query", query.split("=")[0]]


async def test_whose_records(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """A caller lists its workspace and itself; another's record is 404, another's list 403; an admin sees all."""
    other = await tenant(credit_microusd=START)
    own, foreign = (await log(client, mine)).json(), (await log(client, other)).json()
    session = {"Authorization": f"Bearer {local_session(SECRET, mine.owner_email, 'Olga Owner', at=datetime.now(UTC))}"}
    for headers in (mine.bearer, session):
        assert [record["usage_id"] for record in (await client.get("/usage", headers=headers)).json()] == [own["usage_id"]]
        assert (await client.get(f"/usage/user/{mine.owner.user_id}", headers=headers)).json() == [own]
        assert (await client.get(f"/usage/{foreign['usage_id']}", headers=headers)).status_code == 404
        for stranger in (other.owner.user_id, uuid4(), "nonsense"):
            refused = await client.get(f"/usage/user/{stranger}", headers=headers)
            assert refused.status_code == 403
            assert isinstance(refused.json()["detail"], str)
    for nothing in (uuid4(), "nonsense", "user"):
        assert (await client.get(f"/usage/{nothing}", headers=mine.bearer)).status_code == 404
    everything = await admin(mine)
    assert {own["usage_id"], foreign["usage_id"]} <= {record["usage_id"] for record in (await client.get("/usage?limit=200", headers=everything)).json()}
    assert (await client.get(f"/usage/{own['usage_id']}", headers=everything)).json() == own
    assert (await client.get(f"/usage/user/{other.owner.user_id}", headers=everything)).json() == [foreign]


@pytest.mark.parametrize(("cost", "balance"), [(0, START), (0.001, START - 1_000), (0.01, START - 10_000), (5, START - 5_000_000)])
async def test_a_correction_moves_the_difference(client: httpx2.AsyncClient, mine: Tenant, cost: float, balance: int) -> None:
    """A reversal and a new entry: the balance moves by the difference, below zero if need be; the record and every total follow, and the books are sound."""
    made = (await log(client, mine)).json()
    answer = await client.put(f"/usage/{made['usage_id']}", json={"units_used": 7, "cost_usd": cost}, headers=await admin(mine))
    assert answer.status_code == 200
    assert answer.json() == made | {"units_used": 7, "cost_usd": cost}
    assert (await mine.balance()).balance == balance
    micros = round(cost * 1_000_000)
    again = [(TransferKind.CORRECTION, -micros)] if micros else []
    assert await moved(mine) == [(TransferKind.CHARGE, -COST), (TransferKind.CORRECTION, COST), *again]
    assert (await client.get("/usage", headers=mine.bearer)).json() == [answer.json()]
    assert (await client.get("/v1/usage/summary", headers=mine.bearer)).json()["actualCostMicrousd"] == micros
    assert await broken(mine) == []


async def test_corrections_one_after_another_and_at_once(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """The last correction counts, whatever came before; many at once leave one of them, and books that are sound."""
    made = (await log(client, mine)).json()
    path, headers = f"/usage/{made['usage_id']}", await admin(mine)
    for cost in (0, 0.25, 0.1, 0):
        assert (await client.put(path, json={"cost_usd": cost}, headers=headers)).json()["cost_usd"] == cost
        assert (await mine.balance()).balance == START - round(cost * 1_000_000)
    answers = await asyncio.gather(*(client.put(path, json={"units_used": 1, "cost_usd": number / 100}, headers=headers) for number in range(1, 9)))
    assert {answer.status_code for answer in answers} == {200}
    final = (await client.get(path, headers=mine.bearer)).json()["cost_usd"]
    assert (await mine.balance()).balance == START - round(final * 1_000_000)
    assert await broken(mine) == []


async def test_a_deleted_record_stays_and_counts_no_more(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """DELETE gives the charge back once, however often it is sent; the record stays listed as inactive and cannot be corrected any more."""
    kept, gone = (await log(client, mine)).json(), (await log(client, mine)).json()
    path, headers = f"/usage/{gone['usage_id']}", await admin(mine)
    for _ in range(2):
        deleted = await client.delete(path, headers=headers)
        assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await mine.balance()).balance == START - COST
    voided = gone | {"units_used": 0, "cost_usd": 0, "status_active": False}
    assert (await client.get("/usage", headers=mine.bearer)).json() == [voided, kept]
    assert (await client.get("/v1/usage/summary", headers=mine.bearer)).json() == {"requests": 1, "tokens": 0, "actualCostMicrousd": COST, "errors": 0}
    refused = await client.put(path, json={"units_used": 1, "cost_usd": 1}, headers=headers)
    assert (refused.status_code, refused.json()) == (409, {"detail": "The record is voided."})
    assert await broken(mine) == []


async def test_a_call_is_corrected_like_a_record(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """What a call was charged is given back in full, and every view agrees."""
    await ask_echo(client, mine)
    (call,) = (await client.get("/usage", headers=mine.bearer)).json()
    answer = await client.put(f"/usage/{call['usage_id']}", json={"units_used": 0, "cost_usd": 0.0}, headers=await admin(mine))
    assert (answer.json()["units_used"], answer.json()["cost_usd"], answer.json()["status_active"]) == (0, 0, True)
    assert (await mine.balance()).balance == START
    assert (await client.get("/v1/usage/breakdown", headers=mine.bearer)).json() == [{"model": "echo", "requests": 1, "tokens": 2 * TOKENS, "actualCostMicrousd": 0}]
    assert await broken(mine) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_only_the_operator_corrects(client: httpx2.AsyncClient, mine: Tenant, method: str) -> None:
    """A customer cannot correct its own bill: 403, for records that are there and for those that are not; the operator gets 404 for those."""
    made = (await log(client, mine)).json()
    body = {"units_used": 0, "cost_usd": 0} if method == "PUT" else None
    for usage_id in (made["usage_id"], str(uuid4()), "nonsense"):
        assert (await client.request(method, f"/usage/{usage_id}", json=body, headers=mine.bearer)).status_code == 403
    headers = await admin(mine)
    for usage_id in (str(uuid4()), "nonsense"):
        assert (await client.request(method, f"/usage/{usage_id}", json=body, headers=headers)).status_code == 404
    assert (await mine.balance()).balance == START - COST


@pytest.mark.parametrize("body", [{}, {"units_used": None, "cost_usd": None}, {"units_used": -1}, {"cost_usd": -1}, {"cost_usd": 0.0000001}, {"cost_usd": "0"}])
async def test_a_bad_correction(client: httpx2.AsyncClient, mine: Tenant, body: dict[str, Any]) -> None:
    """422, and nothing changes."""
    made = (await log(client, mine)).json()
    refused = await client.put(f"/usage/{made['usage_id']}", json=body, headers=await admin(mine))
    assert refused.status_code == 422
    assert isinstance(refused.json()["detail"], list)
    assert await moved(mine) == [(TransferKind.CHARGE, -COST)]
