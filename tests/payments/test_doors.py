"""Every door that makes money or work, over REST and GraphQL: a key makes a retry the first answer again, and bad input moves nothing."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from graphql import build_schema, get_named_type

from clients.issuers import local_session
from domain.access import secrets
from embedded.stripe import billing as plans
from embedded.stripe import payments as bank
from models import database
from models.enums import ApiKeyMode
from rest.routes import PUBLISHED
from schema import ids
from tests.conftest import SECRET
from tests.payments.lives import Till
from tests.payments.test_graphql import ask
from tests.schema.serving import served_schema
from tests.support.calling import until
from tests.support.world import Tenant, operator_key, tenant

pytestmark = pytest.mark.anyio

Counter = tuple[httpx2.AsyncClient, Till]

REST: list[tuple[str, dict[str, object], dict[str, object] | None]] = [
    ("/v1/credits/checkout", {"amountUsd": 10}, {"amountUsd": 11}),
    ("/tenant/billing/topup", {"amount_usd": 10.5}, {"amount_usd": 10.51}),
    ("/tenant/billing/checkout", {"tier": "pro"}, {"tier": "max"}),
    ("/tenant/billing/portal", {}, None),
    ("/v1/keys", {"name": "ci"}, {"name": "cd"}),
    ("/tenant/keys", {"name": "ci", "kind": "subscription"}, {"name": "ci"}),
    ("/v1/client-tokens", {}, {"appId": "$app"}),
    ("/v1/apps", {"appId": "$new", "name": "App"}, {"appId": "$new", "name": "Another"}),
    (
        "/usage",
        {"api_name": "llm_query", "endpoint": "/chat", "units_used": 346, "cost_usd": 0.0043, "api_key_used": "x"},
        {"api_name": "llm_query", "endpoint": "/chat", "units_used": 347, "cost_usd": 0.0043, "api_key_used": "x"},
    ),
]
"""Path, a body, and another body where there is one. $app is an app that there is, $new the name of none."""

# the mutation with its whole selection; what is asked first; what is asked otherwise. $w, $pro, $max, $topUp, $subscription, $app are put in.
GRAPHQL: dict[str, tuple[str, str, str]] = {
    "creditsCheckoutCreate": ("topUp { id } checkoutSession { url }", "amountUsd: 10", "amountUsd: 11"),
    "subscriptionCheckoutCreate": ("checkoutSession { url }", "tierId: $pro", "tierId: $max"),
    "subscriptionUpdate": ("subscription { id }", "id: $subscription, tierId: $max", "id: $subscription, cancelAtPeriodEnd: true"),
    "subscriptionGrant": (
        "subscription { id }",
        'workspaceId: $w, tierId: $pro, reason: "partner"',
        'workspaceId: $w, tierId: $max, reason: "partner"',
    ),
    "creditsAdjust": ("transfer { id }", 'workspaceId: $w, amount: 5, reason: "sorry"', 'workspaceId: $w, amount: 6, reason: "sorry"'),
    "grantCreate": ("grant { id }", 'workspaceId: $w, amount: 5, reason: "launch"', 'workspaceId: $w, amount: 6, reason: "launch"'),
    "topUpRefund": ("refund { id }", 'id: $topUp, amount: 1000000, reason: "asked"', 'id: $topUp, amount: 2000000, reason: "asked"'),
    "exportCreate": (
        "export { id }",
        "source: { transactions: {} }, format: CSV",
        "source: { transactions: {} }, format: JSON_LINES",
    ),
    "usageRecordCreate": (
        "usageRecord { id }",
        'apiName: "llm_query", endpoint: "/chat", units: 1, cost: 1',
        'apiName: "llm_query", endpoint: "/chat", units: 2, cost: 1',
    ),
    "priceCreate": (
        "price { id }",
        'model: "echo", rows: [{ bucket: UNCACHED_INPUT, usd: "3" }], source: "invoice 11"',
        'model: "echo", rows: [{ bucket: UNCACHED_INPUT, usd: "4" }], source: "invoice 11"',
    ),
    "markupRuleCreate": ("markupRule { id }", "workspaceId: $w, numerator: 11, denominator: 10", "workspaceId: $w, numerator: 12, denominator: 10"),
    "deploymentCreate": (
        "deployment { id }",
        f'appId: $app, files: [{{ path: "index.html", bytes: 5, sha256: "{"a" * 64}" }}]',
        f'appId: $app, files: [{{ path: "index.html", bytes: 6, sha256: "{"b" * 64}" }}]',
    ),
    "apiKeyCreate": ("apiKey { id }", 'name: "ci"', 'name: "cd"'),
    "workspaceCreate": ("workspace { id }", 'name: "Lab"', 'name: "Other lab"'),
}
TESTS = Path(__file__).parents[1]


async def _rows(of: Tenant) -> dict[str, int]:
    """How much there is of everything that a door can make in a workspace."""
    tables = ("top_up", "transfer", "refund", "subscription", "credit_grant", "export", "usage_event", "api_key", "app", "client_token", "stripe_object", "audit_event")
    found = {}
    for table in tables:
        found[table] = await database.fetch_value(f'SELECT count(*) FROM "{table}" WHERE workspace_id = $1', of.workspace_id)
    return found


@pytest.mark.parametrize(("path", "body", "other"), REST, ids=[path for path, _, _ in REST])
async def test_a_key_over_rest(counter: Counter, path: str, body: dict[str, object], other: dict[str, object] | None) -> None:
    """F32: the same `Idempotency-Key` and body give the first answer, whole, secrets too; another body is refused in the door's shape; nothing more is made."""
    client, _ = counter
    customer = await tenant(credit_microusd=1_000_000)
    bearer = {"Authorization": f"Bearer {await operator_key(customer)}", "Idempotency-Key": "once"}
    if path == "/v1/apps":
        body, other = ({**each, "appId": f"a-{customer.workspace_id}"} for each in (body, other or {}))
    if other == {"appId": "$app"}:
        app = (await client.post("/v1/apps", json={"appId": f"a-{customer.workspace_id}", "name": "App"}, headers=bearer)).json()
        other = {"appId": app["appId"]}
    first = await client.post(path, json=body, headers=bearer)
    assert first.status_code in (200, 201), first.text
    made = await _rows(customer)
    again = await client.post(path, json=body, headers=bearer)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    if other is not None:
        refused = await client.post(path, json=other, headers=bearer)
        assert refused.status_code == 422
        assert set(refused.json()) <= {"error", "message", "detail"}
        assert "idempotency key was used before" in refused.text
    for key in ("", "x" * 241):
        assert (await client.post(path, json=body, headers={**bearer, "Idempotency-Key": key})).status_code in (400, 422), key
    assert await _rows(customer) == made


