"""Credit over GraphQL: the account as it changes, the statement of every account, promotional credit; the contract's operations with real data."""

import asyncio
import json
from typing import Any

import pytest

from models.enums import Scope
from schema import ids
from tests.schema.serving import Served
from tests.schema.test_operations import answer, documents, instant, run

pytestmark = pytest.mark.anyio


async def test_the_balance_is_followed(served: Served) -> None:
    """Console_Balance: the account at once, then each change of what is there and what is set aside; a key without the scope follows nothing."""
    mine = await served.owner()
    await served.credit(mine, 1_000_000)
    price = await served.offer("followed-model", input_usd="1", output_usd="2")
    _, secret = await served.key(mine)
    headers = {"authorization": f"Bearer {mine.session}", "accept": "text/event-stream"}
    told: list[dict[str, Any]] = []
    async with served.http.stream("POST", "/graphql", json={"query": documents()["Console_Balance"]}, headers=headers, timeout=60) as stream:
        async with asyncio.timeout(60):
            async for line in stream.aiter_lines():
                if not line.startswith("data:") or not line.removeprefix("data:").strip():
                    continue
                told.append(json.loads(line.removeprefix("data:"))["data"]["creditsChanged"])
                if len(told) == 1:
                    await served.call(secret, price, input_tokens=100_000, output_tokens=50_000)
                elif told[-1]["available"]["usd"] == "0.80" and told[-1]["held"]["usd"] == "0.00":
                    await served.credit(mine, 250_000)
                elif told[-1]["available"]["usd"] == "1.05":
                    break
    assert told[0] == {"available": {"usd": "1.00"}, "held": {"usd": "0.00"}}
    assert told[-1] == {"available": {"usd": "1.05"}, "held": {"usd": "0.00"}}
    assert len({json.dumps(each) for each in told}) == len(told), "nothing is told twice"
    _, blind = await served.key(mine, scopes=frozenset({Scope.KEYS_READ}))
    refused = await served.http.post(
        "/graphql", json={"query": documents()["Console_Balance"]}, headers={"authorization": f"Bearer {blind}", "accept": "text/event-stream"}
    )
    assert "FORBIDDEN" in refused.text
    assert '"available"' not in refused.text


async def test_credits_of_a_workspace_that_has_bought_nothing(served: Served) -> None:
    """Credits: every field, with a grant, a charge and its carry, and nothing bought."""
    mine, boss = await served.owner(), await served.operator()
    await served.offer("auto", input_usd="1", output_usd="2")
    made = (await run(served, "GrantCreate", boss, w=ids.encode("Workspace", mine.workspace.id)))["grantCreate"]
    await served.credit(mine, 2_000_000)
    price = await served.offer("thirds", input_usd="0.333333", output_usd="2")
    _, secret = await served.key(mine)
    await served.call(secret, price, input_tokens=1, output_tokens=0)
    told = (await run(served, "Credits", mine.session))["credits"]
    assert told == {
        "balance": {"usd": "12.00"},
        "cash": {"usd": "2.00"},
        "granted": {"usd": "10.00"},
        "held": {"usd": "0.00"},
        "available": {"usd": "12.00"},
        "carryUsd": "0.000000333333",
        "writeOffBound": {"usd": "0.00"},
        "frozenAt": None,
        "topUpTerms": {"minimumUsd": 5, "maximumUsd": 1000, "suggestedUsd": [10, 25, 50, 100]},
        "fundingOrder": ["QUOTA"],
        "autoTopUp": {
            "enabled": False,
            "threshold": None,
            "amount": None,
            "dailyCap": None,
            "cooldownSeconds": 300,
            "paymentMethod": None,
            "pending": None,
            "lastFailure": None,
        },
        "grants": {
            "nodes": [
                {
                    "id": made["grant"]["id"],
                    "amount": {"usd": "10.00"},
                    "remaining": {"usd": "10.00"},
                    "status": "ACTIVE",
                    "priority": 10,
                    "models": [{"name": "auto"}],
                    "apps": None,
                    "reason": "launch",
                    "expiresAt": "2027-01-01T00:00:00.000Z",
                }
            ]
        },
        "topUps": {"nodes": []},
    }


