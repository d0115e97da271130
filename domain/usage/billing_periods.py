"""The window of a billing period: the subscription's own where a workspace has one, the local calendar month where it has none."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from domain.access.callers import Caller
from domain.money import subscriptions
from domain.money.subscriptions import SubscriptionView
from domain.usage import windows
from domain.usage.windows import BillingPeriod, Range, Window
from models.enums import BillingCycle

MONTHS = {BillingCycle.MONTHLY: 1, BillingCycle.YEARLY: 12}
INSTANT = timedelta(microseconds=1)


async def window(caller: Caller, wanted: Range, zone: str) -> Window:
    """Return the window that `wanted` means now for the caller's workspace; raises as `windows.resolve`."""
    resolved = windows.resolve(wanted, zone, caller.at)
    if not isinstance(wanted, BillingPeriod):
        return resolved
    mine = await subscriptions.in_force(caller.workspace(), at=caller.at)
    if mine is None:
        return resolved
    start, end = mine.current_period_start, mine.current_period_end
    before = await _before(mine)
    if wanted is BillingPeriod.PREVIOUS:
        end, start, before = start, before, _earlier(before, MONTHS[mine.cycle])
    return Window(start, end, zone, f"Billing period {start.astimezone(ZoneInfo(zone)):%Y-%m-%d}", resolved.now, before)


async def _before(mine: SubscriptionView) -> datetime:
    """Return when the period before the current one began, or would have begun, where the subscription is in its first."""
    start = mine.current_period_start
    earlier = await subscriptions.find(mine.workspace_id, mine.id, at=start - INSTANT)
    return earlier.current_period_start if earlier.current_period_end == start else _earlier(start, MONTHS[mine.cycle])


def _earlier(at: datetime, months: int) -> datetime:
    """Return the same day and time of UTC some months earlier, or the last day of a month that is too short."""
    at = at.astimezone(UTC)
    year, month = divmod(at.year * 12 + at.month - 1 - months, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, monthrange(year, month + 1)[1]))
