"""Metered usage: the window, its totals, groups and series, and the request log."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from domain.pages import Page, PageOf
from domain.usage import activity as charts
from domain.usage import billing_periods, cache_misses, corrections, measure, records, windows
from domain.usage.activity import Activity, ActivityView
from domain.usage.cache_misses import CacheMiss
from domain.usage.corrections import NewRecord
from domain.usage.measure import Group, Point, Series
from domain.usage.metrics import Detail, Metric, Metrics, Question, UsageFilter
from domain.usage.records import RecordFilter, RecordView
from domain.usage.windows import Granularity, Range, Window
from resolvers.asking import Asking


async def window(asking: Asking, wanted: Range, zone: str, *, everywhere: bool = False) -> Window:
    """The stretch of time that a range means now; a billing period is the workspace's own, and of all workspaces the calendar month."""
    return windows.resolve(wanted, zone, asking.known.at) if everywhere else await billing_periods.window(asking.known, wanted, zone)


async def freshness() -> datetime:
    """The instant before which everything recorded is included."""
    return await measure.freshness()


async def totals(asking: Asking, over: Window, narrowed: UsageFilter, details: frozenset[Detail], columns: frozenset[str]) -> Metrics:
    """All usage of a window."""
    return await measure.totals(asking.known, over, narrowed, details, columns)


async def groups(asking: Asking, over: Window, question: Question) -> list[Group]:
    """The usage of a window by values."""
    return await measure.groups(asking.known, over, question)


async def series(
    asking: Asking, over: Window, granularity: Granularity, narrowed: UsageFilter, details: frozenset[Detail], columns: frozenset[str]
) -> list[Point]:
    """The usage of a window in buckets."""
    return await measure.series(asking.known, over, granularity, narrowed, details, columns)


async def series_by(asking: Asking, over: Window, granularity: Granularity, question: Question) -> list[Series]:
    """One series for each of the largest values."""
    return await measure.series_by(asking.known, over, granularity, question)


async def activity(
    asking: Asking,
    view: ActivityView,
    metric: Metric,
    over: Window,
    narrowed: UsageFilter,
    details: frozenset[Detail],
    columns: frozenset[str],
) -> Activity:
    """The activity chart at the instant and in the zone of a report, with its own window."""
    return await charts.chart(asking.known, view, metric, over.zone, over.now, narrowed, details, columns)


async def misses(asking: Asking, over: Window, narrowed: UsageFilter, first: int) -> Sequence[CacheMiss]:
    """What calls of a window missed of the prompt cache, dearest first."""
    return await cache_misses.dearest(asking.known, over, narrowed, first)


async def record_create(asking: Asking, new: NewRecord) -> RecordView:
    """Make a record by hand."""
    return await corrections.create(asking.known, new)


async def record_adjust(asking: Asking, record_id: UUID, units: int | None, charge_microusd: int | None, reason: str) -> RecordView:
    """Correct a record."""
    return await corrections.adjust(asking.known, record_id, units=units, charge_microusd=charge_microusd, reason=reason)


async def record_void(asking: Asking, record_id: UUID, reason: str) -> RecordView:
    """Take a record out of every total."""
    return await corrections.void(asking.known, record_id, reason)


async def log(asking: Asking, wanted: Page, filter_: RecordFilter, order: records.Order, *, ascending: bool) -> PageOf[RecordView]:
    """A page of the request log."""
    return await records.page(asking.known, wanted, filter_, ascending=ascending, order=order)


async def log_count(asking: Asking, filter_: RecordFilter) -> int:
    """How many records match."""
    return await records.count(asking.known, filter_)
