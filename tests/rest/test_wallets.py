"""Selling on: an app's end users, their wallets and caps, by the contract's operations and real calls against a running gateway."""

from typing import Any

import httpx2
import pytest

from domain.money import ledger
from domain.money.amounts import usd
from domain.pages import Page
from models import database
from models.enums import TransferKind
from schema import ids
from tests.apps.deploying import SITE, deploy, make_app
from tests.rest.test_deployments import app_id_of
from tests.schema.test_operations import documents
from tests.support.world import Tenant, broken, operator_key, tenant

pytestmark = pytest.mark.anyio

ORIGIN = "https://my-app.example"
BODY: dict[str, Any] = {"model": "echo", "max_tokens": 20, "messages": [{"role": "user", "content": "Say it again."}]}
MINT = """mutation ($app: ID!, $name: String) { clientTokenCreate(input: { appId: $app, endUserId: $name, allowedOrigins: ["https://my-app.example"] }) {
  token clientToken { id endUser { id } } userErrors { code message path } } }"""


async def ask(client: httpx2.AsyncClient, bearer: dict[str, str], document: str, **variables: object) -> Any:
    """The data of a document."""
    answer = (await client.post("/graphql", json={"query": document, "variables": variables}, headers=bearer)).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def run(client: httpx2.AsyncClient, of: Tenant, name: str, **variables: object) -> Any:
    """The data of an operation of the contract, asked with the workspace's key."""
    return await ask(client, of.bearer, documents()[name], **variables)


async def call(client: httpx2.AsyncClient, token: str, **more: Any) -> httpx2.Response:
    """Call a model as a browser with a token."""
    return await client.post("/v1/messages", json=BODY | more, headers={"Authorization": f"Bearer {token}", "Origin": ORIGIN})


