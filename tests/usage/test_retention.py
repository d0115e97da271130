"""Calls are let go when they are kept long enough; every sum stays, and nobody waits (F36)."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from domain.errors import NotFound
from domain.money import ledger
from domain.sql.install import statements
from domain.usage import measure, partitions, records, rollups
from domain.usage.metrics import Detail, Dimension, Question
from domain.usage.windows import Between, Granularity, resolve
from models import database as db
from models.migrate import PARTITIONED
from tests.support.servers import Servers
from tests.usage.events import Event, added, backdated, caller, write

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
OLD = (NOW - 100 * DAY).replace(day=10)
MONTH = f"y{OLD.year}m{OLD.month:02}"
WINDOW = resolve(Between(OLD - 40 * DAY, NOW + DAY), "UTC", NOW)
PEOPLE = frozenset({Detail.END_USERS, Detail.LATENCY})


def of(day: datetime, **facts: object) -> list[Event]:
    """Some calls of a day, in several quarters."""
    hours = (0.3, 5, 5.1, 23.9)
    times = [day.replace(hour=0) + timedelta(hours=hour) for hour in hours]
    return [Event(at, id=backdated(at), end_user=f"u{place}", list_microusd=7, input_tokens=place, latency_ms=place * 50, **facts) for place, at in enumerate(times)]  # type: ignore[arg-type]  # facts are fields


async def made(retention_days: int | None) -> UUID:
    """A workspace with an account, and how long it keeps its calls."""
    workspace = uuid4()
    await db.fetch("INSERT INTO workspace (id, name, default_timezone, retention_days, created_at) VALUES ($1, 'w', 'UTC', $2, now())", workspace, retention_days)
    for kind in ("cash", "revenue"):
        await db.fetch(
            """
            INSERT INTO account (workspace_id, id, kind, credits, debits, held, floor, version, carry_picousd, list_carry_picousd, updated_at)
            VALUES ($1, uuidv7(), $2, 0, 0, 0, 0, 0, 0, 0, now())
            """,
            workspace,
            kind,
        )
    return workspace


async def measured(workspace: UUID) -> list[object]:
    """Numbers by day in two zones, by model, app and language, with people and latencies of all."""
    me = caller(workspace)
    found: list[object] = []
    for zone in ("UTC", "Asia/Kathmandu"):
        window = resolve(Between(WINDOW.start, WINDOW.end), zone, NOW)
        found += [point.metrics for point in await measure.series(me, window, Granularity.DAY)]
    for by in (Dimension.MODEL, Dimension.APP, Dimension.LANGUAGE):
        found += [(group.values.values, group.metrics) for group in await measure.groups(me, WINDOW, Question(by=(by,)))]
    return [*found, await measure.totals(me, WINDOW, details=PEOPLE)]


async def broken(workspace: UUID) -> list[str]:
    return [row.broken for row in await ledger.audit() if row.workspace_id == workspace]


@pytest.mark.usefixtures("database")
async def test_a_workspace_keeps_its_calls_for_less() -> None:
    """Its calls older than its days go, those that are queued stay; sums by day, zone, model and app, people and latencies stay, the audit is silent, the
    comparison too; what only calls tell is told of those that are left, and another workspace keeps all."""
    mine, other = await made(30), await made(None)
    young, old = of(NOW - 5 * DAY), [*of(NOW - 90 * DAY), *of(NOW - 45 * DAY)]
    for workspace in (mine, other):
        await write(workspace, [dataclasses.replace(one, id=backdated(one.at)) for one in (*old, *young)])
    await rollups.fold_all()
    await rollups.close(mine, (NOW - 60 * DAY).replace(hour=0), days_from=0, hours_from=0)
    (queued,) = [Event(NOW - 44 * DAY, id=backdated(NOW - 44 * DAY), list_microusd=1)]
    await write(mine, [queued])
    before = await measured(mine)
    assert await partitions.retire(NOW, None) == 8
    assert await partitions.retire(NOW, None) == 0
    assert await measured(mine) == before
    assert await broken(mine) == []
    await rollups.fold_all()
    assert await partitions.retire(NOW, None) == 1
    assert await measured(mine) == before
    assert (await broken(mine), await rollups.compare(), await rollups.strays()) == ([], [], 0)
    assert await records.count(caller(mine)) == 4
    assert await records.count(caller(other)) == 12
    by_person = await measure.groups(caller(mine), WINDOW, Question(by=(Dimension.END_USER,)))
    assert sum(group.metrics.requests for group in by_person) == 4
    with pytest.raises(NotFound):
        await records.find(caller(mine), queued.id)


async def test_languages_of_calls_folded_before_languages_had_cells(database: str, servers: Servers) -> None:
    """An update fills the level of languages, once, in the transaction that brings it: from calls where they are kept, without a language where they are
    gone, for cells, hours and days; what is queued stays queued, and a fold that is under way is waited for."""
    mine, other = await made(30), await made(None)
    days = [dataclasses.replace(one, language=("de", None, "fr", "de")[place % 4]) for place, one in enumerate((*of(NOW - 90 * DAY), *of(NOW - 5 * DAY)))]
    for workspace in (mine, other):
        await write(workspace, [dataclasses.replace(one, id=backdated(one.at)) for one in days])
    await rollups.fold_all()
    for workspace in (mine, other):
        await rollups.close(workspace, NOW.replace(hour=0) - 2 * DAY, days_from=0, hours_from=0)
    await partitions.retire(NOW, None)
    await write(mine, [Event(NOW - 3 * DAY, language="de")])
    by_language = Question(by=(Dimension.LANGUAGE,))

    async def found(workspace: UUID) -> dict[object, int]:
        return {group.values.values[0]: group.metrics.requests for group in await measure.groups(caller(workspace), WINDOW, by_language)}

    kept = {workspace: await found(workspace) for workspace in (mine, other)}
    assert kept == {mine: {"de": 5, None: 2, "fr": 2}, other: {"de": 4, None: 2, "fr": 2}}
    owner, folding = await asyncpg.connect(servers.owner_dsn(urlsplit(database).path.lstrip("/"))), await asyncpg.connect(database)
    texts = "".join(text for _, text in statements())
    await owner.execute("DELETE FROM usage_cell WHERE level = 3; DELETE FROM usage_span WHERE level = 3")
    fold = folding.transaction()
    await fold.start()
    assert await folding.fetchval("SELECT fold_4(10)") == 1  # with the level of today, which is why it is rolled back
    updating = asyncio.create_task(owner.execute(texts))
    while not await db.fetch_value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'usage_closing'::regclass"):
        await asyncio.sleep(0.01)
    await fold.rollback()
    await updating
    assert await found(mine) == {"de": 3, None: 4 + 1, "fr": 1}, "of four calls that are gone nobody knows the language"
    assert await found(other) == kept[other]
    assert await rollups.compare() == []
    before = await db.fetch("SELECT count(*), sum(requests) FROM usage_cell")
    await owner.execute(texts)
    assert await db.fetch("SELECT count(*), sum(requests) FROM usage_cell") == before
    assert [await broken(workspace) for workspace in (mine, other)] == [[], []]
    await owner.close()
    await folding.close()


@pytest.mark.usefixtures("database")
async def test_a_quarter_that_is_cut_counts_where_it_begins() -> None:
    """Bounds inside a quarter of an hour whose calls are gone: each quarter is in one stretch, so that two windows that meet still add up to both."""
    workspace = await made(30)
    calls = of(NOW - 90 * DAY)
    await write(workspace, calls)
    await rollups.fold_all()
    await partitions.retire(NOW, None)
    start, end = calls[0].at - DAY, calls[0].at + 2 * DAY
    for cut in (calls[1].at + timedelta(minutes=4), calls[1].at + timedelta(minutes=8), calls[2].at + timedelta(seconds=1)):
        first, second = [await measure.totals(caller(workspace), resolve(Between(*bounds), "UTC", NOW)) for bounds in ((start, cut), (cut, end))]
        assert first.requests + second.requests == 4
        assert first.requests == sum(one.at.replace(minute=one.at.minute // 15 * 15) < cut for one in calls)
    late = Event(calls[1].at, kind="late", requests=0, list_microusd=100)
    await write(workspace, [late])
    window = resolve(Between(start, calls[1].at + timedelta(minutes=4)), "UTC", NOW)
    for _ in range(2):
        assert (await measure.totals(caller(workspace), window)).list_microusd == added([*calls[:3], late]).list_microusd
        await rollups.fold_all()


async def test_a_month_is_dropped_while_somebody_reads(database: str) -> None:
    """F36: A transaction that reads the month puts its dropping off, after a moment, and is not disturbed; writers and readers go on all the while, every read
    is exact before and after, and the dropped month leaves its sums, the audit silent and no partition."""
    workspace = await made(None)
    await db.fetch("SELECT partitions_1($1, 1)", OLD)
    await write(workspace, [*of(OLD), *of(NOW - 5 * DAY)])
    await rollups.fold_all()
    before = await measured(workspace)
    names = [f"{table}_{MONTH}" for table in PARTITIONED]
    there = "SELECT count(*) FROM pg_class WHERE relname = ANY ($1)"
    reader = await asyncpg.connect(database)
    async with reader.transaction():
        cursor = await reader.cursor("SELECT id FROM usage_event ORDER BY id")
        assert len(await cursor.fetch(2)) == 2
        assert await partitions.retire(NOW, 31) == 0
        assert await db.fetch_value(there, names) == 4
        assert await measured(workspace) == before
        assert len(await cursor.fetch(100)) == 6
    await reader.close()

    seen: list[list[object]] = []
    over = asyncio.Event()

    async def reading() -> None:
        while not over.is_set():
            seen.append(await measured(workspace))

    async def writing() -> None:
        while not over.is_set():
            await write(uuid4(), of(NOW - DAY))

    going = [asyncio.ensure_future(reading()), asyncio.ensure_future(reading()), asyncio.ensure_future(writing())]
    dropped = 0
    while not dropped:
        dropped = await partitions.retire(NOW, 31)
    over.set()
    await asyncio.gather(*going)
    assert dropped == 1
    assert await db.fetch_value(there, names) == 0
    assert [one for one in seen if one != before] == []
    assert await measured(workspace) == before
    assert await broken(workspace) == []
    await rollups.fold_all()
    assert (await rollups.compare(), await rollups.strays()) == ([], 0)
    assert await records.count(caller(workspace)) == 4


async def test_a_month_that_is_not_folded_stays(database: str) -> None:
    """What is in no cell yet is never let go with its month; and a session that dies over the dropping leaves all as it was."""
    workspace = await made(None)
    await db.fetch("SELECT partitions_1($1, 1)", OLD)
    await write(workspace, of(OLD))
    assert await partitions.retire(NOW, 31) == 0
    await rollups.fold_all()
    before = await measured(workspace)
    dropping = await asyncpg.connect(database)
    transaction = dropping.transaction()
    await transaction.start()
    assert await dropping.fetchval("SELECT retire_month_1($1)", NOW - 31 * DAY)
    await db.fetch("SELECT pg_terminate_backend($1)", dropping.get_server_pid())
    assert await measured(workspace) == before
    assert await db.fetch_value("SELECT count(*) FROM usage_retired") == 0
    assert await partitions.retire(NOW, 31) == 1
    assert await measured(workspace) == before
    dropping.terminate()
