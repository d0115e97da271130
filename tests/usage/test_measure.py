"""Every number on usage is the plain sum of its events, at any moment, in any zone, split in any way."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput, MissingScope, OutOfRange, Required
from domain.usage import measure, rollups
from domain.usage.metrics import COLUMNS, Detail, Dimension, Metric, Metrics, Question, Runs, TagFilter, UsageFilter
from domain.usage.windows import Between, Days, Granularity, RelativeRange, Window, resolve
from models import database as db
from models.enums import Scope, UsageOutcome
from tests.usage.events import APPS, KEYS, MODELS, Event, added, caller, events, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("shared_database")]

START, END = datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 11, 9, tzinfo=UTC)
SEASONS = (START, datetime(2027, 3, 20, tzinfo=UTC), datetime(2028, 2, 19, tzinfo=UTC))
"""Twenty days each: the clocks of Berlin, New York and St. John's go back; those of Berlin, Lord Howe and Chatham change; a leap day."""
NOW = datetime(2026, 11, 8, 14, 37, 12, tzinfo=UTC)
ZONES = (
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/St_Johns",
)
ONE_DATABASE = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def plain(metrics: Metrics) -> dict[str, int]:
    return {name: getattr(metrics, name) for name in COLUMNS}


def together(parts: Sequence[Metrics]) -> dict[str, int]:
    return {name: sum(getattr(part, name) for part in parts) for name in COLUMNS}


def within(window: Window, written: Sequence[Event]) -> list[Event]:
    return [event for event in written if window.start <= event.at < window.end]


@ONE_DATABASE
@given(
    written=st.lists(events(START, END), min_size=1, max_size=25),
    folds=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    zone=st.sampled_from(ZONES),
    granularity=st.sampled_from([Granularity.HOUR, Granularity.DAY, Granularity.WEEK, Granularity.MONTH]),
    bounds=st.tuples(st.timedeltas(timedelta(), timedelta(days=8)), st.timedeltas(timedelta(days=8, seconds=1), timedelta(days=20))),
    whole_days=st.booleans(),
    season=st.sampled_from(SEASONS),
    closed=st.lists(st.integers(0, 21 * 24), min_size=4, max_size=4),
    hours_too=st.booleans(),
)
async def test_every_read_is_the_sum_of_its_events(
    written: list[Event],
    folds: list[int],
    zone: str,
    granularity: Granularity,
    bounds: tuple[timedelta, timedelta],
    whole_days: bool,
    season: datetime,
    closed: list[int],
    hours_too: bool,
) -> None:
    """Totals, groups, series and series by value equal the raw events, whatever part of them is folded and however many hours are closed, before and
    after events of those hours came, for eight zones over DST days and a leap day (F26, F27)."""
    workspace = uuid4()
    me = caller(workspace)
    written = [dataclasses.replace(event, at=event.at + (season - START)) for event in written]
    start, end = season + bounds[0], season + bounds[1]
    window = resolve(Days(start.date(), end.date()) if whole_days else Between(start, end), zone, NOW)
    for place, most in enumerate(folds):
        await write(workspace, written[place :: len(folds)])
        await rollups.fold(most)
        await rollups.close(workspace, season + timedelta(hours=closed[place]), days_from=0, hours_from=0 if hours_too else 10**6)
    await write(uuid4(), written[:3])  # somebody else's
    counted = within(window, written)

    for _ in range(2):  # as it stands, and when everything is folded
        totals = await measure.totals(me, window)
        assert plain(totals) == plain(added(counted))

        points = await measure.series(me, window, granularity)
        assert together([point.metrics for point in points]) == plain(totals)
        for point in points:
            assert plain(point.metrics) == plain(added(counted, lambda event, b=point.bucket: b.start <= event.at < b.end))  # type: ignore[misc]  # a default binds it

        for by, of in (
            ((Dimension.MODEL,), lambda event: (event.model,)),
            ((Dimension.LANGUAGE,), lambda event: (event.language,)),
            ((Dimension.API_KEY, Dimension.OUTCOME), lambda event: (event.key_id, event.outcome)),
            ((Dimension.APP, Dimension.MODEL, Dimension.END_USER), lambda event: (event.app_id, event.model, event.end_user)),
        ):
            groups = await measure.groups(me, window, Question(by=by, order_by=Metric.REQUESTS, first=500))
            live = [event for event in counted if event.mode == "live"]
            assert {group.values.values: plain(group.metrics) for group in groups} == {
                values: plain(added(counted, lambda event, v=values, of=of: of(event) == v)) for values in {of(event) for event in live}  # type: ignore[misc]  # as above
            }
            ranks = [group.metrics.requests for group in groups]
            assert ranks == sorted(ranks, reverse=True)
            largest = await measure.groups(me, window, Question(by=by, order_by=Metric.REQUESTS, first=1, include_other=True))
            assert together([group.metrics for group in largest]) == plain(totals)
            assert [group.other for group in largest] == [False, True][: len(groups)]

        lines = await measure.series_by(me, window, granularity, Question(by=(Dimension.MODEL,), first=2, include_other=True))
        assert together([line.totals for line in lines]) == plain(totals)
        for line in lines:
            assert together([point.metrics for point in line.points]) == plain(line.totals)
        for place, point in enumerate(points):
            assert together([line.points[place].metrics for line in lines]) == plain(point.metrics) or not lines
        await rollups.fold_all()
    assert await rollups.compare() == []


