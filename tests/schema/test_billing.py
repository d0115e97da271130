"""Subscriptions, quotas, grants, the workspace's settings and the reset of limits: operations of the contract over HTTP with real data."""

from datetime import UTC, datetime
from typing import Any

import pytest

from domain import errors
from domain.money import tiers
from domain.money.tiers import tiers_of
from models import database
from models.ids import uuid7
from schema import ids
from tests.schema.serving import Served
from tests.schema.test_operations import answer, run

pytestmark = pytest.mark.anyio

LIMITS = [
    {"resource": "tokens", "window": "24h", "limit": 1000},
    {"resource": "credits", "window": "billing_period", "limit": 50},
    {"resource": "api_calls", "window": "concurrent", "limit": 4},
]


async def offer(slug: str) -> str:
    """Offer a tier beside those that there are, and return its id."""
    one = {"slug": slug, "name": slug.title(), "price_cents": 700, "trial_days": 3, "presets": ["cursor"], "limits": LIMITS}
    await tiers.keep([*(await tiers.listed()), *tiers_of({"tier": [one]})], at=datetime.now(UTC))
    return ids.encode("Tier", slug)


async def test_a_tier_is_given_and_its_quotas_told(served: Served) -> None:
    """SubscriptionGrant, S4_Subscription and Overage: a granted tier entitles at once, its quotas are told as they stand, and once for a key."""
    mine, boss = await served.owner(), await served.operator()
    slug = f"team-{uuid7().hex[:12]}"
    tier = await offer(slug)
    assert (await run(served, "S4_Subscription", mine.session))["billing"] == {"subscription": None, "quota": None, "quotas": []}
    workspace = ids.encode("Workspace", mine.workspace.id)
    for _ in range(2):
        given = (await run(served, "SubscriptionGrant", boss, w=workspace, tier=tier))["subscriptionGrant"]
        assert given == {"subscription": {"source": "GRANTED"}, "userErrors": []}
    told = (await run(served, "S4_Subscription", mine.session))["billing"]
    assert told["subscription"]["tier"] == {"slug": slug}
    assert told["subscription"]["status"] == "ACTIVE"
    assert told["quota"] == {"limit": 1000, "used": 0, "remaining": 1000, "startedAt": None, "resetsAt": None}
    assert [(quota["resource"], quota["window"], quota["limit"], quota["used"]) for quota in told["quotas"]] == [
        ("API_CALLS", "concurrent", 4, 0),
        ("CREDITS", "billing_period", 50, 0),
        ("TOKENS", "24h", 1000, 0),
    ]
    overage = (await run(served, "Overage", mine.session))["billingUpdate"]
    assert overage == {"billing": {"overageAllowed": True}, "userErrors": []}
    refused = (await run(served, "SubscriptionGrant", boss, w=workspace, tier=ids.encode("Tier", "gold")))["subscriptionGrant"]
    assert [error["code"] for error in refused["userErrors"]] == ["NOT_FOUND"]
    assert (await answer(served, "SubscriptionGrant", mine.session, w=workspace, tier=tier)).codes == ["FORBIDDEN"]


async def test_billing_is_told_whole(served: Served) -> None:
    """Tier, subscription, trial, quotas and overage of the workspace; what a member without BILLING_READ may not see is refused."""
    mine, boss = await served.owner(), await served.operator()
    slug = f"solo-{uuid7().hex[:12]}"
    await run(served, "SubscriptionGrant", boss, w=ids.encode("Workspace", mine.workspace.id), tier=await offer(slug))
    question = """{ billing { tier { slug } subscription { id tier { slug limits { resource window limit } } entitled cycle nextTier { slug } cancelAtPeriodEnd endedAt
                      currentPeriodStart currentPeriodEnd graceEndsAt } subscriptions { id source } trial { endsAt } overageAllowed overage { usd } upgradeUrl
                      quotas { resource window per percent } } workspace { billing { tier { slug } } } }"""
    told = (await served.ask(question, credential=mine.session)).data
    billing = told["billing"]
    assert told["workspace"]["billing"]["tier"] == billing["tier"] == {"slug": slug}
    assert billing["subscription"]["entitled"]
    assert billing["subscription"]["cycle"] == "MONTHLY"
    assert len(billing["subscription"]["tier"]["limits"]) == 3
    assert [each["id"] for each in billing["subscriptions"]] == [billing["subscription"]["id"]]
    assert (billing["trial"], billing["overageAllowed"], billing["overage"]) == (None, False, {"usd": "0.00"})
    assert billing["upgradeUrl"].endswith("/billing")
    assert {quota["percent"] for quota in billing["quotas"]} == {0.0}
    node = (await served.ask("query($id: ID!) { node(id: $id) { ... on TierSubscription { status } } }", credential=mine.session, id=billing["subscription"]["id"])).data
    assert node == {"node": {"status": "ACTIVE"}}
    stranger = await served.owner()
    again = (await served.ask("query($id: ID!) { node(id: $id) { id } }", credential=stranger.session, id=billing["subscription"]["id"])).data
    assert again == {"node": None}


