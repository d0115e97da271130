"""The activity chart: one bar for each local day, week or month of a window of its own."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from domain.access.callers import Caller
from domain.usage import measure, windows
from domain.usage.measure import Point
from domain.usage.metrics import COLUMNS_OF, EVERY_COLUMN, NOTHING_BUT, Detail, Metric, Question, UsageFilter
from domain.usage.windows import Days, Granularity, RelativeRange, Window
from models.enums import Scope

WEEKS = 12


class ActivityView(StrEnum):
    """Which chart: 7 local days, 12 weeks from Monday, or 12 months; the last bar is the one under way."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


_UNITS = {ActivityView.DAILY: Granularity.DAY, ActivityView.WEEKLY: Granularity.WEEK, ActivityView.MONTHLY: Granularity.MONTH}
_RANGES = {ActivityView.DAILY: RelativeRange.LAST_7_DAYS, ActivityView.MONTHLY: RelativeRange.LAST_12_MONTHS}


@dataclass(frozen=True, slots=True)
class Activity:
    """A chart of `metric`: bars, their sum, their mean to one decimal, and the first of the highest; no peak when all are zero."""

    view: ActivityView
    unit: Granularity
    metric: Metric
    window: Window
    bars: list[Point]
    total: int
    average: float
    peak: Point | None

    def height(self, bar: Point) -> int:
        """Return how high a bar is."""
        return bar.metrics.value(self.metric)


def window(view: ActivityView, zone: str, now: datetime) -> Window:
    """Return the chart's own window at `now`; raises InvalidInput for an unknown zone (path `timezone`)."""
    if view is not ActivityView.WEEKLY:
        return windows.resolve(_RANGES[view], zone, now)
    today = Days.ending(now, 1, zone).first
    monday = today - timedelta(days=today.weekday())
    weeks = windows.resolve(Days(monday - timedelta(weeks=WEEKS - 1), monday + timedelta(days=6)), zone, now)
    return dataclasses.replace(weeks, label=f"Last {WEEKS} weeks")


async def chart(
    caller: Caller,
    view: ActivityView,
    metric: Metric,
    zone: str,
    now: datetime,
    wanted: UsageFilter | None = None,
    details: frozenset[Detail] = frozenset(),
    columns: frozenset[str] = EVERY_COLUMN,
) -> Activity:
    """Return a chart with `columns` and `details` of every bar; raises as `measure.series`, and MissingScope for a metric that is the operator's."""
    if metric in (Metric.UPSTREAM_COST, Metric.MARGIN):
        caller.require(Scope.OPERATOR)
    over, unit = window(view, zone, now), _UNITS[view]
    details, columns = details | NOTHING_BUT.get(metric, frozenset()), columns | COLUMNS_OF[metric]
    question = Question(filter=wanted or UsageFilter(), details=details, columns=columns)
    (measured,) = await measure.series_by(caller, over, unit, question)
    heights = [bar.metrics.value(metric) for bar in measured.points]
    highest = max(heights)
    return Activity(
        view=view,
        unit=unit,
        metric=metric,
        window=over,
        bars=measured.points,
        total=sum(heights),
        average=round(sum(heights) / len(heights), 1),
        peak=measured.points[heights.index(highest)] if any(heights) else None,
    )