async def test_an_app_is_told_whole(client: httpx2.AsyncClient) -> None:
    """AppCaps, WalletAdjust, AppWhole, EndUserBlock, ClientTokenRevoke, AppKill: every field is what calls, moves and settings made it."""
    mine = await tenant(credit_microusd=10_000_000)
    slug = await make_app(client, mine)
    app_id = await app_id_of(client, mine, slug)
    assert (await deploy(client, mine, slug, SITE, **{"X-Message": "first"})).status_code in (200, 201, 202)
    caps = (await run(client, mine, "AppCaps", id=app_id))["appUpdate"]
    assert caps == {"app": {"walletMarkup": "1.25"}, "userErrors": []}
    filled = (await run(client, mine, "WalletAdjust", app=app_id))["walletAdjust"]
    again = (await run(client, mine, "WalletAdjust", app=app_id))["walletAdjust"]
    assert filled == again
    assert (filled["endUser"], filled["userErrors"]) == ({"wallet": {"balance": {"usd": "3.00"}}}, [])
    assert (await mine.balance()).cash == 7_000_000

    made = (await ask(client, mine.bearer, MINT, app=app_id, name="u1"))["clientTokenCreate"]
    assert made["userErrors"] == []
    answers = [await call(client, made["token"]) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    rows = await database.fetch(
        "SELECT id, charge_microusd AS charge, wallet_microusd AS wallet FROM usage_event WHERE workspace_id = $1 AND kind = 'call' ORDER BY id", mine.workspace_id
    )
    assert [row["wallet"] for row in rows] == [(row["charge"] * 5 + 2) // 4 for row in rows]
    charge, wallet = sum(row["charge"] for row in rows), sum(row["wallet"] for row in rows)
    assert charge > 0
    assert [int(answer.headers["x-tallygate-charge-microusd"]) for answer in answers] == [row["wallet"] for row in rows]
    assert int(answers[1].headers["x-tallygate-balance-microusd"]) == 3_000_000 - wallet

    operator = {"Authorization": f"Bearer {await operator_key(mine)}"}
    whole = documents()["AppWhole"].replace('"my-app"', f'"{slug}"')
    app = (await ask(client, operator, whole))["app"]
    assert (app["createdBy"]["name"], app["suspendedAt"], app["walletMarkup"]) == ("first", None, "1.25")
    together, apart = app["budgets"]
    assert (together["window"], together["limit"]["usd"], together["per"], together["model"], together["held"]["usd"]) == ("day", "5.00", "TOGETHER", None, "0.00")
    assert (together["spent"]["usd"], together["remaining"]["usd"]) == (usd(charge), usd(5_000_000 - charge))
    assert together["startedAt"] < together["resetsAt"]
    assert (apart["per"], apart["limit"]["usd"], apart["spent"], apart["held"], apart["remaining"]) == ("END_USER", "0.20", None, None, None)
    (limit,) = app["limits"]
    assert (limit["resource"], limit["window"], limit["limit"], limit["per"], limit["used"]) == ("API_CALLS", "1m", 20, "ADDRESS", None)
    (token,) = app["clientTokens"]["nodes"]
    assert token == {
        "id": made["clientToken"]["id"],
        "endUser": {"externalId": "u1"},
        "createdBy": {"name": "first"},
        "allowedOrigins": [ORIGIN],
        "allowedModels": None,
        "spendCap": None,
        "spent": {"usd": usd(charge)},
        "requestCap": None,
        "requests": 2,
        "expiresAt": token["expiresAt"],
        "revokedAt": None,
    }
    (end_user,) = app["endUsers"]["nodes"]
    assert (end_user["id"], end_user["externalId"], end_user["blockedAt"], end_user["limits"]) == (made["clientToken"]["endUser"]["id"], "u1", None, [])
    assert end_user["firstSeenAt"] <= end_user["lastSeenAt"]
    assert end_user["wallet"]["balance"] == end_user["wallet"]["available"] == {"usd": usd(3_000_000 - wallet)}
    edges = end_user["wallet"]["transfers"]["edges"]
    assert sum(row["wallet"] for row in rows) + sum(round(float(edge["change"]["usd"]) * 1_000_000) for edge in edges[:-1]) == 0
    assert (edges[-1]["change"]["usd"], edges[-1]["balanceAfter"]["usd"]) == ("3.00", "3.00")
    assert edges[0]["balanceAfter"] == end_user["wallet"]["balance"]
    assert end_user["usage"]["totals"] == {"cost": {"usd": usd(charge)}, "walletCost": {"usd": usd(wallet)}}
    (deployment,) = app["deployments"]["nodes"]
    assert (deployment["version"], deployment["progress"], deployment["live"], len(deployment["files"]["nodes"])) == (1, 1, True, 3)
    assert deployment["log"][-1]["message"] == "Version 1 is live."
    cost = await database.fetch_value("SELECT sum(upstream_cost_picousd) FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
    assert app["usage"]["totals"] == {
        "cost": {"usd": usd(charge)},
        "walletCost": {"usd": usd(wallet)},
        "margin": {"usd": usd(charge - -(-int(cost) // 1_000_000))},
    }
    assert (await mine.balance()).cash == 7_000_000 + wallet - charge

    for row in rows:  # what paid is told on every charge
        receipt = (await client.get(f"/v1/receipts/{row['id']}", headers=mine.bearer)).json()
        assert [part["source"].lower() for part in receipt["funding"]] == ["wallet"], receipt
    page = (await run(client, mine, "UsageFiltered"))["usageRecords"]
    assert page == {"nodes": []}

    blocked = (await run(client, mine, "EndUserBlock", id=end_user["id"]))["endUserUpdate"]
    assert blocked["userErrors"] == []
    assert blocked["endUser"]["blockedAt"] is not None
    assert (await call(client, made["token"])).status_code == 403
    assert (await run(client, mine, "ClientTokenRevoke", app=app_id))["clientTokenRevoke"] == {"revokedCount": 1, "userErrors": []}
    assert (await call(client, made["token"])).status_code == 401
    fresh = (await ask(client, mine.bearer, MINT, app=app_id, name="u2"))["clientTokenCreate"]["token"]
    assert (await call(client, fresh)).status_code == 200
    killed = (await run(client, mine, "AppKill", id=app_id))["appUpdate"]
    assert (killed["userErrors"], killed["app"]["suspendedAt"] is not None) == ([], True)
    assert (await call(client, fresh)).status_code == 403
    assert await broken(mine) == []


ADJUST = """mutation ($app: ID!, $name: String!, $amount: MicroUsd!, $reason: String, $key: String!) {
  walletAdjust(input: { appId: $app, endUserId: $name, amount: $amount, reason: $reason, idempotencyKey: $key }) {
    endUser { id wallet { kind name balance { microUsd } held { microUsd } available { microUsd } floor { microUsd } } }
    transfer { kind amount { microUsd } reason actor { kind } debit { kind } credit { kind } idempotencyKey }
    userErrors { code message path ... on InsufficientCreditError { available { microUsd } } } } }"""


async def test_credit_moves_into_a_wallet_and_back(client: httpx2.AsyncClient) -> None:
    """walletAdjust: once for each key, in the books with actor and reason; too much, nothing, another's app and a bad name change nothing."""
    mine, other = await tenant(credit_microusd=1_000), await tenant(credit_microusd=1_000)
    slug = await make_app(client, mine)
    app_id = await app_id_of(client, mine, slug)

    async def adjust(amount: int, key: str, name: str = "ann", of: Tenant = mine, app: str = app_id, reason: str | None = "bought") -> Any:
        return (await ask(client, of.bearer, ADJUST, app=app, name=name, amount=amount, key=key, reason=reason))["walletAdjust"]

    first = await adjust(600, "a")
    assert first == await adjust(600, "a")
    assert first["endUser"]["wallet"] == {
        "kind": "WALLET",
        "name": "Wallet",
        "balance": {"microUsd": 600},
        "held": {"microUsd": 0},
        "available": {"microUsd": 600},
        "floor": {"microUsd": 0},
    }
    assert first["transfer"] == {
        "kind": "WALLET",
        "amount": {"microUsd": 600},
        "reason": "bought",
        "actor": {"kind": "API_KEY"},
        "debit": {"kind": "CASH"},
        "credit": {"kind": "WALLET"},
        "idempotencyKey": "wallet:adjust:a",
    }
    back = await adjust(-250, "b", reason=None)
    assert (back["transfer"]["debit"]["kind"], back["transfer"]["reason"], back["endUser"]["wallet"]["balance"]) == ("WALLET", None, {"microUsd": 350})
    refused = [
        (await adjust(700, "c"), "INSUFFICIENT_CREDIT", None, {"microUsd": 650}),
        (await adjust(-351, "d"), "INSUFFICIENT_CREDIT", None, {"microUsd": 350}),
        (await adjust(0, "e"), "TOO_SMALL", ["input", "amount"], None),
        (await adjust(2 * 10**12, "f"), "TOO_LARGE", ["input", "amount"], None),
        (await adjust(5, "a"), "IDEMPOTENCY_CONFLICT", None, None),
        (await adjust(5, ""), "INVALID", ["input", "idempotencyKey"], None),
        (await adjust(5, "g", name=""), "INVALID", ["input", "endUserId"], None),
        (await adjust(5, "h", name="a\x07"), "INVALID", ["input", "endUserId"], None),
        (await adjust(5, "i", reason="x" * 501), "INVALID", ["input", "reason"], None),
        (await adjust(-5, "j", name="bob"), "NOT_FOUND", ["input", "endUserId"], None),
        (await adjust(5, "k", of=other), "NOT_FOUND", ["input", "appId"], None),
        (await adjust(-5, "l", of=other), "NOT_FOUND", ["input", "endUserId"], None),
        (await adjust(5, "m", app=ids.encode("ApiKey", mine.key.id)), "NOT_FOUND", ["input", "appId"], None),
    ]
    for answer, code, path, available in refused:
        (error,) = answer["userErrors"]
        assert (error["code"], answer["endUser"], answer["transfer"], error.get("available")) == (code, None, None, available), error
        assert path is None or error["path"] == path
    assert ((await mine.balance()).cash, (await other.balance()).cash) == (650, 1_000)

    # Filled from cash only, and left where it is when its app is gone: the workspace can take it back.
    assert (await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)).status_code in (200, 204)
    assert (await adjust(1, "n"))["userErrors"][0]["code"] == "NOT_FOUND"
    assert (await adjust(-350, "o"))["endUser"]["wallet"]["balance"] == {"microUsd": 0}
    statement = await ledger.statement(mine.caller(), Page())
    assert [(entry.transfer.kind, entry.change) for entry in statement.items] == [
        (TransferKind.WALLET, 350),
        (TransferKind.WALLET, 250),
        (TransferKind.WALLET, -600),
        (TransferKind.ADJUSTMENT, 1_000),
    ]
    noted = await database.fetch("SELECT subject_kind, reason FROM audit_event WHERE workspace_id = $1 AND action = 'wallet.adjust' ORDER BY id", mine.workspace_id)
    assert [tuple(row) for row in noted] == [("EndUser", "bought"), ("EndUser", None), ("EndUser", "bought")]
    assert await broken(mine) == []


async def test_a_keys_budgets_and_usage_are_told_together(client: httpx2.AsyncClient) -> None:
    """S0_ClientToken, ClientTokenBounded and Console_Keys: what a key's tokens spend is the key's, in its budgets and in its usage."""
    mine = await tenant(credit_microusd=1_000_000)
    slug = await make_app(client, mine)
    app_id = await app_id_of(client, mine, slug)
    plain = (await run(client, mine, "S0_ClientToken", app=app_id))["clientTokenCreate"]
    bounded = (await run(client, mine, "ClientTokenBounded", app=app_id))["clientTokenCreate"]
    assert (plain["userErrors"], bounded["userErrors"]) == ([], [])
    host = str(await database.fetch_value("SELECT allowed_origins[1] FROM client_token WHERE workspace_id = $1 ORDER BY created_at, id LIMIT 1", mine.workspace_id))
    answer = await client.post("/v1/messages", json=BODY, headers={"Authorization": f"Bearer {plain['token']}", "Origin": host})
    assert answer.status_code == 200, answer.text
    assert "x-tallygate-balance-microusd" not in answer.headers  # what its maker has left is no visitor's business
    (key,) = (await run(client, mine, "Console_Keys"))["apiKeys"]["nodes"]
    charge = int(answer.headers["x-tallygate-charge-microusd"])
    assert (key["id"], key["usage"]["totals"]) == (ids.encode("ApiKey", mine.key.id), {"cost": {"usd": usd(charge)}, "requests": 1})
    other = await call(client, bounded["token"], model="echo")
    assert other.status_code == 403  # the token is for `auto`
