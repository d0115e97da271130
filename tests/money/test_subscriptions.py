"""Subscriptions: given once, ended once, and entitling by status, period and clock together; synchronous, because it turns the clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import errors
from domain.money import subscriptions, tiers
from domain.money.tiers import tiers_of
from models.enums import Resource, Scope, SubscriptionSource
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.support.world import Tenant, tenant

TOKENS, APPS, CREDITS = (
    {"resource": "tokens", "window": "24h", "limit": 1000},
    {"resource": "apps", "window": "concurrent", "limit": 2},
    {"resource": "credits", "window": "month", "limit": 10},
)
FILE: dict[str, list[dict[str, Any]]] = {
    "tier": [
        {"slug": "base", "name": "Base", "price_cents": 1000, "limits": [TOKENS, APPS]},
        {"slug": "more", "name": "More", "price_cents": 500, "limits": [TOKENS | {"limit": 500}, CREDITS]},
        {"slug": "all", "name": "All", "price_cents": 9000, "billing_cycle": "yearly", "limits": [TOKENS | {"limit": "unlimited"}]},
    ]
}
NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)


async def offer() -> None:
    """Offer the tiers of these tests."""
    await tiers.keep(tiers_of(FILE), at=NOON)


async def given(mine: Tenant, tier: str, *, at: datetime = NOON, **more: Any) -> subscriptions.SubscriptionView:
    """Give a workspace a tier as an operator."""
    caller = replace(mine.caller(Scope.OPERATOR), at=at)
    return await subscriptions.grant(caller, mine.workspace_id, tier, "for the test", **({"idempotency_key": uuid7().hex} | more))


def test_a_tier_is_given_once_for_a_key(own: OwnBooks) -> None:
    """F32: the same key and input give one subscription, another input is refused, and only an operator gives any."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        first = await given(mine, "base", idempotency_key="s1")
        assert await given(mine, "base", idempotency_key="s1") == first
        assert (first.tier, first.source, first.entitled, first.reason) == ("base", SubscriptionSource.GRANTED, True, "for the test")
        assert (first.current_period_start, first.current_period_end) == (NOON, datetime(2027, 2, 28, 12, tzinfo=UTC))
        with pytest.raises(errors.IdempotencyConflict):
            await given(mine, "more", idempotency_key="s1")
        with pytest.raises(errors.MissingScope):
            await subscriptions.grant(mine.caller(), mine.workspace_id, "base", "why not", idempotency_key="s2")
        for wrong, refusal in (({"tier": "gold"}, errors.NotFound), ({"ends_at": NOON}, errors.InvalidInput)):
            with pytest.raises(refusal):
                await given(mine, **({"tier": "base"} | wrong))
        with pytest.raises(errors.NotFound):
            await subscriptions.grant(mine.caller(Scope.OPERATOR), uuid7(), "base", "nobody", idempotency_key="s3")
        assert len(await subscriptions.of_workspace(mine.workspace_id, at=NOON)) == 1

    own.run(work())


def test_a_retired_tier_is_not_given_any_more(own: OwnBooks) -> None:
    """Who has it keeps it, with its limits; nobody gets it anew."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        await given(mine, "more")
        await tiers.keep(tiers_of({"tier": FILE["tier"][:1]}), at=NOON)
        with pytest.raises(errors.NotFound):
            await given(mine, "more")
        assert [(quota.resource, quota.limit) for quota in await subscriptions.quotas(mine.workspace_id, at=NOON)] == [(Resource.CREDITS, 10), (Resource.TOKENS, 500)]

    own.run(work())


def test_a_granted_subscription_ends_when_it_says_and_when_it_is_ended(own: OwnBooks) -> None:
    """F25: entitlement ends with the instant, without anybody's doing; ending twice is no error, and keeps the first end."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        until = NOON + timedelta(days=100)
        first, second = await given(mine, "base", ends_at=until), await given(mine, "more")
        seen = {
            days: [view.entitled for view in await subscriptions.of_workspace(mine.workspace_id, at=NOON + timedelta(days=days))] for days in (0, 99, 100, 1000)
        }
        assert seen == {0: [True, True], 99: [True, True], 100: [False, True], 1000: [False, True]}
        operator = replace(mine.caller(Scope.OPERATOR), at=NOON + timedelta(days=1))
        ended = await subscriptions.end(operator, second.id)
        assert (ended.entitled, ended.ended_at) == (False, operator.at)
        again = await subscriptions.end(replace(operator, at=NOON + timedelta(days=2)), second.id)
        assert again.ended_at == operator.at
        view = await subscriptions.billing(operator)
        assert view.tier is not None
        assert (view.tier.slug, view.subscription, [each.id for each in view.current]) == ("base", replace(first), [first.id])
        with pytest.raises(errors.NotFound):
            await subscriptions.end(operator, uuid7())
        with pytest.raises(errors.MissingScope):
            await subscriptions.end(mine.caller(), first.id)

    own.run(work())