@ONE_DATABASE
@given(
    written=st.lists(events(START, END), max_size=20),
    models=st.none() | st.sets(st.sampled_from([*MODELS[:2], "absent", ""])),
    keys=st.none() | st.sets(st.sampled_from([*KEYS[:2], UUID(int=0)])),
    apps=st.none() | st.sets(st.sampled_from([*APPS[:1], UUID(int=99)])),
    outcomes=st.none() | st.sets(st.sampled_from([UsageOutcome.SUCCEEDED, UsageOutcome.FAILED])),
    most=st.integers(1, 20),
)
async def test_filters(
    written: list[Event],
    models: set[str] | None,
    keys: set[UUID] | None,
    apps: set[UUID] | None,
    outcomes: set[UsageOutcome] | None,
    most: int,
) -> None:
    """A filter counts exactly the events that match it, from cells where they hold it and from single calls where they do not."""
    workspace = uuid4()
    await write(workspace, written)
    await rollups.fold(most)
    wanted = UsageFilter(
        models=None if models is None else tuple(models),
        api_keys=None if keys is None else tuple(keys),
        apps=None if apps is None else tuple(apps),
        outcomes=None if outcomes is None else tuple(outcomes),
    )
    window = resolve(Between(START, END), "UTC", NOW)

    def matches(event: Event) -> bool:
        return all(
            among is None or (value is not None and value in among)
            for among, value in ((models, event.model), (keys, event.key_id), (apps, event.app_id), (outcomes, event.outcome))
        )

    assert plain(await measure.totals(caller(workspace), window, wanted)) == plain(added(within(window, written), matches))


async def test_single_calls_are_read_only_where_no_cell_holds_the_question() -> None:
    """Models alone, languages alone, and apps with keys and outcomes come from cells; other filters, dimensions and details say that they read calls."""
    cells = (
        Question(),
        Question(by=(Dimension.MODEL,)),
        Question(filter=UsageFilter(models=("atlas",)), by=(Dimension.MODEL, Dimension.WORKSPACE)),
        Question(filter=UsageFilter(api_keys=(UUID(int=1),)), by=(Dimension.APP, Dimension.OUTCOME), details=frozenset({Detail.RUNS, Detail.CREDITS})),
        Question(by=(Dimension.MODEL,), details=frozenset({Detail.LATENCY, Detail.FIRST_TOKEN})),
        Question(by=(Dimension.APP,), details=frozenset({Detail.END_USERS, Detail.CONVERSATIONS})),
        Question(by=(Dimension.MODEL,), order_by=Metric.RUNS),
        Question(filter=UsageFilter(languages=("de",)), by=(Dimension.LANGUAGE,), details=frozenset({Detail.RUNS, Detail.CREDITS})),
    )
    calls = (
        Question(by=(Dimension.MODEL, Dimension.API_KEY)),
        Question(filter=UsageFilter(end_users=("ann",))),
        Question(filter=UsageFilter(tags=(TagFilter("team"),))),
        Question(by=(Dimension.MODEL,), details=frozenset({Detail.END_USERS})),
        Question(details=frozenset({Detail.OTHER_BUCKETS})),
    )
    assert [question.raw_calls for question in (*cells, *calls)] == [False] * 8 + [True] * 5


