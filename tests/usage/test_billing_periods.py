"""The window of a billing period: a subscription's own, and the calendar month without one."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from domain.usage import billing_periods
from domain.usage.windows import BillingPeriod, RelativeRange
from models import database
from tests.conftest import Suite
from tests.support.world import Tenant, subscribed, tenant

pytestmark = pytest.mark.anyio

NOW = datetime(2027, 3, 15, 9, 30, tzinfo=UTC)


async def _windows(of: Tenant, at: datetime, zone: str = "UTC") -> list[str]:
    """Return begin of the period before, of the current and its end, by two ways: of the current one, and of the previous one."""
    caller = replace(of.caller(), at=at)
    current = await billing_periods.window(caller, BillingPeriod.CURRENT, zone)
    previous = await billing_periods.window(caller, BillingPeriod.PREVIOUS, zone)
    assert (previous.start, previous.end) == (current.previous.start, current.start)
    assert previous.previous.start < previous.start
    return [instant.isoformat(timespec="minutes")[:16] for instant in (previous.start, current.start, current.end)]


async def _paying(cycle: str, first: datetime, end: datetime) -> Tenant:
    of = await tenant()
    await subscribed(of, [{"resource": "tokens", "window": "billing_period", "limit": 10}], billing_cycle=cycle)
    await database.fetch("UPDATE subscription SET current_period_start = $2, current_period_end = $3 WHERE workspace_id = $1", of.workspace_id, first, end)
    return of


async def test_without_a_subscription_it_is_the_local_month(books: Suite) -> None:
    """The calendar month of the zone that is asked for, and the one before it."""
    of = await tenant()
    assert await _windows(of, NOW) == ["2027-02-01T00:00", "2027-03-01T00:00", "2027-04-01T00:00"]
    assert await _windows(of, NOW, "Asia/Kathmandu") == ["2027-01-31T18:15", "2027-02-28T18:15", "2027-03-31T18:15"]


async def test_a_subscription_has_periods_of_its_own(books: Suite) -> None:
    """Whatever the zone: from the day it was made, to the minute. One made on a 31st begins on the last day of a shorter month."""
    of = await _paying("monthly", datetime(2027, 1, 31, 7, 5, tzinfo=UTC), datetime(2027, 2, 28, 7, 5, tzinfo=UTC))
    assert await _windows(of, NOW) == ["2027-01-31T07:05", "2027-02-28T07:05", "2027-03-31T07:05"]
    assert await _windows(of, NOW, "America/New_York") == ["2027-01-31T07:05", "2027-02-28T07:05", "2027-03-31T07:05"]
    assert await _windows(of, datetime(2027, 2, 1, tzinfo=UTC)) == ["2026-12-31T07:05", "2027-01-31T07:05", "2027-02-28T07:05"]
    yearly = await _paying("yearly", datetime(2026, 6, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC))
    assert await _windows(yearly, NOW) == ["2025-06-01T00:00", "2026-06-01T00:00", "2027-06-01T00:00"]


async def test_other_windows_are_as_they_are(books: Suite) -> None:
    """A subscription changes nothing else: the last seven days are those of the calendar."""
    of = await _paying("monthly", datetime(2027, 3, 10, tzinfo=UTC), datetime(2027, 4, 10, tzinfo=UTC))
    window = await billing_periods.window(replace(of.caller(), at=NOW), RelativeRange.LAST_7_DAYS, "UTC")
    assert (window.start, window.end) == (datetime(2027, 3, 9, tzinfo=UTC), datetime(2027, 3, 16, tzinfo=UTC))