async def test_every_post_takes_a_key(counter: Counter) -> None:
    """F32: every documented POST that a caller may make is tried above, or makes a deployment, which has a test of its own; the description says so."""
    client, _ = counter
    posts = {operation.path for document in PUBLISHED for operation in document.operations if operation.method == "POST"}
    assert posts == {*(path for path, _, _ in REST), "/v1/apps/{appId}/deploy"}
    described = (await client.get("/openapi.json")).json()["paths"]
    for path in posts:
        assert "Idempotency-Key" in {each["name"] for each in described[path]["post"]["parameters"]}, path


@pytest.mark.parametrize("path", ["/v1/keys", "/tenant/keys"])
async def test_a_secret_is_told_again_to_nobody_else(counter: Counter, path: str) -> None:
    """A repeat by another caller, after a day, or of what GraphQL made is 409 without a secret; the key itself works."""
    client, _ = counter
    customer = await tenant()
    once = {"Idempotency-Key": "once"}
    made = (await client.post(path, json={"name": "ci"}, headers={**customer.bearer, **once})).json()
    assert secrets.well_formed(made["key"])
    assert (await client.get("/tenant/credits", headers={"Authorization": f"Bearer {made['key']}"})).status_code == 200
    other = {"Authorization": f"Bearer {await operator_key(customer)}", **once}
    refused = await client.post(path, json={"name": "ci"}, headers=other)
    assert (refused.status_code, made["key"] in refused.text, made["id"] in refused.text) == (409, False, True)
    await database.fetch("UPDATE api_key SET created_at = created_at - interval '1 day' WHERE workspace_id = $1 AND name = 'ci'", customer.workspace_id)
    refused = await client.post(path, json={"name": "ci"}, headers={**customer.bearer, **once})
    assert (refused.status_code, made["key"] in refused.text) == (409, False)
    await ask(client, customer, 'mutation { apiKeyCreate(input: { name: "cd", idempotencyKey: "graph" }) { apiKey { id } } }')
    assert (await client.post(path, json={"name": "cd"}, headers={**customer.bearer, "Idempotency-Key": "graph"})).status_code == 409
    assert await database.fetch_value("SELECT count(*) FROM api_key WHERE workspace_id = $1 AND name IN ('ci', 'cd')", customer.workspace_id) == 2