async def test_test_calls_stand_in_no_total() -> None:
    """A test key's call is in no total, group or series, folded or not, and not in what reads single calls."""
    workspace = uuid4()
    at = NOW - timedelta(minutes=5)
    await write(workspace, [Event(at, mode="test", charge_microusd=7, end_user="ann"), Event(at, charge_microusd=5, end_user="bob")])
    window = resolve(RelativeRange.LAST_24_HOURS, "UTC", NOW)
    for _ in range(2):
        assert (await measure.totals(caller(workspace), window)).charge_microusd == 5
        people = await measure.groups(caller(workspace), window, Question(by=(Dimension.END_USER,)))
        assert [(group.values.get(Dimension.END_USER), group.metrics.charge_microusd) for group in people] == [("bob", 5)]
        assert [point.metrics.charge_microusd for point in await measure.series(caller(workspace), window)][-1] == 5
        await rollups.fold_all()


async def test_empty_windows_are_zeros() -> None:
    """Without any usage totals are zeros, every bucket is there, and there is no group."""
    me = caller(uuid4())
    window = resolve(RelativeRange.LAST_24_HOURS, "UTC", NOW)
    details = frozenset(Detail)
    totals = await measure.totals(me, window, details=details)
    assert totals == Metrics(credits=0, other_buckets={}, runs=Runs(), end_users=0, conversations=0, cache_miss_microusd=0)
    assert (totals.error_rate, totals.cache_hit_rate, totals.characters_per_line) == (None, None, None)
    assert [point.metrics for point in await measure.series(me, window)] == [Metrics()] * 24
    assert await measure.groups(me, window, Question(by=(Dimension.MODEL,), include_other=True)) == []


async def test_minutes() -> None:
    """An hour by the minute reads what falls inside quarters from single events, to the minute."""
    workspace = uuid4()
    ats = [NOW - timedelta(minutes=minutes) for minutes in (0, 1, 1, 59, 60)]
    await write(workspace, [Event(at) for at in ats])
    await rollups.fold(3)
    points = await measure.series(caller(workspace), resolve(RelativeRange.LAST_HOUR, "UTC", NOW), Granularity.MINUTE)
    assert len(points) == 60
    assert [(place, point.metrics.requests) for place, point in enumerate(points) if point.metrics.requests] == [(0, 1), (58, 2), (59, 1)]


async def test_windows_long_ago() -> None:
    """The earliest window that can be asked for, and the one before it, are zeros like any without usage."""
    me = caller(uuid4())
    window = resolve(Between(datetime(1971, 1, 1, tzinfo=UTC), datetime(1972, 2, 1, tzinfo=UTC)), "Africa/Monrovia", NOW)
    for asked in (window, window.previous):
        points = await measure.series(me, asked, Granularity.DAY, details=frozenset({Detail.CREDITS}))
        assert {point.metrics for point in points} == {Metrics(credits=0)}


@ONE_DATABASE
@given(values=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30_000)), max_size=12), most=st.integers(1, 12))
async def test_credits_of_buckets_add_up(values: list[tuple[int, int]], most: int) -> None:
    """Whole credits of buckets add up to those of their window, and windows that follow each other to the whole, from cells and single calls."""
    workspace = uuid4()
    me = caller(workspace)
    await write(workspace, [Event(START + timedelta(hours=hours), list_microusd=listed) for hours, listed in values])
    await rollups.fold(most)
    details = frozenset({Detail.CREDITS})
    first, second = (resolve(Between(START + timedelta(days=since), START + timedelta(days=since + 5)), "UTC", NOW) for since in (0, 5))
    for wanted in (None, UsageFilter(providers=("echo",))):
        whole = []
        for window in (first, second):
            points = await measure.series(me, window, Granularity.HOUR, wanted, details)
            totals = await measure.totals(me, window, wanted, details)
            assert sum(point.metrics.credits or 0 for point in points) == totals.credits
            whole.append(totals.credits or 0)
        assert sum(whole) == sum(listed for _, listed in values) // 10_000


