"""Plans over REST and GraphQL on a running gateway: subscribing, the portal, the billing page, the trial's status."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from embedded.stripe import billing as bank
from models import database
from schema import ids
from tests.payments.lives import Till
from tests.payments.test_graphql import ask
from tests.support.calling import until
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

TIER = "pro"
PLAN = {
    *("api_call_limit", "billing_cycle", "conversation_limit", "current_period_end", "current_period_start", "instance_limit", "max_sites_per_node", "plan_name"),
    *("price_cents", "product_name", "status", "tier_id", "tier_slug", "token_allowance", "trial_days_remaining", "trial_ends_at"),
}
USAGE = {
    *("active_instances", "api_call_limit", "conversation_limit", "instance_limit", "max_sites_per_node", "platform_cost_usd", "token_allowance", "total_cost_usd"),
    *("total_hosted_sites", "total_requests", "total_tokens", "unique_end_users", "webhost_nodes"),
}
LIMITS = [
    *(("TOKENS", 2_000_000, "5h"), ("TOKENS", 5_000_000, "24h"), ("TOKENS", 20_000_000, "7d"), ("CREDITS", 2_500, "billing_period")),
    *(("API_CALLS", 16, "concurrent"), ("APPS", 10, "concurrent")),
]
"""What the shipped tier allows."""


async def get(client: httpx2.AsyncClient, customer: Tenant, path: str) -> Any:
    """The body of a good answer."""
    answer = await client.get(path, headers=customer.bearer)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_without_a_plan(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """Document 2: every field is there without a plan too: `No Plan`, nothing used, no trial."""
    client, _ = counter
    customer = await tenant()
    told = await get(client, customer, "/v1/billing")
    assert (set(told), set(told["plan"]), set(told["usage"])) == ({"plan", "subscribed_tier_ids", "usage"}, PLAN, USAGE)
    assert (told["plan"]["plan_name"], told["plan"]["price_cents"], told["subscribed_tier_ids"]) == ("No Plan", 0, [])
    assert (told["usage"]["total_cost_usd"], told["usage"]["total_requests"], told["usage"]["webhost_nodes"]) == ("0.00", 0, 0)
    assert await get(client, customer, "/v1/billing/trial-status") == {
        "plan_name": "No Plan", "status": "none", "trial_days_remaining": 0,
        "trial_ends_at": None, "trial_expired": False, "upgrade_url": "/billing",
    }


async def test_a_plan_from_the_page_to_the_billing_page(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """POST /tenant/billing/checkout, paid at the simulator, heard by the webhook: /v1/billing, /v1/billing/trial-status (which reads no usage), the portal and
    S2_Billing, S2_TrialStatus and S4_Subscription tell it, each field."""
    client, till = counter
    customer = await tenant()
    begun = await client.post("/tenant/billing/checkout", json={"tier": TIER}, headers=customer.bearer)
    assert (begun.status_code, set(begun.json())) == (200, {"url", "session_id"})
    subscription = bank.pay_subscription(till.account, begun.json()["session_id"])

    async def heard() -> bool:
        return bool((await get(client, customer, "/v1/billing/trial-status"))["plan_name"] != "No Plan")

    await until(heard, "the subscription")
    told = await get(client, customer, "/v1/billing")
    item = subscription["items"]["data"][0]
    start, end = (datetime.fromtimestamp(item[name], UTC) for name in ("current_period_start", "current_period_end"))
    days, ends = (end - datetime.now(UTC)) // timedelta(days=1), end.isoformat().replace("+00:00", "Z")
    limits = {"api_call_limit": None, "conversation_limit": None, "instance_limit": 10, "max_sites_per_node": None, "token_allowance": 20_000_000}
    assert told["plan"] == limits | {
        "billing_cycle": "monthly", "plan_name": "Pro", "price_cents": 2_000, "product_name": "Tallygate", "status": "trialing", "tier_id": TIER, "tier_slug": TIER,
        "current_period_start": start.isoformat().replace("+00:00", "Z"), "current_period_end": ends, "trial_days_remaining": days, "trial_ends_at": ends,
    }
    assert told["usage"] == limits | {
        "active_instances": 0, "platform_cost_usd": "0.00", "total_cost_usd": "0.00", "total_hosted_sites": 0, "total_requests": 0, "total_tokens": 0,
        "unique_end_users": 0, "webhost_nodes": 0,
    }
    assert told["subscribed_tier_ids"] == [TIER]
    async with database.transaction():
        await database.fetch("LOCK TABLE usage_cell IN ACCESS EXCLUSIVE MODE")  # so that nobody reads usage
        assert await get(client, customer, "/v1/billing/trial-status") == {
            "plan_name": "Pro", "status": "trialing", "trial_days_remaining": days, "trial_ends_at": ends, "trial_expired": False, "upgrade_url": "/billing",
        }
    since, at = (instant.isoformat(timespec="milliseconds").replace("+00:00", "Z") for instant in (start, end))
    trial = (await ask(client, customer, "S2_TrialStatus"))["billing"]
    assert trial.pop("upgradeUrl").endswith("/billing")
    assert trial == {"tier": {"name": "Pro"}, "subscription": {"status": "TRIALING"}, "trial": {"daysRemaining": days, "endsAt": at, "expired": False}}
    mine = (await ask(client, customer, "S4_Subscription"))["billing"]
    assert mine["subscription"] == {"tier": {"slug": TIER}, "status": "TRIALING", "currentPeriodEnd": at}
    assert mine["quota"] == {"limit": 5_000_000, "used": 0, "remaining": 5_000_000, "startedAt": None, "resetsAt": None}
    whole = await ask(client, customer, "S2_Billing")
    assert whole["billing"]["tier"] == {
        "id": ids.encode("Tier", TIER), "slug": TIER, "name": "Pro", "productName": "Tallygate", "cycle": "MONTHLY", "price": {"usd": "20.00"},
        "limits": [{"resource": resource, "limit": limit, "window": window} for resource, limit, window in LIMITS],
    }
    assert whole["billing"]["subscription"] == {"status": "TRIALING", "currentPeriodStart": since, "currentPeriodEnd": at}
    assert (whole["billing"]["trial"], whole["billing"]["subscriptions"]) == ({"daysRemaining": days, "endsAt": at}, [{"tier": {"id": ids.encode("Tier", TIER)}}])
    assert sorted((each["resource"], each["limit"], each["window"], each["used"]) for each in whole["billing"]["quotas"]) == sorted((*each, 0) for each in LIMITS)
    assert whole["usage"] == {"totals": {"requests": 0, "tokens": 0, "cost": {"usd": "0.00"}, "platformCost": {"usd": "0.00"}, "uniqueEndUsers": 0}}
    portal = await client.post("/tenant/billing/portal", headers=customer.bearer)
    assert (portal.status_code, set(portal.json())) == (200, {"url"})
    page = await client.get(portal.json()["url"])
    assert "This is a simulator of Stripe." in page.text
    assert "SIM-0001" in page.text


NO_TIERS: list[tuple[dict[str, object], int]] = [
    ({}, 400),
    ({"tier": None}, 400),
    ({"tier": 5}, 400),
    ({"tier": "gold"}, 404),
    ({"tier": "x" * 500}, 404),
    ({"tier": "\x00"}, 400),
]


@pytest.mark.parametrize(("body", "status"), NO_TIERS)
async def test_a_tier_that_is_not_there(counter: tuple[httpx2.AsyncClient, Till], body: dict[str, object], status: int) -> None:
    """Refused in document 4's shape; no customer is made for it."""
    client, _ = counter
    customer = await tenant()
    answer = await client.post("/tenant/billing/checkout", json=body, headers=customer.bearer)
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"type", "message"})
    assert await database.fetch_value("SELECT count(*) FROM stripe_object WHERE workspace_id = $1", customer.workspace_id) == 0


