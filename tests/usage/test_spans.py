"""Spans: whole days and hours above the quarters, the sum of their cells whoever folds, closes or dies."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from domain.errors import InvalidInput
from domain.money import books
from domain.money.books import COMPARISON
from domain.pages import Page
from domain.usage import measure, records, rollups
from domain.usage.metrics import Detail, Dimension, Question
from domain.usage.windows import Between, Days, Granularity, Window, resolve
from jobs.rollups import compare_usage
from models import database as db
from tests.support.servers import Servers
from tests.usage.events import APPS, Event, caller, write

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
START = datetime(2026, 11, 1, tzinfo=UTC)
BOTH = {"days_from": 0, "hours_from": 0}
PEOPLE = frozenset({Detail.END_USERS, Detail.CONVERSATIONS, Detail.LATENCY})


def days(first: int, last: int, zone: str = "UTC") -> Window:
    """A window of local days of November 2026."""
    return resolve(Days(date(2026, 11, first), date(2026, 11, last)), zone, START + 30 * DAY)


async def spans(workspace: UUID) -> list[tuple[object, ...]]:
    rows = await db.fetch("SELECT hours, level, at, charge_microusd FROM usage_span WHERE workspace_id = $1 ORDER BY 1, 2, 3, 4", workspace)
    return [tuple(row) for row in rows]


@pytest.mark.usefixtures("database")
async def test_what_a_span_says() -> None:
    """Closing sums up the quarters before a midnight, by hour and by day; what comes later for those days is added to cells and spans alike."""
    workspace = uuid4()
    await write(workspace, [Event(START + timedelta(hours=hour, minutes=30), charge_microusd=10**hour, latency_ms=hour * 100) for hour in (0, 1)])
    await rollups.fold_all()
    assert await rollups.close(workspace, START, **BOTH) == 0
    assert await rollups.close(workspace, START + DAY, **BOTH) == 12
    assert await rollups.close(workspace, START + DAY, **BOTH) == 0
    hours = [(1, level, START + timedelta(hours=hour), 10**hour) for level in range(4) for hour in (0, 1)]
    assert await spans(workspace) == [*hours, *((24, level, START, 11) for level in range(4))]
    late = Event(START + timedelta(hours=1), kind="late", requests=0, charge_microusd=-3, latency_ms=700)
    await write(workspace, [late, Event(START + DAY, charge_microusd=500)])
    await rollups.fold_all()
    hours = [(1, level, START + timedelta(hours=hour), charge) for level in range(4) for hour, charge in ((0, 1), (1, 7))]
    assert await spans(workspace) == [*hours, *((24, level, START, 8) for level in range(4))]
    assert (await measure.totals(caller(workspace), days(1, 2))).charge_microusd == 508
    assert await rollups.compare() == []


@pytest.mark.usefixtures("database")
async def test_quiet_workspaces_have_no_spans() -> None:
    """Days are kept from a number of cells a day on, hours from a larger one; whoever has them keeps them, and whoever gets them has all history."""
    workspace = uuid4()
    await write(workspace, [Event(START + place * timedelta(minutes=15), charge_microusd=1) for place in range(4)])
    await rollups.fold_all()
    assert await rollups.close(workspace, START + DAY, days_from=5, hours_from=5) == 0
    await write(workspace, [Event(START + DAY + place * timedelta(minutes=15), charge_microusd=1) for place in range(8)])
    await rollups.fold_all()
    assert await rollups.close(workspace, START + 2 * DAY, days_from=5, hours_from=7) == 2 * 4  # six a day: days alone, of both days
    await write(workspace, [Event(START + 2 * DAY, charge_microusd=1)])
    await rollups.fold_all()
    assert await rollups.close(workspace, START + 3 * DAY, days_from=100, hours_from=100) == 4
    assert (await measure.totals(caller(workspace), days(1, 3))).charge_microusd == 13


@pytest.mark.usefixtures("database")
async def test_days_and_hours_are_closed_when_they_are_over() -> None:
    """The job closes days ten minutes after they end, and hours too, those of the day under way as well, of workspaces that have hours; each once."""
    workspace, quiet, busy = uuid4(), uuid4(), uuid4()
    written = [Event(START + place * timedelta(minutes=15), model=None, outcome=outcome) for place in range(6) for outcome in ("succeeded", "failed", "cancelled")]
    await write(workspace, written)
    await write(quiet, written[:1])
    await write(busy, [Event(START + timedelta(hours=hour), charge_microusd=1 + hour) for hour in (0, 23, 24, 25, 26)])
    await rollups.fold_all()
    assert await rollups.close(busy, START + DAY, **BOTH) == 4 * (1 + 2)
    assert await rollups.close_all(START + DAY + timedelta(minutes=9)) == 0
    assert await rollups.close_all(START + DAY + timedelta(minutes=11)) == 1 + 1 + 3 + 1
    assert await rollups.close_all(START + DAY + timedelta(minutes=12)) == 0
    assert await spans(quiet) == []
    assert await rollups.close_all(START + timedelta(hours=26, minutes=9)) == 4  # the hour from 24, of the busy one alone
    assert await rollups.close_all(START + timedelta(hours=26, minutes=10)) == 4
    assert await rollups.close_all(START + timedelta(hours=26, minutes=10)) == 0
    await write(busy, [Event(START + timedelta(hours=25, minutes=59), kind="late", requests=0, charge_microusd=5)])
    await rollups.fold_all()
    day = START + DAY
    assert [span for span in await spans(busy) if span[1] == 0] == [
        *((1, 0, START + timedelta(hours=hour), 1 + hour + (5 if hour == 25 else 0)) for hour in (0, 23, 24, 25)),
        (24, 0, START, 1 + 24),
    ]
    assert (await measure.totals(caller(busy), days(2, 2))).charge_microusd == 25 + 26 + 27 + 5
    assert (await measure.totals(caller(busy), resolve(Between(day, day + timedelta(hours=1)), "UTC", day))).charge_microusd == 25
    assert await rollups.compare() == []
    assert await rollups.close_all(START + 2 * DAY + timedelta(minutes=10)) == 4 * (1 + 1)  # the day, and its last hours
    assert (await measure.totals(caller(busy), days(1, 2))).requests == 5
    assert await rollups.compare() == []


@pytest.mark.usefixtures("database")
async def test_people_are_counted_once_across_days_and_edges() -> None:
    """People of closed days, of edges and of the queue are one set: by day, by app, in a zone whose days are no days of UTC, beyond one bitmap's numbers too."""
    workspace, other = uuid4(), uuid4()
    for kind in (0, 1):
        await db.fetch("INSERT INTO usage_name_count (workspace_id, kind, names) VALUES ($1, $2, 32766)", workspace, kind)
    people = [(0, "ann", 1, None), (5, "bob", 2, None), (26, "ann", 3, APPS[0]), (30, "cid", 4, APPS[0])]
    people += [(50, "dan", 5, None), (71, "eve", 6, APPS[0]), (71, "ann", 7, None)]
    written = [Event(START + timedelta(hours=hour), end_user=name, conversation=f"c{talk}", app_id=app) for hour, name, talk, app in people]
    await write(workspace, written)
    await write(other, written[:2])
    for folded in (0, 3, 3):  # all queued, some folded, all folded
        await rollups.fold(folded or 1)
        await rollups.close(workspace, START + 2 * DAY, **BOTH)
        for window, counts in ((days(1, 3), (5, 7)), (days(2, 4, "Asia/Kathmandu"), (4, 5))):  # the second begins at 18:15
            found = await measure.totals(caller(workspace), window, details=PEOPLE)
            assert (found.end_users, found.conversations) == counts
        by_app = await measure.groups(caller(workspace), days(1, 3), Question(by=(Dimension.APP,), details=PEOPLE))
        assert {group.values.values[0]: group.metrics.end_users for group in by_app} == {None: 3, APPS[0]: 3}
        points = await measure.series(caller(workspace), days(1, 3), details=PEOPLE)
        assert [point.metrics.end_users for point in points] == [2, 2, 3]
        (line,) = await measure.series_by(caller(workspace), days(1, 3), Granularity.DAY, Question(by=(Dimension.WORKSPACE,), details=PEOPLE))
        assert line.totals.end_users == 5
    await rollups.fold_all()
    assert await db.fetch_value("SELECT count(DISTINCT part) FROM usage_people WHERE workspace_id = $1", workspace) == 2
    assert await db.fetch_value("SELECT max(pg_column_size(people)) FROM usage_people") < 200  # a thin set is compressed
    assert (await rollups.compare(), await rollups.strays()) == ([], 0)
    spoil = "UPDATE usage_people SET people = ~people WHERE workspace_id = $1 AND kind = 0 AND used_on = $2 RETURNING part"
    spoilt = await db.fetch(spoil, workspace, START.date())
    assert await rollups.strays() == len(spoilt) > 0  # two of this day, or one: who of five gets which number is chance
    assert await rollups.strays(START.date() + DAY) == 0