async def test_runs_are_calls_by_how_they_stand() -> None:
    """Completed, failed and cancelled come from events; pending and running from calls that are open, live ones of the window only."""
    workspace = uuid4()
    at = NOW - timedelta(minutes=5)
    await write(
        workspace,
        [*(Event(at, outcome="succeeded") for _ in range(3)), Event(at, outcome="failed", errors=1), Event(at, outcome="cancelled"), Event(at, outcome="refused")],
    )
    for mode, progress, opened in (("live", None, at), ("live", "{}", at), ("live", "{}", at), ("test", None, at), ("live", None, at - timedelta(days=2))):
        await _open_call(workspace, mode, progress, opened)
    window = resolve(RelativeRange.LAST_24_HOURS, "UTC", NOW)
    details = frozenset({Detail.RUNS})
    expected = Runs(completed=3, failed=2, cancelled=1, running=2, pending=1)
    for _ in range(2):
        totals = await measure.totals(caller(workspace), window, details=details)
        assert (totals.runs, totals.requests, totals.errors) == (expected, 6, 1)
        assert expected.total == 9
        points = [point.metrics.runs for point in await measure.series(caller(workspace), window, details=details)]
        assert points == [Runs()] * 23 + [expected]
        models = await measure.groups(caller(workspace), window, Question(by=(Dimension.MODEL,), order_by=Metric.RUNS, details=details))
        assert [(group.values.get(Dimension.MODEL), group.metrics.runs) for group in models] == [("atlas", expected)]
        await rollups.fold_all()


async def test_runs_of_one_kind() -> None:
    """Where every call ended the same way the other kinds are zero."""
    workspace = uuid4()
    await write(workspace, [Event(NOW)])
    await rollups.fold_all()
    totals = await measure.totals(caller(workspace), resolve(RelativeRange.LAST_24_HOURS, "UTC", NOW), details=frozenset({Detail.RUNS}))
    assert totals.runs == Runs(completed=1)


async def _open_call(workspace: UUID, mode: str, progress: str | None, at: datetime) -> None:
    call = uuid4()
    await db.fetch(
        """
        INSERT INTO "call" (workspace_id, id, key_kind, mode, api_name, endpoint, dialect, requested_model, model, upstream, streamed, input_tokens, granted_output,
                            clamped, created_at)
        VALUES ($1, $2, 'pay_per_token', $3, 'llm_query', '/v1/messages', 'anthropic', 'atlas', 'atlas', 'echo', true, 1, 1, false, $4)
        """,
        workspace,
        call,
        mode,
        at,
    )
    await db.fetch(
        """
        INSERT INTO hold (workspace_id, call_id, amount, state, held_output, extensions, progress, expires_at, created_at)
        VALUES ($1, $2, 0, 'open', 1, 0, $3, $4, $4)
        """,
        workspace,
        call,
        progress,
        at,
    )


async def test_people_and_quantiles() -> None:
    """People are counted once, exactly; quantiles are at most 2.5 % off the nearest rank's; both in a series' total as well as in its buckets."""
    workspace = uuid4()
    me = caller(workspace)
    at = NOW - timedelta(hours=3)
    await write(
        workspace,
        [
            Event(at + timedelta(hours=place % 2), end_user="ann" if place < 6 else "bob", conversation=f"c{place % 3}", latency_ms=(place + 1) * 100, first_token_ms=7)
            for place in range(11)
        ],
    )
    await rollups.fold(5)
    details = frozenset({Detail.END_USERS, Detail.CONVERSATIONS, Detail.LATENCY, Detail.FIRST_TOKEN})
    window = resolve(RelativeRange.LAST_24_HOURS, "UTC", NOW)
    totals = await measure.totals(me, window, details=details)
    assert (totals.end_users, totals.conversations) == (2, 3)
    assert totals.latency is not None
    assert totals.first_token is not None
    assert dataclasses.astuple(totals.latency) == pytest.approx((600, 1000, 1100, 1100), rel=0.025)
    assert dataclasses.astuple(totals.first_token) == pytest.approx((7, 7, 7, 7), rel=0.025)
    (line,) = await measure.series_by(me, window, Granularity.HOUR, Question(by=(Dimension.MODEL,), details=details))
    assert line.totals == totals
    assert [(point.metrics.requests, point.metrics.end_users) for point in line.points if point.metrics.requests] == [(6, 2), (5, 2)]


