"""Receipts of real calls through the gateway, over REST and GraphQL: both say what the ledger says."""

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.money import grants
from domain.money.grants import NewGrant
from models import database
from models.enums import Scope
from tests.schema.test_operations import documents
from tests.support import upstream as scripted
from tests.support.books import only_call, quiet, settled
from tests.support.calling import CLAUDE, GPT, WIRES, Wire, bearer, session
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import Tenant, operator_key, tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000


async def call(client: httpx2.AsyncClient, wire: Wire, mine: Tenant, body: bytes, path: str | None = None, **headers: str) -> httpx2.Response:
    """Make a call with the workspace's first key."""
    return await client.post(path or wire.path, content=body, headers=bearer(mine.secret) | headers)


async def receipt(client: httpx2.AsyncClient, mine: Tenant, call_id: UUID | str) -> dict[str, Any]:
    """Return a call's receipt over REST, once the call is settled, after checking every amount of it against the books."""
    await settled(call_id)
    answer = await client.get(f"/v1/receipts/{call_id}", headers=mine.bearer)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    transfers = await database.fetch("SELECT id, kind, amount FROM transfer WHERE call_id = $1 ORDER BY id", UUID(str(call_id)))
    assert [(each["id"], each["kind"], each["amount_micros"]) for each in told["transfers"]] == [(str(row["id"]), row["kind"], row["amount"]) for row in transfers]
    assert told["charge_micros"] == sum(row["amount"] for row in transfers) == sum(part["amount_micros"] for part in told["funding"])
    assert told["charge_micros"] == CREDIT - await quiet(mine)
    hold = await database.fetch_row("SELECT amount, state FROM hold WHERE call_id = $1", UUID(str(call_id)))
    assert hold is not None
    assert (told["hold"]["amount_micros"], told["hold"]["state"]) == (hold["amount"], hold["state"])
    return told


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
async def test_a_call_that_went_well(client: httpx2.AsyncClient, provider: Upstream, wire: Wire, stream: bool) -> None:
    """25 tokens in and 12 out: two lines that add up to the charge, one attempt with its usage, and timings in their order."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(wire.stream()) if stream else scripted.whole(wire.whole()))
    answer = await call(client, wire, mine, wire.body(stream=stream))
    told = await receipt(client, mine, answer.headers["x-request-id"])
    assert (told["state"], told["outcome"], told["http_status"], told["error_code"]) == ("settled", "succeeded", 200, None)
    assert (told["requested_model"], told["model"], told["streamed"], told["endpoint"]) == (wire.model, wire.model, stream, wire.path)
    assert (told["charge_micros"], told["list_micros"]) == (wire.price(), wire.price())
    assert [(line["bucket"], line["quantity"]) for line in told["lines"]] == [("uncached_input", 25), ("output", 12)]
    amounts = [f"0.{25 * wire.input_microusd:06d}".rstrip("0"), f"0.{12 * wire.output_microusd:06d}".rstrip("0")]
    assert [line["amount_usd"] for line in told["lines"]] == amounts
    assert {line["price_id"] for line in told["lines"]} == {told["price"]["id"]}
    (attempt,) = told["attempts"]
    assert (attempt["number"], attempt["charged"], attempt["http_status"]) == (1, True, 200)
    assert attempt["usage"] == {"uncached_input": 25, "output": 12}
    assert "upstream_cost_usd" not in attempt
    assert "upstream_cost_usd" not in told
    steps = [told["timings"][name] for name in ("received_at", "admitted_at", "first_byte_at", "last_byte_at", "settled_at")]
    assert steps == sorted(steps)
    assert told["clamp"] is None
    assert [transfer["debit"] for transfer in told["transfers"]] == ["cash"]


async def test_a_call_that_the_provider_refused(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """F17: what was refused is abandoned, costs nothing, and its attempt says what the provider answered."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.status(400))
    answer = await call(client, CLAUDE, mine, CLAUDE.body())
    told = await receipt(client, mine, answer.headers["x-request-id"])
    assert (told["state"], told["outcome"], told["charge_micros"], told["model"], told["lines"]) == ("abandoned", "failed", 0, None, [])
    assert [(each["http_status"], each["error_code"], each["charged"]) for each in told["attempts"]] == [(400, "upstream_400", False)]