async def test_comparing_finds_spans_that_are_not_their_cells(database: str, servers: Servers) -> None:
    """A span that was changed, and one that was lost, are named with their difference."""
    workspace = uuid4()
    await write(workspace, [Event(START, charge_microusd=10), Event(START + DAY, charge_microusd=1)])
    await rollups.fold_all()
    await rollups.close(workspace, START + 2 * DAY, **BOTH)
    assert await rollups.compare() == []
    await db.fetch("UPDATE usage_span SET charge_microusd = 11 WHERE workspace_id = $1 AND hours = 24 AND level = 0 AND at = $2", workspace, START)
    admin = await asyncpg.connect(servers.admin_dsn(urlsplit(database).path.lstrip("/")))
    await admin.execute("DELETE FROM usage_span WHERE workspace_id = $1 AND hours = 1 AND level = 1 AND at = $2", workspace, START + DAY)
    await admin.close()
    assert [(drift.hours, drift.level, drift.at, drift.difference) for drift in await rollups.compare()] == [
        (1, 1, START + DAY, {"requests": -1, "charge_microusd": -1, "succeeded": -1}),
        (24, 0, START, {"charge_microusd": 1}),
    ]


@pytest.mark.usefixtures("database")
async def test_the_comparison_is_remembered() -> None:
    """What the nightly job found stands where `/metrics` and `/health/books` look: how many cells, spans and sets differ, by how much, and when it looked."""
    workspace = uuid4()
    operator = caller(workspace)
    assert COMPARISON not in {check.name for check in (await books.report(operator)).checks}
    await write(workspace, [Event(START, charge_microusd=10, end_user="ann")])
    await rollups.fold_all()
    await compare_usage({})
    assert [(check.name, check.broken) for check in await books.kept()] == [(COMPARISON, 0)]
    await db.fetch("UPDATE usage_cell SET charge_microusd = 3 WHERE workspace_id = $1 AND level = 1", workspace)
    await compare_usage({})
    (last,) = [check for check in (await books.report(operator)).checks if check.name == COMPARISON]
    assert (last.broken, last.difference_microusd, last.sound) == (1, 7, False)