async def test_grants_are_given_listed_and_taken_back(served: Served) -> None:
    """GrantCreate and GrantRevoke: credit with an account of its own, first in the funding order, and gone when it is revoked."""
    mine, boss = await served.owner(), await served.operator()
    name = f"model-{uuid7().hex[:12]}"
    await served.offer(name, input_usd="1", output_usd="2")
    query = """mutation($w: ID!, $models: [String!], $key: String!, $amount: MicroUsd!) { grantCreate(input: { workspaceId: $w, amount: $amount, reason: "launch",
               priority: 10, models: $models, expiresAt: "2099-01-01T00:00:00Z", idempotencyKey: $key }) { grant { id status account { id kind balance { usd } } }
               userErrors { code path } } }"""
    workspace = ids.encode("Workspace", mine.workspace.id)
    made = (await served.ask(query, credential=boss, w=workspace, models=[name], key="g1", amount=10_000_000)).data["grantCreate"]
    assert made["userErrors"] == []
    grant = made["grant"]
    assert (grant["status"], grant["account"]["kind"], grant["account"]["balance"]) == ("ACTIVE", "GRANT", {"usd": "10.00"})
    listing = """{ credits { granted { usd } cash { usd } frozenAt subscription: fundingOrder(kind: SUBSCRIPTION) tokens: fundingOrder(kind: PAY_PER_TOKEN)
                   grants(first: 20) { totalCount nodes { id amount { usd } remaining { usd } status priority models { name } apps { slug } reason expiresAt } } } }"""
    credits = (await served.ask(listing, credential=mine.session)).data["credits"]
    assert (credits["granted"], credits["cash"], credits["frozenAt"]) == ({"usd": "10.00"}, {"usd": "0.00"}, None)
    assert (credits["subscription"], credits["tokens"]) == (["QUOTA"], ["GRANT", "CASH"])
    assert credits["grants"] == {
        "totalCount": 1,
        "nodes": [
            {
                "id": grant["id"],
                "amount": {"usd": "10.00"},
                "remaining": {"usd": "10.00"},
                "status": "ACTIVE",
                "priority": 10,
                "models": [{"name": name}],
                "apps": None,
                "reason": "launch",
                "expiresAt": "2099-01-01T00:00:00.000Z",
            }
        ],
    }
    account = """query($id: ID!) { node(id: $id) { ... on LedgerAccount { transfers(first: 5) { totalCount edges { change { usd } balanceAfter { usd }
                 node { kind debit { kind } } } } } } }"""
    told = (await served.ask(account, credential=mine.session, id=grant["account"]["id"])).data["node"]["transfers"]
    edge = {"change": {"usd": "10.00"}, "balanceAfter": {"usd": "10.00"}, "node": {"kind": "GRANT", "debit": {"kind": "PROMOTIONS"}}}
    assert told == {"totalCount": 1, "edges": [edge]}
    wrong: list[tuple[dict[str, Any], str]] = [({"models": ["no such"]}, "NOT_FOUND"), ({"amount": 0}, "TOO_SMALL"), ({"amount": 11}, "IDEMPOTENCY_CONFLICT")]
    for changes, code in wrong:
        values: dict[str, Any] = {"w": workspace, "models": [name], "key": "g1", "amount": 10_000_000} | changes
        refused = (await served.ask(query, credential=boss, **values)).data["grantCreate"]
        assert [error["code"] for error in refused["userErrors"]] == [code]
    assert (await answer(served, "GrantRevoke", mine.session, id=grant["id"])).codes == ["FORBIDDEN"]
    taken = (await run(served, "GrantRevoke", boss, id=grant["id"]))["grantRevoke"]
    assert taken == {"grant": {"status": "REVOKED", "remaining": {"usd": "0.00"}}, "userErrors": []}
    assert (await served.ask(listing, credential=mine.session)).data["credits"]["grants"]["nodes"] == []