async def test_a_call_whose_client_left(client: httpx2.AsyncClient, gateway: Gateway, provider: Upstream) -> None:
    """F16: `cancelled`, charged 25 tokens in and 3 estimated out, and no last byte, because nobody took it."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(CLAUDE.begin(), then=scripted.hang))
    async with session() as leaving, leaving.post(gateway.url + CLAUDE.path, data=CLAUDE.body(), headers=bearer(mine.secret)) as response:
        await response.content.readexactly(len(b"".join(CLAUDE.begin())))
        response.close()
    await provider.requests[0].client_closed.wait()
    told = await receipt(client, mine, await only_call(mine))
    assert (told["outcome"], told["error_code"], told["charge_micros"]) == ("cancelled", "client_gone", CLAUDE.price(25, 3))
    assert told["timings"]["last_byte_at"] is None


async def test_a_call_in_translation_and_one_with_a_preset(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """A Messages client at an OpenAI model, and a tool's road: the model that answered, its price, the preset's version."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(GPT.whole()))
    answer = await call(client, CLAUDE, mine, CLAUDE.body(stream=False, model=GPT.model))
    told = await receipt(client, mine, answer.headers["x-request-id"])
    assert (told["model"], told["endpoint"], told["charge_micros"], told["preset"]) == (GPT.model, "/v1/messages", GPT.price(), None)
    other = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(CLAUDE.stream()))
    answer = await call(client, CLAUDE, other, CLAUDE.body(), path="/claudecode/v1/messages")
    told = await receipt(client, other, answer.headers["x-request-id"])
    assert (told["preset"], told["endpoint"], told["charge_micros"]) == (answer.headers["x-preset"], "/claudecode/v1/messages", CLAUDE.price())


