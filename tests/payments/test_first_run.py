"""The simulator that a gateway serves itself, as `make run` has it: a stranger clicks through a top-up without an account at Stripe."""

import base64
import hashlib

import httpx2
import pytest

from models import database
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.world import tenant

pytestmark = pytest.mark.anyio


async def test_a_stranger_clicks_through_a_top_up(gateway: Gateway) -> None:
    """Begin over REST, open the page that comes back, press Pay: the gateway's own webhook hears of it, and the balance is there."""
    customer = await tenant()
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        begun = await client.post("/v1/credits/checkout", json={"amountUsd": 10}, headers=customer.bearer)
        assert begun.status_code == 200, begun.text
        address = begun.json()["url"]
        assert address.startswith(f"{gateway.url}/stripe-simulator/checkout/")
        page = await client.get(address)
        assert "This is a simulator of Stripe." in page.text
        assert "$10.00" in page.text
        paid = await client.post(address, data={"action": "pay", "card": "4242"})
        assert (paid.status_code, paid.headers["location"]) == (303, f"{gateway.url}/")

        async def credited() -> bool:
            return (await customer.balance()).cash == 10_000_000

        await until(credited, "the credit")
        receipt = (await client.post("/graphql", json={"query": "{ credits { topUps(first: 1) { nodes { receiptUrl } } } }"}, headers=customer.bearer)).json()
        shown = await client.get(receipt["data"]["credits"]["topUps"]["nodes"][0]["receiptUrl"])
        assert "$10.00" in shown.text


async def test_a_stranger_sees_a_renewal(gateway: Gateway) -> None:
    """Subscribe, let a month pass with the simulator's clock: the renewal's invoice is there, and its money is in the books, not in the credit."""
    customer = await tenant()
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        begun = await client.post("/tenant/billing/checkout", json={"tier": "pro"}, headers=customer.bearer)
        await client.post(begun.json()["url"], data={"action": "pay", "card": "4242"})
        clock = await client.get("/stripe-simulator/clock")
        assert "This is a simulator of Stripe." in clock.text
        moved = await client.post("/stripe-simulator/clock", data={"action": "month"})
        assert moved.status_code == 303
        assert "days ahead of the world" in (await client.get("/stripe-simulator/clock")).text

        async def paid() -> bool:
            sold = "SELECT count(*) FROM transfer WHERE workspace_id = $1 AND kind = 'subscription'"
            return bool(await database.fetch_value(sold, customer.workspace_id))

        await until(paid, "the renewal's money")
        assert (await customer.balance()).balance == 0
        portal = await client.post("/tenant/billing/portal", headers=customer.bearer)
        shown = await client.get(portal.json()["url"])
        assert "Let time pass" in shown.text
        assert "paid" in shown.text


async def test_the_page_that_upgrade_url_names(gateway: Gateway) -> None:
    """`upgrade_url` of document 2 and `upgradeUrl` name a page that is there: it says that Stripe is simulated, runs no script but its own, and holds no key."""
    customer = await tenant()
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        path = (await client.get("/v1/billing/trial-status", headers=customer.bearer)).json()["upgrade_url"]
        told = (await client.post("/graphql", json={"query": "{ billing { upgradeUrl } }"}, headers=customer.bearer)).json()
        assert told["data"]["billing"]["upgradeUrl"] == f"{gateway.url}{path}"
        page = await client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Payments go to a simulator of Stripe here." in page.text
    script = page.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    for kept in ("localStorage", "sessionStorage", "cookie"):
        assert kept not in page.text
