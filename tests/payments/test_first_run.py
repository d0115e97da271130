"""The simulator that a gateway serves itself, as `make run` has it: a stranger clicks through a top-up without an account at Stripe."""

import httpx2
import pytest

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