async def test_bounds_of_a_key_are_made_read_back_and_exceeded(served: Served) -> None:
    """F3, KeyCreateBounded: what is set is read back field for field, and the call that exceeds it is refused."""
    mine = await served.owner()
    await served.credit(mine, 1_000_000)
    price = await served.offer("auto", input_usd="1", output_usd="2")
    made = (await run(served, "KeyCreateBounded", mine.session))["apiKeyCreate"]
    assert made["userErrors"] == []
    key = made["apiKey"]
    assert [(bound["window"], bound["limit"]["usd"], bound["spent"]["usd"], bound["remaining"]["usd"]) for bound in key["budgets"]] == [
        ("5h", "2.00", "0.00", "2.00"),
        ("month", "50.00", "0.00", "50.00"),
        ("lifetime", "900.00", "0.00", "900.00"),
    ]
    assert key["budgets"][2]["model"] == {"name": "auto"}
    assert [(bound["resource"], bound["window"], bound["limit"], bound["used"]) for bound in key["limits"]] == [
        ("API_CALLS", "1m", 60, 0),
        ("API_CALLS", "concurrent", 8, 0),
        ("TOKENS", "day", 5_000_000, 0),
    ]
    tight = (await served.ask(
        'mutation { apiKeyCreate(input: { budgets: [{ window: "day", limit: 100 }] }) { secret apiKey { id } } }', credential=mine.session
    )).data["apiKeyCreate"]
    await served.call(tight["secret"], price, input_tokens=60, output_tokens=10)
    with pytest.raises(errors.BoundReached):
        await served.call(tight["secret"], price, input_tokens=60, output_tokens=10)
    reset = (await run(served, "LimitsReset", mine.session, id=tight["apiKey"]["id"]))["limitsReset"]
    assert reset["userErrors"] == []
    assert [(bound["spent"]["usd"], bound["startedAt"], bound["resetsAt"]) for bound in reset["subject"]["budgets"]] == [("0.00", None, None)]
    await served.call(tight["secret"], price, input_tokens=60, output_tokens=10)


async def test_a_member_s_bounds_hold_for_the_person_s_keys(served: Served) -> None:
    """F3, MemberBounds: the tokens of all keys that a person made count together."""
    mine = await served.owner()
    await served.credit(mine, 1_000_000)
    price = await served.offer(f"m-{uuid7().hex[:8]}", input_usd="1", output_usd="2")
    member = await database.fetch_value("SELECT id FROM member WHERE workspace_id = $1", mine.workspace.id)
    changed = (await run(served, "MemberBounds", mine.session, id=ids.encode("Member", member)))["memberUpdate"]
    assert changed["userErrors"] == []
    assert [(bound["resource"], bound["window"], bound["limit"], bound["used"]) for bound in changed["member"]["limits"]] == [("TOKENS", "7d", 1_000_000, 0)]
    _, secret = await served.key(mine)
    await served.call(secret, price, input_tokens=400, output_tokens=100)
    tight = 'mutation($id: ID!) { memberUpdate(input: { id: $id, limits: [{ resource: TOKENS, window: "7d", limit: 510 }] }) { member { limits { used remaining } } } }'
    shown = (await served.ask(tight, credential=mine.session, id=ids.encode("Member", member))).data["memberUpdate"]
    assert shown["member"]["limits"] == [{"used": 500, "remaining": 10}]
    with pytest.raises(errors.BoundReached):
        await served.call(secret, price, input_tokens=11, output_tokens=1)
    reset = await served.ask(
        'mutation($id: ID!) { limitsReset(input: { subjectId: $id, reason: "launch" }) { subject { limits { used } } } }',
        credential=mine.session,
        id=ids.encode("Member", member),
    )
    assert reset.data["limitsReset"] == {"subject": {"limits": [{"used": 0}]}}
    await served.call(secret, price, input_tokens=11, output_tokens=1)