async def test_a_token_is_told_again_to_its_maker(counter: Counter) -> None:
    """Another key of the workspace, which may do less, does not get the first one's token by its idempotency key; nor is one told that is over."""
    client, _ = counter
    customer = await tenant()
    headers = {**customer.bearer, "Idempotency-Key": "once"}
    made = await client.post("/v1/client-tokens", json={}, headers=headers)
    assert (await client.post("/v1/client-tokens", json={}, headers=headers)).json() == made.json()
    _, narrow = await customer.mint(name="narrow")
    refused = await client.post("/v1/client-tokens", json={}, headers={**headers, "Authorization": f"Bearer {narrow}"})
    assert (refused.status_code, "token" in refused.json()) == (422, False)
    await database.fetch("UPDATE client_token SET expires_at = clock_timestamp() WHERE workspace_id = $1", customer.workspace_id)
    assert (await client.post("/v1/client-tokens", json={}, headers=headers)).status_code == 409


async def _world(client: httpx2.AsyncClient, till: Till, customer: Tenant) -> dict[str, str]:
    """A workspace with a subscription and a payment, which what is asked can name."""
    slugs = {each["slug"]: each["id"] for each in (await ask(client, customer, "{ tiers { id slug } }"))["tiers"]}
    page = (await ask(client, customer, "S4_Checkout", tier=slugs["pro"]))["subscriptionCheckoutCreate"]["checkoutSession"]["url"]
    plans.pay_subscription(till.account, page.rsplit("/", 1)[-1])
    bought = (await ask(client, customer, "S4_TopUp"))["creditsCheckoutCreate"]
    bank.pay(till.account, bought["checkoutSession"]["sessionId"])

    async def heard() -> bool:
        there = await database.fetch_value("SELECT count(*) FROM subscription WHERE workspace_id = $1", customer.workspace_id)
        return bool(there and (await customer.balance()).cash >= 12_500_000)

    await until(heard, "a subscription and credit")
    slug = f"a-{uuid4().hex[:12]}"
    app = (await ask(client, customer, f'mutation {{ appCreate(input: {{ slug: "{slug}", name: "A" }}) {{ app {{ id }} }} }}'))["appCreate"]["app"]["id"]
    subscription = await database.fetch_value("SELECT id FROM subscription WHERE workspace_id = $1", customer.workspace_id)
    return {
        "app": app,
        "w": ids.encode("Workspace", customer.workspace_id),
        "pro": slugs["pro"],
        "max": slugs["max"],
        "topUp": bought["topUp"]["id"],
        "subscription": ids.encode("TierSubscription", subscription),
    }