async def test_s4_checkout_and_s4_portal(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """S4_Checkout and S4_Portal give pages of Stripe's; a tier that is none is told with its path."""
    client, till = counter
    customer = await tenant()
    (tier,) = [each["id"] for each in (await ask(client, customer, "{ tiers { id slug } }"))["tiers"] if each["slug"] == TIER]
    made = (await ask(client, customer, "S4_Checkout", tier=tier))["subscriptionCheckoutCreate"]
    assert made["userErrors"] == []
    assert made["checkoutSession"]["url"].startswith(f"{till.simulator.url}/checkout/")
    refused = (await ask(client, customer, "S4_Checkout", tier="bm9uZQ"))["subscriptionCheckoutCreate"]
    assert (refused["checkoutSession"], refused["userErrors"][0]["code"]) == (None, "NOT_FOUND")
    opened = (await ask(client, customer, "S4_Portal"))["billingPortalCreate"]
    assert opened["portalSession"]["url"].startswith(f"{till.simulator.url}/portal/")


async def test_subscription_update_and_invoices(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """SubscriptionUpdate: dearer at once, cheaper with the next period; S2_Billing and the invoices tell it; another's subscription is not found."""
    client, till = counter
    customer, stranger = await tenant(), await tenant()
    slugs = {each["slug"]: each["id"] for each in (await ask(client, customer, "{ tiers { id slug } }"))["tiers"]}
    made = (await ask(client, customer, "S4_Checkout", tier=slugs[TIER]))["subscriptionCheckoutCreate"]
    bank.pay_subscription(till.account, made["checkoutSession"]["url"].rsplit("/", 1)[-1])
    query = "{ billing { subscription { id tier { slug } } invoices(first: 5) { totalCount nodes { id number status amount { usd } url pdfUrl } } } }"

    async def heard() -> bool:
        found = (await ask(client, customer, query))["billing"]
        return bool(found["subscription"] and found["invoices"]["totalCount"])

    await until(heard, "subscription and invoice")
    billing = (await ask(client, customer, query))["billing"]
    mine = billing["subscription"]["id"]
    up = (await ask(client, customer, "SubscriptionUpdate", id=mine, tier=slugs["max"]))["subscriptionUpdate"]
    assert up == {"subscription": {"tier": {"slug": "max"}, "nextTier": None}, "userErrors": []}
    down = (await ask(client, customer, "SubscriptionUpdate", id=mine, tier=slugs[TIER]))["subscriptionUpdate"]
    assert down == {"subscription": {"tier": {"slug": "max"}, "nextTier": {"slug": TIER}}, "userErrors": []}
    refused = (await ask(client, stranger, "SubscriptionUpdate", id=mine, tier=slugs["max"]))["subscriptionUpdate"]
    assert (refused["subscription"], [error["code"] for error in refused["userErrors"]]) == (None, ["NOT_FOUND"])
    told = (await ask(client, customer, "S2_Billing"))["billing"]
    assert (told["tier"]["slug"], told["subscription"]["status"], told["trial"]["daysRemaining"] in (13, 14)) == ("max", "TRIALING", True)
    trial = (await ask(client, customer, "S2_TrialStatus"))["billing"]
    assert (trial["tier"]["name"], trial["trial"]["expired"]) == (told["tier"]["name"], False)
    assert (await ask(client, customer, "S4_Subscription"))["billing"]["subscription"]["tier"]["slug"] == "max"
    (invoice,) = billing["invoices"]["nodes"]
    assert (invoice["number"], invoice["status"], invoice["amount"]) == ("SIM-0001", "PAID", {"usd": "0.00"})
    assert (await ask(client, customer, "query($id: ID!) { node(id: $id) { id } }", id=invoice["id"]))["node"] == {"id": invoice["id"]}
    assert (await ask(client, stranger, "query($id: ID!) { node(id: $id) { id } }", id=invoice["id"]))["node"] is None