async def test_a_workspace_is_bounded_stopped_and_let_go(served: Served) -> None:
    """F3, WorkspaceBounds and EmergencyStop: a budget of one model, an emergency stop that the next call meets, and settings that are read back."""
    mine = await served.owner()
    await served.credit(mine, 1_000_000)
    await served.offer("auto", input_usd="1", output_usd="2")
    bounded = (await run(served, "WorkspaceBounds", mine.session))["workspaceUpdate"]
    assert bounded["userErrors"] == []
    assert [(bound["window"], bound["limit"]["usd"], bound["model"]) for bound in bounded["workspace"]["budgets"]] == [("day", "20.00", {"name": "auto"})]
    price = await served.offer(f"w-{uuid7().hex[:8]}", input_usd="1", output_usd="2")
    _, secret = await served.key(mine)
    stopped = (await run(served, "EmergencyStop", mine.session))["workspaceUpdate"]
    assert stopped["userErrors"] == []
    assert stopped["workspace"]["retentionDays"] == 90
    with pytest.raises(errors.Forbidden, match="stopped by its owner"):
        await served.call(secret, price, input_tokens=1, output_tokens=1)
    again = (await run(served, "EmergencyStop", mine.session))["workspaceUpdate"]
    assert again["workspace"]["stoppedAt"] == stopped["workspace"]["stoppedAt"]
    change = """mutation { workspaceUpdate(input: { stopped: false, retentionDays: null, name: " Lab ", defaultTimezone: "Asia/Kathmandu", budgets: [],
                limits: [{ resource: TOKENS, window: "day", limit: 5 }] }) { workspace { stoppedAt retentionDays name defaultTimezone budgets { window }
                limits { limit } } userErrors { code } } }"""
    changed = (await served.ask(change, credential=mine.session)).data["workspaceUpdate"]
    assert changed == {
        "workspace": {"stoppedAt": None, "retentionDays": None, "name": "Lab", "defaultTimezone": "Asia/Kathmandu", "budgets": [], "limits": [{"limit": 5}]},
        "userErrors": [],
    }
    with pytest.raises(errors.BoundReached):
        await served.call(secret, price, input_tokens=5, output_tokens=1)


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        ('name: ""', "TOO_SMALL", ["input", "name"]),
        ('retentionDays: -3', "TOO_SMALL", ["input", "retentionDays"]),
        ('retentionDays: 0', "TOO_SMALL", ["input", "retentionDays"]),
        ('retentionDays: 5000', "TOO_LARGE", ["input", "retentionDays"]),
        ('budgets: [{ window: "day", limit: -1 }]', "TOO_SMALL", ["input", "budgets", "0", "limit"]),
        ('budgets: [{ window: "day", limit: 1, model: "no such" }]', "NOT_FOUND", ["input", "budgets", "0", "model"]),
        ('limits: [{ resource: APPS, window: "day", limit: 1 }]', "INVALID", ["input", "limits", "0", "resource"]),
    ],
)
async def test_what_makes_no_sense_changes_nothing(served: Served, given: str, code: str, path: list[str]) -> None:
    """A bad setting is a user error at its field, and nothing of its mutation is kept."""
    mine = await served.owner()
    query = f'mutation {{ workspaceUpdate(input: {{ stopped: true, {given} }}) {{ workspace {{ id }} userErrors {{ code path }} }} }}'
    refused = (await served.ask(query, credential=mine.session)).data["workspaceUpdate"]
    assert refused == {"workspace": None, "userErrors": [{"code": code, "path": path}]}
    row = await database.fetch_row("SELECT stopped_at, retention_days FROM workspace WHERE id = $1", mine.workspace.id)
    assert tuple(row or ()) == (None, None)


async def test_limits_are_reset_for_ones_own_things_only(served: Served) -> None:
    """Another workspace's key, and what has no bounds, are not found; a reason is needed."""
    mine, other = await served.owner(), await served.owner()
    key, _ = await served.key(other)
    for subject in (ids.encode("ApiKey", key.id), ids.encode("Workspace", other.workspace.id), ids.encode("User", mine.user_id), "nonsense"):
        refused = (await run(served, "LimitsReset", mine.session, id=subject))["limitsReset"]
        assert (refused["subject"], [error["code"] for error in refused["userErrors"]]) == (None, ["NOT_FOUND"])
    query = 'mutation($id: ID!) { limitsReset(input: { subjectId: $id, reason: " " }) { userErrors { code path } } }'
    mine_too = (await served.ask(query, credential=mine.session, id=ids.encode("Workspace", mine.workspace.id))).data["limitsReset"]
    assert mine_too == {"userErrors": [{"code": "INVALID", "path": ["input", "reason"]}]}