async def test_a_key_over_graphql(counter: Counter) -> None:
    """F32: the same `idempotencyKey` and input give the first payload, whole; another input is IDEMPOTENCY_CONFLICT at its path, and nothing more is made."""
    client, till = counter
    customer = await tenant(credit_microusd=1_000_000)
    world = await _world(client, till, customer)
    operator = await operator_key(customer)
    person = local_session(SECRET, customer.owner_email, "Olga Owner", at=datetime.now(UTC))
    for name, (selection, first_input, other_input) in GRAPHQL.items():

        async def run(asked: str, name: str = name, selection: str = selection) -> Any:
            for place, value in world.items():
                asked = asked.replace(f"${place}", json.dumps(value))
            query = f'mutation {{ {name}(input: {{ {asked}, idempotencyKey: "once" }}) {{ {selection} userErrors {{ code path }} }} }}'
            return (await ask(client, customer, query, person if name == "workspaceCreate" else operator))[name]

        first = await run(first_input)
        assert first["userErrors"] == [], name
        made = await _rows(customer)
        assert await run(first_input) == first, name
        refused = await run(other_input)
        assert refused["userErrors"] == [{"code": "IDEMPOTENCY_CONFLICT", "path": ["input", "idempotencyKey"]}], name
        assert {value for field, value in refused.items() if field != "userErrors"} == {None}, name
        assert await _rows(customer) == made, name


def test_every_mutation_with_a_key_is_tried() -> None:
    """A served mutation that takes an idempotency key is tried above, or in a test of its own that names both."""
    schema = build_schema(served_schema().sdl)
    assert schema.mutation_type is not None
    inputs = {name: each.args["input"].type for name, each in schema.mutation_type.fields.items() if "input" in each.args}
    keyed = {name for name, kind in inputs.items() if "idempotencyKey" in get_named_type(kind).fields}
    texts = [path.read_text() for path in TESTS.rglob("test_*.py") if path.name != "test_doors.py"]
    untried = [name for name in keyed - set(GRAPHQL) if not any(name in text and "idempotencyKey" in text for text in texts)]
    assert sorted(untried) == []
    assert set(GRAPHQL) <= keyed


# What is no amount at all is refused as input, what is one out of bounds is told at its field.
NO_AMOUNTS = ("NaN", "1.5", '"ten"', "true", "9007199254740993", "-9007199254740993", "99999999999999999999999", "null", "[]", "{}")
BOUNDS: list[tuple[str, str, str]] = [
    ("creditsAdjust", 'workspaceId: $w, reason: "x", idempotencyKey: "b", amount: {}', "0 1000000000001 -1000000000001"),
    ("grantCreate", 'workspaceId: $w, reason: "x", idempotencyKey: "b", amount: {}', "0 -1 1000000000001"),
    ("topUpRefund", 'id: $topUp, reason: "x", idempotencyKey: "b", amount: {}', "0 -1 12500001"),
    ("usageRecordCreate", 'apiName: "llm_query", endpoint: "/chat", units: 1, cost: {}', "-1"),
    ("autoTopUpUpdate", "enabled: true, threshold: 1, dailyCap: 5000000, amount: {}", "-1 0 4999999 1000000001"),
    ("autoTopUpUpdate", "enabled: true, amount: 5000000, dailyCap: 5000000, threshold: {}", "-1 1000000000001"),
]


async def test_amounts_that_are_none(counter: Counter) -> None:
    """NaN, fractions, texts, overflows: refused before anything is done; out of bounds: told at the field, in words; nothing moves either way."""
    client, till = counter
    customer = await tenant(credit_microusd=1_000_000)
    world = await _world(client, till, customer)
    operator = await operator_key(customer)
    made = await _rows(customer)
    for name, asked, out_of_bounds in BOUNDS:
        for place, value in world.items():
            asked = asked.replace(f"${place}", json.dumps(value))
        for amount in (*out_of_bounds.split(), *NO_AMOUNTS):
            query = f"mutation {{ {name}(input: {{ {asked.replace('{}', amount)} }}) {{ userErrors {{ code path }} }} }}"
            if amount == "null" and name in ("topUpRefund", "autoTopUpUpdate"):
                continue  # there it means the whole payment, or no change
            answer = await client.post("/graphql", json={"query": query}, headers={"Authorization": f"Bearer {operator}"})
            told = answer.json()
            if amount in NO_AMOUNTS:
                assert {error["extensions"]["code"] for error in told["errors"]} <= {"GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT", "GRAPHQL_PARSE_FAILED"}
                assert told.get("data") is None, (name, amount, told)
            else:
                (error,) = told["data"][name]["userErrors"]
                assert error["code"] in ("TOO_SMALL", "TOO_LARGE", "INVALID"), (name, amount, told)
                assert error["path"][0] == "input"
    assert await _rows(customer) == made


