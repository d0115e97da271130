"""Markup on the inference roads: each call's hold and charge go by the rule that is the most particular for its own app, workspace and tier."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import httpx2
import pytest

from domain.money import markup
from domain.money.markup import NewRule
from models import database
from models.enums import Scope
from tests.proxy.test_client_tokens import BODY, ORIGIN, app_of, as_key, minted
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, subscribed, tenant

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Cost:
    """What a call held, what it is worth at list price, and what it was charged; microdollars."""

    held: int
    listed: int
    charged: int


async def cost(gateway: Gateway, of: Tenant, token: str | None = None) -> Cost:
    """Call the echo once, and look at what that came to."""
    headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN} if token else of.bearer
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        answer = await client.post("/v1/messages", json=BODY, headers=headers)
        assert answer.status_code == 200, answer.text
        receipt = (await client.get(f"/v1/receipts/{answer.headers['x-request-id']}", headers=of.bearer)).json()
    row = await database.fetch_row(
        """
        SELECT h.amount, e.list_microusd, e.charge_microusd FROM hold h JOIN usage_event e ON e.workspace_id = h.workspace_id AND e.id = h.call_id
         WHERE h.workspace_id = $1 ORDER BY h.call_id DESC LIMIT 1
        """,
        of.workspace_id,
    )
    assert row is not None
    told = receipt["markup"] or {"numerator": 1, "denominator": 1}
    assert row["charge_microusd"] == row["list_microusd"] * told["numerator"] // told["denominator"]
    return Cost(*row)


def times(plain: Cost, factor: int) -> Cost:
    """What a call comes to under a rule."""
    return Cost(plain.held * factor, plain.listed, plain.charged * factor)


async def rule(of: Tenant, factor: int, **scope: object) -> None:
    """Make a rule."""
    await markup.create(of.caller(Scope.OPERATOR), NewRule(factor, 1, uuid4().hex, **scope))  # type: ignore[arg-type]  # each names its own type


async def test_a_hold_covers_the_rule_of_its_own_call(gateway: Gateway) -> None:
    """App before workspace before tier, in the hold as in the charge; one customer's rule is in nobody else's hold; a tier's ends with its subscription."""
    plain, mine, tiered = [await tenant(credit_microusd=1_000_000) for _ in range(3)]
    ordinary = await cost(gateway, plain)
    assert ordinary == await cost(gateway, mine)
    app, other = await app_of(mine), await app_of(mine)
    _, token = await minted(as_key(mine), app_id=app.id)
    _, foreign = await minted(as_key(mine), app_id=other.id)
    slug = await subscribed(tiered, [{"resource": "tokens", "window": "24h", "limit": 1_000_000}])
    await rule(plain, 7, app_id=app.id)
    await rule(plain, 5, tier=slug)
    await rule(plain, 3, workspace_id=mine.workspace_id, model="echo")

    async def known() -> bool:
        return await cost(gateway, mine) == times(ordinary, 3)

    await until(known, "the rules in the gateway")
    assert await cost(gateway, mine, token) == times(ordinary, 7)
    assert await cost(gateway, mine, foreign) == times(ordinary, 3)
    assert await cost(gateway, tiered) == times(ordinary, 5)
    assert await cost(gateway, plain) == ordinary
    await subscribed(mine, [{"resource": "tokens", "window": "24h", "limit": 1_000_000}])
    assert await cost(gateway, mine) == times(ordinary, 3)
    await database.fetch("UPDATE subscription SET ended_at = $2 WHERE workspace_id = $1", tiered.workspace_id, datetime.now(UTC))

    async def over() -> bool:
        return await cost(gateway, tiered) == ordinary

    await until(over, "the tier's rule no more")
    for each in (plain, mine, tiered):
        assert await broken(each) == []


async def test_a_customer_of_another_s_rule_can_spend_the_whole_balance(gateway: Gateway) -> None:
    """A rule of a hundred times for one customer clamps no call of another, whose balance covers the call at list price and no more."""
    dear, small = await tenant(credit_microusd=1_000_000), await tenant(credit_microusd=1_000_000)
    ordinary = await cost(gateway, dear)
    await rule(dear, 100, workspace_id=dear.workspace_id)

    async def known() -> bool:
        return (await cost(gateway, dear)).charged == ordinary.charged * 100

    await until(known, "the rule in the gateway")
    poor = await tenant(credit_microusd=ordinary.held)
    assert await cost(gateway, poor) == ordinary == await cost(gateway, small)


async def test_what_is_free_is_let_in_with_an_empty_balance(gateway: Gateway) -> None:
    """F34: a workspace without a cent gets 402; as soon as a rule says that it pays nothing, 200, nothing held, nothing charged, the list value told."""
    rich, empty = await tenant(credit_microusd=1_000_000), await tenant()
    ordinary = await cost(gateway, rich)
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        refused = await client.post("/v1/messages", json=BODY, headers=empty.bearer)
        assert (refused.status_code, refused.json()["error"]["type"]) == (402, "billing_error")
        await rule(rich, 0, workspace_id=empty.workspace_id)

        async def let_in() -> bool:
            return (await client.post("/v1/messages", json=BODY, headers=empty.bearer)).status_code == 200

        await until(let_in, "the rule in the gateway")
    assert await cost(gateway, empty) == Cost(0, ordinary.listed, 0)
    assert (await empty.balance()).balance == 0
    assert await broken(empty) == []
