"""The activity chart's own windows hold across year ends, leap days and changes of the clock, in eight zones."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput, MissingScope
from domain.usage import activity
from domain.usage.activity import ActivityView
from domain.usage.metrics import Detail, Metric
from domain.usage.windows import Bucket, Granularity, buckets
from models.enums import Scope
from tests.usage.events import Event, caller, write

pytestmark = pytest.mark.anyio

ZONES = (
    *("UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu"),
    *("Pacific/Chatham", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"),
)
NOWS = (
    *("2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z", "2024-02-29T12:00:00Z", "2024-03-01T00:30:00Z", "2026-03-08T06:59:59Z"),
    *("2026-03-29T01:00:00Z", "2026-04-04T15:30:00Z", "2026-11-01T06:30:00Z", "2027-01-03T10:00:00Z", "2011-12-31T09:59:59Z"),
)


def bars(view: ActivityView, zone: str, now: datetime) -> Sequence[Bucket]:
    """The bars of a chart."""
    unit = {ActivityView.DAILY: Granularity.DAY, ActivityView.WEEKLY: Granularity.WEEK, ActivityView.MONTHLY: Granularity.MONTH}[view]
    return buckets(activity.window(view, zone, now), unit)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", NOWS)
def test_bars_are_local_days_weeks_and_months(zone: str, text: str) -> None:
    """F26: 7 days, 12 weeks from Monday, 12 months, each beginning at local midnight; without gap; the last holds this instant."""
    now, place = datetime.fromisoformat(text), ZoneInfo(zone)
    for view, count in ((ActivityView.DAILY, 7), (ActivityView.WEEKLY, 12), (ActivityView.MONTHLY, 12)):
        cut = bars(view, zone, now)
        missing = 1 if (zone, view, text) == ("Pacific/Apia", ActivityView.DAILY, "2011-12-31T09:59:59Z") else 0  # Samoa had no 30 December 2011
        assert len(cut) == count - missing
        assert [bar.start for bar in cut[1:]] == [bar.end for bar in cut[:-1]]
        assert cut[-1].start <= now < cut[-1].end
        starts = [bar.start.astimezone(place) for bar in cut]
        assert {start.strftime("%H:%M:%S") for start in starts} == {"00:00:00"}
        if view is ActivityView.WEEKLY:
            assert {start.weekday() for start in starts} == {0}
        if view is ActivityView.MONTHLY:
            assert {start.day for start in starts} == {1}
            assert [start.year * 12 + start.month for start in starts] == list(range(starts[0].year * 12 + starts[0].month, starts[0].year * 12 + starts[0].month + 12))


def test_twelve_weeks_across_a_year_end() -> None:
    """ISO weeks keep their year: the last week of 2026 has Monday 28 December, the week of 1 January is week 53 of 2026."""
    labels = [bar.label for bar in bars(ActivityView.WEEKLY, "Europe/Berlin", datetime(2027, 1, 3, 12, tzinfo=UTC))]
    assert (labels[0], labels[-2:]) == ("2026-W42", ["2026-W52", "2026-W53"])


instants = st.integers(0, 400 * 24 * 3600).map(lambda second: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=second))
events = st.lists(st.builds(Event, at=instants, lines=st.integers(0, 9)), max_size=25)


@pytest.mark.usefixtures("shared_database")
@given(events, st.sampled_from(ZONES), st.sampled_from(ActivityView))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_chart_is_the_sum_of_its_window(written: list[Event], zone: str, view: ActivityView) -> None:
    """Total, mean, peak and bars are those of the events in the chart's window, in any zone."""
    workspace, now = uuid4(), datetime(2026, 1, 12, 3, 30, tzinfo=UTC)
    await write(workspace, written)
    chart = await activity.chart(caller(workspace, at=now), view, Metric.LINES, zone, now, details=frozenset({Detail.RUNS}))
    inside = [event for event in written if chart.window.start <= event.at < chart.window.end]
    heights = [sum(event.lines for event in inside if bar.bucket.start <= event.at < bar.bucket.end) for bar in chart.bars]
    assert [chart.height(bar) for bar in chart.bars] == heights
    assert (chart.total, chart.average) == (sum(event.lines for event in inside), round(sum(heights) / len(heights), 1))
    assert sum(bar.metrics.runs.total for bar in chart.bars if bar.metrics.runs) == len(inside)
    assert chart.peak is (chart.bars[heights.index(max(heights))] if any(heights) else None)


async def test_what_may_not_be_charted() -> None:
    """A zone that is none names its field; the operator's metrics need the operator."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for view in ActivityView:
        with pytest.raises(InvalidInput) as refused:
            activity.window(view, "Mars/Olympus", now)
        assert refused.value.path == ("timezone",)
    for metric in (Metric.MARGIN, Metric.UPSTREAM_COST):
        with pytest.raises(MissingScope):
            await activity.chart(caller(uuid4(), without={Scope.OPERATOR}), ActivityView.DAILY, metric, "UTC", now)