FOREIGN: list[tuple[str, str]] = [
    ("subscriptionUpdate", "id: $subscription, tierId: $max"),
    ("subscriptionUpdate", "id: $subscription, cancelAtPeriodEnd: true"),
    ("subscriptionCheckoutCreate", 'tierId: "bm8="'),
    ("subscriptionGrant", 'workspaceId: "bm8=", tierId: $pro, reason: "x", idempotencyKey: "f"'),
    ("grantCreate", 'workspaceId: "bm8=", amount: 1, reason: "x", idempotencyKey: "f"'),
    ("creditsAdjust", 'workspaceId: "bm8=", amount: 1, reason: "x", idempotencyKey: "f"'),
]


async def test_what_is_another_s_or_nobody_s(counter: Counter) -> None:
    """Another workspace's payment and subscription, unknown tiers and workspaces: NOT_FOUND at the field, and nothing moves on either side."""
    client, till = counter
    victim, stranger = await tenant(), await tenant()
    world = await _world(client, till, victim)
    operator = await operator_key(stranger)
    before = await _rows(victim), await _rows(stranger)
    for name, asked in FOREIGN:
        for place, value in world.items():
            asked = asked.replace(f"${place}", json.dumps(value))
        told = (await ask(client, stranger, f"mutation {{ {name}(input: {{ {asked} }}) {{ userErrors {{ code path }} }} }}", operator))[name]
        (error,) = told["userErrors"]
        assert (error["code"], error["path"][0]) == ("NOT_FOUND", "input"), (name, told)
    assert (await _rows(victim), await _rows(stranger)) == before
    assert (await stranger.balance()).cash == 0


async def test_a_test_key_touches_no_money(counter: Counter) -> None:
    """Whatever buys, subscribes, or moves credit is refused for a test key, at every door; nothing is begun, here or at Stripe."""
    client, till = counter
    customer = await tenant(credit_microusd=10_000_000, mode=ApiKeyMode.TEST)
    before = len(till.account.objects)
    for path, body in (
        ("/v1/credits/checkout", {"amountUsd": 10}),
        ("/tenant/billing/topup", {"amount_usd": 10}),
        ("/tenant/billing/checkout", {"tier": "pro"}),
        ("/tenant/billing/portal", {}),
    ):
        answer = await client.post(path, json=body, headers=customer.bearer)
        assert (answer.status_code, "never touches money" in answer.text) == (403, True), path
    app = {"appId": f"test-{customer.workspace_id.hex[:20]}", "name": "Test"}
    assert (await client.post("/v1/apps", json=app, headers=customer.bearer)).status_code == 201
    app_id = (await ask(client, customer, "query($s: Slug!) { app(slug: $s) { id } }", s=app["appId"]))["app"]["id"]
    subscription = ids.encode("TierSubscription", uuid4())
    for mutation in (
        "creditsCheckoutCreate(input: { amountUsd: 10 })",
        'subscriptionCheckoutCreate(input: { tierId: "VGllcjpwcm8" })',
        "billingPortalCreate(input: {})",
        f'subscriptionUpdate(input: {{ id: "{subscription}", cancelAtPeriodEnd: true }})',
        "autoTopUpUpdate(input: { enabled: false })",
        "billingUpdate(input: { overageAllowed: true })",
        f'walletAdjust(input: {{ appId: "{app_id}", endUserId: "u", amount: 5, idempotencyKey: "w" }})',
    ):
        told = (await client.post("/graphql", json={"query": f"mutation {{ {mutation} {{ __typename }} }}"}, headers=customer.bearer)).json()
        assert told["errors"][0]["extensions"]["code"] == "FORBIDDEN", (mutation, told)
    assert len(till.account.objects) == before
    assert (await customer.balance()).balance == 10_000_000
