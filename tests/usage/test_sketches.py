"""Sketches of durations add up, and people of days are exact: from cells, the queue and edges as from single calls."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from math import ceil
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.usage import measure, rollups, sketches
from domain.usage.metrics import Detail, Dimension, Question, TagFilter, UsageFilter
from domain.usage.windows import Between, Granularity, resolve
from models import database
from tests.usage.events import APPS, Event, caller, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("shared_database")]

START = datetime(2026, 2, 27, tzinfo=UTC)
DETAILS = frozenset({Detail.LATENCY, Detail.FIRST_TOKEN, Detail.END_USERS, Detail.CONVERSATIONS, Detail.OTHER_BUCKETS})
durations = st.lists(st.integers(1, 3_600_000), min_size=1, max_size=60)


@given(durations)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_quantile_is_close_to_the_nearest_rank(values: list[int]) -> None:
    """Each quantile is at most 2.5 % off the duration of its rank, whatever the durations."""
    rows = await database.fetch("SELECT sketch_bucket_1(ms) AS bucket FROM unnest($1::int[]) ms", values)
    told = sketches.quantiles(Counter(row["bucket"] for row in rows))
    assert told is not None
    ranked = sorted(values)
    for quantile, percent in ((told.p50, 50), (told.p90, 90), (told.p95, 95), (told.p99, 99)):
        assert quantile == pytest.approx(ranked[ceil(percent * len(ranked) / 100) - 1], rel=0.025)


@given(durations, durations)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_sketches_add_up(left: list[int], right: list[int]) -> None:
    """The sum of two sketches is the sketch of all, in the database and outside."""
    row = await database.fetch_row(
        """
        SELECT sketch_of_1(array(SELECT sketch_bucket_1(ms) FROM unnest($1::int[] || $2::int[]) ms)) AS whole,
               sketch_add_1(sketch_of_1(array(SELECT sketch_bucket_1(ms) FROM unnest($1::int[]) ms)),
                            sketch_of_1(array(SELECT sketch_bucket_1(ms) FROM unnest($2::int[]) ms))) AS summed
        """,
        left,
        right,
    )
    assert row is not None
    assert row["whole"] == row["summed"]
    parts = [Counter(e["b"] for e in await database.fetch("SELECT sketch_bucket_1(ms) AS b FROM unnest($1::int[]) ms", each)) for each in (left, right)]
    assert sketches.added(parts) == {each >> 40: each & (2**40 - 1) for each in row["whole"]}


calls = st.lists(
    st.builds(
        Event,
        at=st.integers(0, 3 * 24 * 3600 - 1).map(lambda second: START + timedelta(seconds=second)),
        mode=st.sampled_from(["live", "live", "test"]),
        app_id=st.sampled_from(APPS),
        end_user=st.sampled_from(["ann", "bob", "cid", None]),
        conversation=st.sampled_from(["c1", "c2", None]),
        model=st.sampled_from(["atlas", "boreas"]),
        tags=st.just({"all": "yes"}),
        other_buckets=st.sampled_from([None, {"characters": 3}, {"seconds": 2, "characters": 1}]),
        latency_ms=st.none() | st.integers(0, 100_000),
        first_token_ms=st.none() | st.integers(1, 1_000),
    ),
    min_size=1,
    max_size=30,
)


@given(calls, st.integers(0, 40 * 3600), st.integers(1, 40 * 3600), st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]), st.integers(0, 30))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_cells_days_queue_and_edges_say_what_single_calls_say(events: list[Event], since: int, length: int, zone: str, folded: int) -> None:
    """Any window, any zone, any state of the fold: the same people and the same sketches as from single calls, by app and in every bucket."""
    workspace = uuid4()
    me = caller(workspace)
    await write(workspace, events)
    window = resolve(Between(START + timedelta(seconds=since), START + timedelta(seconds=since + length)), zone, START + timedelta(days=9))
    every = UsageFilter(tags=(TagFilter("all"),))  # no cell holds tags: this reads single calls
    await rollups.fold(folded or 1)
    for _ in range(2):
        for by in ((), (Dimension.APP,)):
            fast = await measure.series_by(me, window, Granularity.AUTO, Question(by=by, first=None, details=DETAILS - {Detail.OTHER_BUCKETS}))
            slow = await measure.series_by(me, window, Granularity.AUTO, Question(by=by, first=None, details=DETAILS - {Detail.OTHER_BUCKETS}, filter=every))
            assert fast == slow
        inside = [event for event in events if event.mode == "live" and window.start <= event.at < window.end]
        totals = await measure.totals(me, window, details=DETAILS)
        assert totals.end_users == len({event.end_user for event in inside} - {None})
        assert totals.conversations == len({event.conversation for event in inside} - {None})
        others: Counter[str] = Counter()
        for event in inside:
            others.update(event.other_buckets or {})
        assert totals.other_buckets == dict(others)
        await rollups.fold_all()