async def test_ratios() -> None:
    """Rates are of the window's sums: cache reads of all input, errors of requests, characters of lines."""
    workspace = uuid4()
    await write(
        workspace,
        [
            Event(
                NOW,
                requests=1,
                errors=1,
                input_tokens=10,
                output_tokens=5,
                cache_read_tokens=30,
                cache_write_5m_tokens=6,
                cache_write_1h_tokens=4,
                characters=90,
                lines=4,
                charge_microusd=9,
                upstream_cost_picousd=2_000_001,
            ),
            Event(NOW),
        ],
    )
    totals = await measure.totals(caller(workspace), resolve(RelativeRange.LAST_HOUR, "UTC", NOW))
    assert (totals.tokens, totals.cache_write_tokens, totals.cache_hit_rate, totals.error_rate, totals.characters_per_line) == (55, 10, 0.6, 0.5, 22.5)
    assert (totals.platform_cost_microusd, totals.upstream_cost_microusd, totals.margin_microusd) == (9, 3, 6)


async def test_previous_totals() -> None:
    """The window before has the same number of local days, and meets this one without gap or overlap."""
    workspace = uuid4()
    await write(workspace, [Event(NOW - timedelta(days=days), charge_microusd=2**days) for days in (0, 6, 7, 13, 14)])
    window = resolve(RelativeRange.LAST_7_DAYS, "America/New_York", NOW)
    assert (await measure.totals(caller(workspace), window)).charge_microusd == 1 + 2**6
    assert (await measure.totals(caller(workspace), window.previous)).charge_microusd == 2**7 + 2**13


async def test_dimensions_of_single_calls() -> None:
    """Tags, presets, status and people split usage too; a call without a value is a group of its own."""
    workspace, person = uuid4(), uuid4()
    me = caller(workspace)
    await write(
        workspace,
        [
            Event(NOW, charge_microusd=4, tags={"team": "red", "x": "1"}, preset="cursor@3", user_id=person),
            Event(NOW, charge_microusd=2, tags={"team": "blue"}, preset="cursor@4", http_status=500, language="de"),
            Event(NOW, charge_microusd=1, http_status=None),
        ],
    )
    window = resolve(RelativeRange.LAST_HOUR, "UTC", NOW)

    async def split(dimension: Dimension, tag: str | None = None) -> list[tuple[object, int, float | None]]:
        groups = await measure.groups(me, window, Question(by=(dimension,), tag=tag))
        return [(group.values.get(dimension), group.metrics.charge_microusd, group.share) for group in groups]

    assert await split(Dimension.TAG, "team") == [("red", 4, 4 / 7), ("blue", 2, 2 / 7), (None, 1, 1 / 7)]
    assert [value for value, _, _ in await split(Dimension.PRESET)] == ["cursor@3", "cursor@4", None]
    assert [value for value, _, _ in await split(Dimension.HTTP_STATUS)] == [200, 500, None]
    assert [value for value, _, _ in await split(Dimension.USER)] == [person, None]
    assert [value for value, _, _ in await split(Dimension.WORKSPACE)] == [workspace]

    async def charged(wanted: UsageFilter) -> int:
        return (await measure.totals(me, window, wanted)).charge_microusd

    assert await charged(UsageFilter(presets=("cursor",))) == 6
    assert await charged(UsageFilter(presets=("cursor@4",))) == 2
    assert await charged(UsageFilter(tags=(TagFilter("team"), TagFilter("x", ("1", "2"))))) == 4
    assert await charged(UsageFilter(tags=(TagFilter("team", ("blue", "red")),))) == 6
    assert await charged(UsageFilter(users=(person,), languages=("de",))) == 0