async def test_grant_create_as_the_contract_writes_it(served: Served) -> None:
    """GrantCreate: the grant and its account; the same key gives the same one; a customer may not."""
    mine, boss = await served.owner(), await served.operator()
    await served.offer("auto", input_usd="1", output_usd="2")
    workspace = ids.encode("Workspace", mine.workspace.id)
    made = (await run(served, "GrantCreate", boss, w=workspace))["grantCreate"]
    assert made == {"grant": {"id": made["grant"]["id"], "account": {"id": made["grant"]["account"]["id"]}}, "userErrors": []}
    assert (await run(served, "GrantCreate", boss, w=workspace))["grantCreate"] == made
    accounts = (await run(served, "Ledger", mine.session))["credits"]["accounts"]
    assert [(each["id"], each["balance"]["microUsd"]) for each in accounts if each["kind"] == "GRANT"] == [(made["grant"]["account"]["id"], 10_000_000)]
    assert (await answer(served, "GrantCreate", mine.session, w=workspace)).codes == ["FORBIDDEN"]


async def test_the_ledger_of_each_account(served: Served) -> None:
    """Ledger: accounts with every transfer, both ends named, who and why, and the balance after each; the statement narrowed to payments."""
    mine, boss = await served.owner(), await served.operator()
    await served.offer("auto", input_usd="1", output_usd="2")
    await run(served, "GrantCreate", boss, w=ids.encode("Workspace", mine.workspace.id))
    await served.credit(mine, 2_000_000)
    price = await served.offer("ledgered", input_usd="1", output_usd="2")
    _, secret = await served.key(mine)
    await served.call(secret, price, input_tokens=100_000, output_tokens=50_000)
    told = (await run(served, "Ledger", mine.session))["credits"]
    by_kind = {each["kind"]: each for each in told["accounts"]}
    cash, grant = by_kind["CASH"], by_kind["GRANT"]
    assert (cash["name"], cash["balance"], cash["held"], cash["floor"]) == ("Cash", {"microUsd": 1_800_000}, {"microUsd": 0}, {"microUsd": 0})
    assert (grant["name"], grant["balance"], grant["held"], grant["floor"]) == ("Grant", {"microUsd": 10_000_000}, {"microUsd": 0}, {"microUsd": 0})
    charge, credit = cash["transfers"]["edges"]
    assert abs((instant(charge["node"].pop("createdAt")) - instant(credit["node"].pop("createdAt"))).total_seconds()) < 600
    assert charge == {
        "change": {"microUsd": -200_000},
        "balanceAfter": {"microUsd": 1_800_000},
        "node": {
            "kind": "CHARGE",
            "amount": {"microUsd": 200_000},
            "debit": {"name": "Cash"},
            "credit": {"name": "Revenue"},
            "actor": {"kind": "SYSTEM", "name": "settlement"},
            "reason": None,
            "topUp": None,
        },
    }
    assert credit == {
        "change": {"microUsd": 2_000_000},
        "balanceAfter": {"microUsd": 2_000_000},
        "node": {
            "kind": "ADJUSTMENT",
            "amount": {"microUsd": 2_000_000},
            "debit": {"name": "Adjustments"},
            "credit": {"name": "Cash"},
            "actor": {"kind": "SYSTEM", "name": "tests"},
            "reason": "for tests",
            "topUp": None,
        },
    }
    (given,) = grant["transfers"]["edges"]
    assert (given["change"], given["node"]["debit"], given["node"]["reason"]) == ({"microUsd": 10_000_000}, {"name": "Promotions"}, "launch")
    assert told["transactions"] == {"totalCount": 0, "edges": []}