async def test_what_reads_too_much_is_refused(database: str, servers: Servers) -> None:
    """A report, the request log by cost, and its count, when the server ends their statement for its time: a refusal in words that names the window."""
    me = caller(uuid4())

    async def hurried(ask: Callable[[], Awaitable[object]]) -> None:
        async with db.transaction():
            await db.fetch("SET LOCAL statement_timeout = '50ms'")
            await ask()

    blocker = await asyncpg.connect(servers.admin_dsn(urlsplit(database).path.lstrip("/")))
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE usage_closing, usage_event IN ACCESS EXCLUSIVE MODE")
        for ask in (
            lambda: measure.totals(me, days(1, 2)),
            lambda: records.page(me, Page()),
            lambda: records.page(me, Page(), order=records.Order.COST),
            lambda: records.count(me),
        ):
            with pytest.raises(InvalidInput, match="narrower window") as refused:
                await hurried(ask)
            assert refused.value.path == ("range",)
    await blocker.close()


FOLDER = """
import asyncio, sys
from domain.usage import rollups
from models import database

async def main():
    await database.open_pool(sys.argv[1], pool=1)
    while True:
        if not await rollups.fold(7):
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.fixture
async def folder(database: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own that folds, seven events at a time."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FOLDER, database)
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_a_folding_process_is_killed(database: str, folder: asyncio.subprocess.Process) -> None:
    """kill -9 of a process that folds, in the middle of a transaction that has taken events and waits: every read is exact before, then and after,
    nothing is lost, nothing is twice (F27)."""
    workspace = uuid4()
    me = caller(workspace)
    window = resolve(Between(START, START + DAY), "UTC", START + DAY)

    async def measured() -> tuple[int, int]:
        totals = await measure.totals(me, window)
        return totals.requests, totals.charge_microusd

    events = [Event(START + timedelta(minutes=minute % 60), charge_microusd=minute) for minute in range(120)]
    whole = (120, sum(event.charge_microusd for event in events))
    await write(workspace, events[:60])
    while await db.fetch_value("SELECT count(*) FROM usage_pending"):
        await asyncio.sleep(0.01)
    await rollups.close(workspace, START + DAY, **BOTH)
    other = await asyncpg.connect(database)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM usage_span WHERE workspace_id = $1 AND hours = 24 FOR UPDATE", workspace)
    await write(workspace, events[60:])
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while (pid := await db.fetch_value(waiting)) is None:
        await asyncio.sleep(0.01)
    assert await measured() == whole
    folder.kill()
    assert await folder.wait() == -9
    assert await measured() == whole
    await transaction.rollback()
    await other.close()
    while await db.fetch_value("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
        await asyncio.sleep(0.01)
    assert await measured() == whole
    assert await rollups.fold_all() in (60, 53)  # Postgres had either nothing of the batch under way, or all of it
    assert await measured() == whole
    assert await rollups.compare() == []