async def test_ties_have_one_order() -> None:
    """Groups that rank the same stand in order of their values, so that a repeated question has the same answer."""
    workspace = uuid4()
    await write(workspace, [Event(NOW, model=model) for model in ("c", None, "a", "b")])
    window = resolve(RelativeRange.LAST_HOUR, "UTC", NOW)
    for ascending in (False, True):
        groups = await measure.groups(caller(workspace), window, Question(by=(Dimension.MODEL,), first=3, include_other=True, ascending=ascending))
        assert [(group.values.get(Dimension.MODEL), group.other) for group in groups] == [("a", False), ("b", False), ("c", False), (None, True)]


@pytest.mark.parametrize(
    ("question", "path", "kind"),
    [
        (Question(), ("by",), OutOfRange),
        (Question(by=(Dimension.MODEL, Dimension.MODEL)), ("by",), InvalidInput),
        (Question(by=(Dimension.MODEL, Dimension.APP, Dimension.USER, Dimension.OUTCOME)), ("by",), OutOfRange),
        (Question(by=(Dimension.TAG,)), ("tag",), Required),
        (Question(by=(Dimension.TAG,), tag="x" * 65), ("tag",), InvalidInput),
        (Question(by=(Dimension.MODEL,), first=0), ("first",), OutOfRange),
        (Question(by=(Dimension.MODEL,), first=501), ("first",), OutOfRange),
        (Question(UsageFilter(models=("a\x00",)), (Dimension.MODEL,)), ("filter", "models"), InvalidInput),
        (Question(UsageFilter(api_names=("a",) * 501), (Dimension.MODEL,)), ("filter", "apiNames"), OutOfRange),
        (Question(UsageFilter(tags=(TagFilter("a\x00"),)), (Dimension.MODEL,)), ("filter", "tags"), InvalidInput),
    ],
)
async def test_bad_questions_name_their_field(question: Question, path: tuple[str, ...], kind: type[InvalidInput]) -> None:
    """What cannot be asked is refused, and the refusal names the field."""
    with pytest.raises(kind) as refused:
        await measure.groups(caller(uuid4()), resolve(RelativeRange.LAST_HOUR, "UTC", NOW), question)
    assert refused.value.path == path


async def test_too_many_series() -> None:
    """A chart has 50 series at most."""
    with pytest.raises(OutOfRange) as refused:
        await measure.series_by(
            caller(uuid4()), resolve(RelativeRange.LAST_HOUR, "UTC", NOW), Granularity.AUTO, Question(by=(Dimension.MODEL,), first=51)
        )
    assert refused.value.maximum == 50


async def test_scopes() -> None:
    """Usage needs USAGE_READ; other people apart need USAGE_READ_ALL; what upstreams charged ranks for operators only."""
    workspace, myself = uuid4(), uuid4()
    window = resolve(RelativeRange.LAST_HOUR, "UTC", NOW)
    member = caller(workspace, without=[Scope.USAGE_READ_ALL, Scope.OPERATOR], user_id=myself)
    await write(workspace, [Event(NOW, user_id=myself), Event(NOW, user_id=uuid4())])
    assert (await measure.totals(member, window)).requests == 2
    assert (await measure.totals(member, window, UsageFilter(users=(myself,)))).requests == 1
    for question, missing in (
        (Question(by=(Dimension.USER,)), "USAGE_READ_ALL"),
        (Question(UsageFilter(users=(myself, uuid4())), (Dimension.MODEL,)), "USAGE_READ_ALL"),
        (Question(by=(Dimension.MODEL,), order_by=Metric.MARGIN), "OPERATOR"),
        (Question(by=(Dimension.MODEL,), order_by=Metric.UPSTREAM_COST), "OPERATOR"),
    ):
        with pytest.raises(MissingScope) as refused:
            await measure.groups(member, window, question)
        assert refused.value.scopes == (missing,)
    with pytest.raises(MissingScope):
        await measure.totals(caller(workspace, without=[Scope.USAGE_READ]), window)


async def test_freshness_waits_for_transactions_under_way(shared_database: str) -> None:
    """Everything recorded before the instant is included: while a transaction is open, the instant is not after its start."""
    other = await asyncpg.connect(shared_database)
    transaction = other.transaction()
    await transaction.start()
    begun = await other.fetchval("SELECT transaction_timestamp()")
    assert await measure.freshness() == begun
    await transaction.rollback()
    await other.close()
    assert await measure.freshness() > begun