def test_the_period_of_a_granted_subscription_rolls_by_its_first_day(own: OwnBooks) -> None:
    """A month from 31 January is 28 February, and the one after next ends on 31 March: counted from the first day, never from a shortened month."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        await given(mine, "base")
        await given(mine, "all")
        found = []
        for at in (NOON, NOON + timedelta(days=27), datetime(2027, 2, 28, 12, tzinfo=UTC), datetime(2027, 3, 31, 11, tzinfo=UTC), datetime(2029, 2, 1, tzinfo=UTC)):
            month, year = await subscriptions.of_workspace(mine.workspace_id, at=at)
            found.append((month.current_period_start.date().isoformat(), month.current_period_end.date().isoformat(), year.current_period_start.year))
        assert found == [
            ("2027-01-31", "2027-02-28", 2027),
            ("2027-01-31", "2027-02-28", 2027),
            ("2027-02-28", "2027-03-31", 2027),
            ("2027-02-28", "2027-03-31", 2027),
            ("2029-01-31", "2029-02-28", 2029),
        ]

    own.run(work())


@pytest.mark.parametrize(
    ("columns", "entitled"),
    [
        ("status = 'trialing', trial_ends_at = $2::timestamptz + interval '1 second'", True),
        ("status = 'trialing', trial_ends_at = $2", False),
        ("status = 'trialing', trial_ends_at = NULL", False),
        ("status = 'active', current_period_end = $2::timestamptz + interval '1 second'", True),
        ("status = 'active', current_period_end = $2::timestamptz - interval '23 hours'", True),
        ("status = 'active', current_period_end = $2::timestamptz - interval '24 hours'", False),
        ("status = 'active', current_period_end = $2, cancel_at_period_end = true", False),
        ("status = 'past_due', grace_ends_at = $2::timestamptz + interval '1 second'", True),
        ("status = 'past_due', grace_ends_at = $2", False),
        ("status = 'past_due', grace_ends_at = NULL", False),
        ("status = 'active', ended_at = $2", False),
        *((f"status = '{status}'", False) for status in ("canceled", "unpaid", "incomplete", "incomplete_expired", "paused")),
    ],
)
def test_entitlement_follows_status_period_and_clock(own: OwnBooks, columns: str, entitled: bool) -> None:
    """F25: one row for each status of Stripe's, on both sides of the instant that decides: a trial that is over entitles nobody, whatever its status says."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        one = await given(mine, "base", at=NOON - timedelta(days=60))
        now = NOON
        await own.admin.execute("UPDATE subscription SET source = 'stripe', current_period_end = $2 WHERE workspace_id = $1", mine.workspace_id, now + timedelta(days=9))
        await own.admin.execute(f"UPDATE subscription SET {columns} WHERE workspace_id = $1 AND $2::timestamptz IS NOT NULL", mine.workspace_id, now)
        (view,) = await subscriptions.of_workspace(mine.workspace_id, at=now)
        assert (view.id, view.entitled) == (one.id, entitled)
        assert bool(await subscriptions.quotas(mine.workspace_id, at=now)) is entitled
        if columns.startswith("status = 'active'") and "ended_at" not in columns:
            with pytest.raises(errors.InvalidState):
                await subscriptions.end(mine.caller(Scope.OPERATOR), one.id)

    own.run(work())


def test_limits_of_several_subscriptions_add_up(own: OwnBooks) -> None:
    """1000 and 500 tokens are 1500, one that is unlimited lifts the rest, and what only one names stands alone."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        await given(mine, "base")
        await given(mine, "more")
        quotas = await subscriptions.quotas(mine.workspace_id, at=NOON)
        assert [(quota.resource, quota.window, quota.limit, quota.used) for quota in quotas] == [
            (Resource.APPS, "concurrent", 2, 0),
            (Resource.CREDITS, "month", 10, 0),
            (Resource.TOKENS, "24h", 1500, 0),
        ]
        assert await subscriptions.allowance(mine.workspace_id, Resource.APPS, at=NOON) == 2
        assert await subscriptions.allowance(mine.workspace_id, Resource.MEMBERS, at=NOON) is None
        await given(mine, "all")
        assert [quota.limit for quota in await subscriptions.quotas(mine.workspace_id, at=NOON) if quota.resource is Resource.TOKENS] == [None]
        view = await subscriptions.billing(replace(mine.caller(), at=NOON))
        assert view.tier is not None
        assert (view.tier.slug, len(view.current), view.trial, view.overage_allowed) == ("all", 3, None, False)

    own.run(work())


def test_a_trial_is_told_with_its_whole_days(own: OwnBooks) -> None:
    """Whole days left, 0 on the last, and expired at the instant."""

    async def work() -> None:
        await offer()
        mine = await tenant()
        await given(mine, "base")
        await own.admin.execute(
            "UPDATE subscription SET source = 'stripe', status = 'trialing', trial_ends_at = $2 WHERE workspace_id = $1", mine.workspace_id, NOON + timedelta(days=3)
        )
        told = []
        for hours in (0, 1, 71, 72):
            view = await subscriptions.billing(replace(mine.caller(), at=NOON + timedelta(hours=hours)))
            assert view.trial is not None
            told.append((view.trial.days_remaining, view.trial.expired, view.tier is None))
        assert told == [(3, False, False), (2, False, False), (0, False, False), (0, True, True)]

    own.run(work())