async def test_what_made_the_price_is_on_the_lines(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """F12, F13: a service tier's row, and what another model did inside the answer, each on a line of its own; they add up to the charge."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(json.dumps(json.loads(GPT.whole()) | {"service_tier": "priority"}).encode()))
    answer = await call(client, GPT, mine, GPT.body(stream=False))
    told = await receipt(client, mine, answer.headers["x-request-id"])
    assert {line["service_tier"] for line in told["lines"]} == {"priority"}
    assert sum(round(float(line["amount_usd"]) * 1e12) for line in told["lines"]) == round(float(told["charge_usd"]) * 1e12)
    other = await tenant(credit_microusd=CREDIT)
    made = [{"type": "advisor_message", "model": "claude-haiku-5-5", "input_tokens": 900, "output_tokens": 70}]
    provider.script(scripted.whole(CLAUDE.whole(iterations=made)))
    answer = await call(client, CLAUDE, other, CLAUDE.body(stream=False))
    told = await receipt(client, other, answer.headers["x-request-id"])
    assert [(line["bucket"], line["quantity"]) for line in told["lines"]] == [("uncached_input", 25), ("output", 12), ("uncached_input", 900), ("output", 70)]
    assert len({line["price_id"] for line in told["lines"]}) == 2
    assert told["charge_micros"] == CLAUDE.price() + 125


async def test_a_call_that_is_under_way(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """While the provider thinks, the receipt says `admitted`, shows the open hold, and charges nothing yet."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()
    provider.script(scripted.held([], go, CLAUDE.stream()))
    calling = asyncio.create_task(call(client, CLAUDE, mine, CLAUDE.body()))
    await provider.arrival()
    answer = await client.get(f"/v1/receipts/{await only_call(mine)}", headers=mine.bearer)
    told = answer.json()
    assert (told["state"], told["outcome"], told["charge_micros"], told["hold"]["state"]) == ("admitted", None, 0, "open")
    assert told["hold"]["amount_micros"] == (await mine.balance()).held
    go.set()
    assert (await calling).status_code == 200
    assert (await receipt(client, mine, told["id"]))["charge_micros"] == CLAUDE.price()


async def test_strangers_find_nothing_in_either_shape(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """F30: another workspace, another key without the right, and what is no id get the 404 of their dialect; nothing tells them apart."""
    mine, stranger = await tenant(credit_microusd=CREDIT), await tenant()
    provider.script(scripted.whole(CLAUDE.whole()))
    call_id = (await call(client, CLAUDE, mine, CLAUDE.body(stream=False))).headers["x-request-id"]
    _, bare = await mine.mint(scopes=frozenset({Scope.INFERENCE}))
    for secret, path in ((stranger.secret, call_id), (bare, call_id), (mine.secret, "nonsense"), (mine.secret, str(mine.key.id))):
        plain = await client.get(f"/v1/receipts/{path}", headers=bearer(secret))
        assert plain.status_code == 404
        assert set(plain.json()["error"]) == {"message", "type", "param", "code"}
        typed = await client.get(f"/v1/receipts/{path}", headers={"x-api-key": secret, "anthropic-version": "2023-06-01"})
        assert typed.status_code == 404
        assert typed.json()["error"] == {"type": "not_found_error", "message": plain.json()["error"]["message"]}
    for secret in (stranger.secret, mine.secret):
        shown = await graphql(client, secret, "query R($call: String!) { receipt(callId: $call) { callId } }", call=call_id)
        assert shown == {"receipt": None if secret == stranger.secret else {"callId": call_id}}
    assert await graphql(client, mine.secret, '{ receipt(callId: "nonsense") { callId } }') == {"receipt": None}


async def graphql(client: httpx2.AsyncClient, secret: str, document: str, **variables: Any) -> Any:
    """Return the data of an operation."""
    answer = await client.post("/graphql", json={"query": document, "variables": variables}, headers=bearer(secret))
    assert "errors" not in answer.json(), answer.text
    return answer.json()["data"]


RECEIPT = """
query Receipt($call: String!) {
  receipt(callId: $call) {
    id callId requestId state requestedModel model { name } modelReason preset { name tokens preset { slug } }
    clamp { requestedMaxTokens allowedMaxTokens reason }
    attempts { id number provider upstreamModel reason outcome httpStatus failure { code message retryable }
      tokens { input output cacheRead cacheWrite5m cacheWrite1h reasoning total source } charged startedAt firstByteAt finishedAt receipt { callId } }
    lines { bucket quantity row { usd per aboveInputTokens serviceTier } price { id effectiveFrom source } amountUsd }
    listValue { usd } charge { usd microUsd } chargeUsd
    hold { amount { microUsd } extensions state createdAt expiresAt closedAt }
    funding { source amount { microUsd } transfer { id } }
    transfers { id kind amount { microUsd } debit { name } credit { name } reason createdAt }
    timings { receivedAt admittedAt firstByteAt lastByteAt settledAt overheadMs }
    usageRecord { id mode listValue { usd } cost { usd } needsReview status }
  }
}
"""


async def test_graphql_tells_the_same(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """The receipt of a clamped call with a preset in GraphQL is the one over REST, its nodes can be refetched, its record is the log's."""
    body = CLAUDE.body(max_tokens=1000)
    mine = await tenant(credit_microusd=18_000)
    provider.script(scripted.stream(CLAUDE.stream()))
    call_id = (await call(client, CLAUDE, mine, body, path="/claudecode/v1/messages")).headers["x-request-id"]
    await settled(call_id)
    told = (await client.get(f"/v1/receipts/{call_id}", headers=mine.bearer)).json()
    shown = (await graphql(client, mine.secret, RECEIPT, call=call_id))["receipt"]
    assert (shown["callId"], shown["requestId"], shown["state"]) == (call_id, call_id, "SETTLED")
    assert (shown["model"]["name"], shown["preset"]["name"], shown["preset"]["preset"]["slug"]) == (told["model"], told["preset"], "claudecode")
    assert (shown["charge"]["microUsd"], shown["chargeUsd"]) == (told["charge_micros"], told["charge_usd"])
    assert [(line["bucket"].lower(), line["quantity"], line["amountUsd"]) for line in shown["lines"]] == [
        (line["bucket"], line["quantity"], line["amount_usd"]) for line in told["lines"]
    ]
    assert (shown["hold"]["amount"]["microUsd"], shown["hold"]["state"]) == (told["hold"]["amount_micros"], "SETTLED")
    assert [(part["source"], part["amount"]["microUsd"]) for part in shown["funding"]] == [("CASH", CLAUDE.price())]
    assert [(each["kind"], each["debit"]["name"], each["credit"]["name"]) for each in shown["transfers"]] == [("CHARGE", "Cash", "Revenue")]
    (attempt,) = shown["attempts"]
    assert (attempt["tokens"]["input"], attempt["tokens"]["output"], attempt["tokens"]["source"]) == (25, 12, "PROVIDER")
    assert (attempt["failure"], attempt["charged"], attempt["receipt"]) == (None, True, {"callId": call_id})
    assert (shown["usageRecord"]["cost"], shown["usageRecord"]["status"]) == ({"usd": shown["charge"]["usd"]}, "ACTIVE")
    assert 0 < told["clamp"]["allowed_max_tokens"] < 1000
    assert shown["clamp"] == {"requestedMaxTokens": 1000, "allowedMaxTokens": told["clamp"]["allowed_max_tokens"], "reason": "BALANCE"}
    nodes = "query N($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Attempt { number } } }"
    ids = [shown["id"], attempt["id"]]
    receipt_node, attempt_node = (await graphql(client, mine.secret, nodes, ids=ids))["nodes"]
    assert receipt_node == {"__typename": "Receipt", "id": ids[0]}
    assert attempt_node == {"__typename": "Attempt", "id": ids[1], "number": 1}
    stranger = await tenant()
    assert (await graphql(client, stranger.secret, nodes, ids=ids))["nodes"] == [None, None]


async def test_presets_are_shown_to_everybody(client: httpx2.AsyncClient) -> None:
    """Slug, base path and every version's text, which nobody has to log in for: it is what the tool's road splices in."""
    document = "{ presets { slug basePath description current { name } versions { name text tokens createdAt preset { slug } } } }"
    answer = await client.post("/graphql", json={"query": document})
    shown = answer.json()["data"]["presets"]
    assert [preset["slug"] for preset in shown] == ["claudecode", "cline", "cursor", "roocode"]
    for preset in shown:
        assert preset["basePath"] == f"/{preset['slug']}"
        assert preset["current"]["name"] == preset["versions"][0]["name"]
        for version in preset["versions"]:
            assert version["text"].startswith(f'<tallygate-preset name="{version["name"]}">')
            assert version["tokens"] > 0
            assert version["preset"] == {"slug": preset["slug"]}


async def test_the_operator_sees_what_it_cost(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """The upstream's cost stands on the receipt and on its attempt for the operator, in whatever workspace."""
    mine, installation = await tenant(credit_microusd=CREDIT), await tenant()
    provider.script(scripted.whole(CLAUDE.whole()))
    call_id = (await call(client, CLAUDE, mine, CLAUDE.body(stream=False))).headers["x-request-id"]
    await settled(call_id)
    headers = bearer(await operator_key(installation)) | {"x-workspace-id": str(mine.workspace_id)}
    told = (await client.get(f"/v1/receipts/{call_id}", headers=headers)).json()
    assert told["upstream_cost_usd"] == told["attempts"][0]["upstream_cost_usd"] == "0.00034"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bill_that_the_provider_tells_is_the_upstream_s_cost(client: httpx2.AsyncClient, provider: Upstream, stream: bool) -> None:
    """F15: what OpenRouter says that it bills stands as the upstream's cost of the call and of its attempt; the charge is by our own prices."""
    mine = await tenant(credit_microusd=CREDIT)
    usage = {"prompt_tokens": 25, "completion_tokens": 12, "total_tokens": 37, "cost": 0.00021, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.0002}}
    provider.script(scripted.stream(GPT.stream(usage=usage)) if stream else scripted.whole(GPT.whole(**usage)))
    call_id = (await call(client, GPT, mine, GPT.body(stream=stream))).headers["x-request-id"]
    await settled(call_id)
    told = (await client.get(f"/v1/receipts/{call_id}", headers=bearer(await operator_key(mine)))).json()
    assert (told["upstream_cost_usd"], told["attempts"][0]["upstream_cost_usd"]) == ("0.00021", "0.00021")
    assert told["charge_micros"] == GPT.price()


async def test_the_contract_s_operation_answers(client: httpx2.AsyncClient, provider: Upstream) -> None:
    """The operation Receipt as an operator of the same workspace: a call that a grant and cash paid, the grant first, and that nobody asked for again."""
    mine = await tenant(credit_microusd=CREDIT)
    gift = await grants.create(mine.caller(Scope.OPERATOR), None, NewGrant(amount_microusd=100, reason="launch", idempotency_key="g1"))
    provider.script(scripted.stream(CLAUDE.stream()))
    call_id = (await call(client, CLAUDE, mine, CLAUDE.body())).headers["x-request-id"]
    await settled(call_id)
    shown = (await graphql(client, await operator_key(mine), documents()["Receipt"], call=call_id))["receipt"]
    assert (shown["state"], shown["idempotent"], shown["replays"], shown["markup"]) == ("SETTLED", False, 0, None)
    assert [(part["source"], part["amount"]["usd"]) for part in shown["funding"]] == [("GRANT", "0.0001"), ("CASH", "0.00024")]
    assert [part["grant"] for part in shown["funding"]] == [{"reason": gift.reason, "expiresAt": None}, None]
    assert shown["charge"] == shown["listValue"] == shown["upstreamCost"] == {"usd": "0.00034"}
    assert shown["attempts"][0]["upstreamCost"] == {"usd": "0.00034"}
    assert shown["usageRecord"]["adjustments"] == []
