"""Folding: cells are their events, whoever folds, how often, and wherever it dies."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.money import ledger
from domain.usage import measure, rollups
from domain.usage.windows import Between, resolve
from jobs.rollups import compare_usage, fold_usage
from models import database as db
from tests.support.servers import Servers
from tests.usage.events import Event, added, caller, events, write

pytestmark = pytest.mark.anyio

START = datetime(2026, 11, 1, tzinfo=UTC)
END = START + timedelta(hours=2)
WINDOW = resolve(Between(START, END), "UTC", END)
WHOLE_DAY = resolve(Between(START, START + timedelta(days=1)), "UTC", END)
BROKEN = "cells and pending events are not the events"


async def _cells(workspace: UUID) -> list[tuple[object, ...]]:
    rows = await db.fetch(
        "SELECT level, at, model, app_id, key_id, outcome, requests, charge_microusd FROM usage_cell WHERE workspace_id = $1 ORDER BY 1, 2, 3, 4, 5, 6", workspace
    )
    return [tuple(row) for row in rows]


async def test_what_a_cell_says(database: str) -> None:
    """A quarter of an hour at four levels: the workspace, a model, an app with a key and an outcome, a language; what is absent is '' or the nil UUID."""
    workspace, app, key, nil = uuid4(), uuid4(), uuid4(), UUID(int=0)
    quarter = START + timedelta(minutes=15)
    await write(
        workspace,
        [
            Event(quarter, model="atlas", key_id=key, app_id=app, charge_microusd=3),
            Event(quarter + timedelta(minutes=14, seconds=59), model=None, language="de", outcome="failed", charge_microusd=4),
        ],
    )
    assert await rollups.fold() == 2
    assert await rollups.fold() == 0
    assert await _cells(workspace) == [
        (0, quarter, "", nil, nil, "", 2, 7),
        (1, quarter, "", nil, nil, "", 1, 4),
        (1, quarter, "atlas", nil, nil, "", 1, 3),
        (2, quarter, "", nil, nil, "failed", 1, 4),
        (2, quarter, "", app, key, "succeeded", 1, 3),
        (3, quarter, "", nil, nil, "", 1, 3),
        (3, quarter, "de", nil, nil, "", 1, 4),
    ]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(events(START, END), max_size=30), sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4))
async def test_folders_share_the_work(database: str, written: list[Event], sizes: list[int]) -> None:
    """Folders that run at once, with writers, readers and one that closes the day between them, lose and double nothing, and never wait for each other for ever (F27)."""
    workspace = uuid4()
    half = len(written) // 2
    await write(workspace, written[:half])

    async def folder(most: int) -> int:
        done = 0
        while some := await rollups.fold(most):
            done += some
        return done

    seen: list[int] = []
    days: list[int] = []

    async def reader() -> None:
        for _ in range(5):
            seen.append((await measure.totals(caller(workspace), WINDOW)).charge_microusd)
            days.append((await measure.totals(caller(workspace), WHOLE_DAY)).charge_microusd)

    async def closer() -> None:
        for until in (START, START + timedelta(hours=1), START + timedelta(days=1)):
            await rollups.close(workspace, until, days_from=0, hours_from=0)

    await asyncio.gather(write(workspace, written[half:]), *(folder(most) for most in sizes), reader(), closer())
    sums = [added(part, lambda event: event.at < END).charge_microusd for part in (written[:half], written)]
    assert set(seen) <= set(sums)
    assert set(days) <= {added(part).charge_microusd for part in (written[:half], written)}
    await rollups.fold_all()
    assert (await measure.totals(caller(workspace), WINDOW)).charge_microusd == sums[1]
    assert await db.fetch_value("SELECT count(*) FROM usage_pending") == 0
    assert await rollups.compare() == []


async def test_a_fold_that_dies_changes_nothing(database: str) -> None:
    """The session that folds is killed before its commit: all it took stays queued, every read is exact before and after, and the next fold has it.

    Another that folds meanwhile takes other events, and waits for the same cells only as long as the first one lives.
    """
    workspace = uuid4()

    async def measured() -> int:
        return (await measure.totals(caller(workspace), WINDOW)).charge_microusd

    async def folded() -> int:
        return sum(int(str(cell[7])) for cell in await _cells(workspace) if cell[0] == 0)

    await write(workspace, [Event(START + timedelta(minutes=minutes), charge_microusd=1) for minutes in range(60)])
    assert await rollups.fold(20) == 20
    folder = await asyncpg.connect(database)
    transaction = folder.transaction()
    await transaction.start()
    assert await folder.fetchval("SELECT fold_4(30)") == 30
    other = asyncio.ensure_future(rollups.fold(100))
    while not await db.fetch_value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"):
        await asyncio.sleep(0.01)
    assert (await measured(), await folded()) == (60, 20)
    await db.fetch("SELECT pg_terminate_backend($1)", folder.get_server_pid())
    assert await other == 10
    assert (await measured(), await folded()) == (60, 30)
    assert await rollups.fold_all() == 30
    assert (await measured(), await folded()) == (60, 60)
    assert await rollups.compare() == []
    folder.terminate()


async def test_late_and_voiding_events_are_folded_like_any(database: str) -> None:
    """Differences below zero come off the cells of the call's own time."""
    workspace = uuid4()
    call = Event(START, charge_microusd=10, input_tokens=5)
    await write(workspace, [call])
    await rollups.fold()
    await write(
        workspace,
        [
            Event(START, record_id=call.id, kind="late", requests=0, charge_microusd=3, input_tokens=2),
            Event(START, record_id=call.id, kind="void", requests=-1, charge_microusd=-13, input_tokens=-7),
        ],
    )
    for _ in range(2):
        totals = await measure.totals(caller(workspace), WINDOW)
        assert (totals.requests, totals.charge_microusd, totals.input_tokens) == (0, 0, 0)
        await rollups.fold()


async def test_comparing_finds_what_is_wrong(database: str, servers: Servers) -> None:
    """A cell that was changed, lost, or made from nothing is named with its difference; the job finds the same and repairs nothing."""
    workspace = uuid4()
    await write(workspace, [Event(START, charge_microusd=10), Event(END, charge_microusd=1)])
    await fold_usage({})
    assert await rollups.compare() == []
    await db.fetch("UPDATE usage_cell SET charge_microusd = charge_microusd + 5 WHERE workspace_id = $1 AND level = 0 AND at = $2", workspace, START)
    admin = await asyncpg.connect(servers.admin_dsn(urlsplit(database).path.lstrip("/")))  # the application may delete no cell
    await admin.execute("DELETE FROM usage_cell WHERE workspace_id = $1 AND level = 1 AND at = $2", workspace, END)
    await admin.close()
    await db.fetch("UPDATE usage_cell SET outcome = 'failed' WHERE workspace_id = $1 AND level = 2 AND at = $2", workspace, START)
    drifts = await rollups.compare()
    assert [(drift.level, drift.at, drift.outcome, drift.difference) for drift in drifts] == [
        (0, START, "", {"charge_microusd": 5}),
        (1, END, "", {"requests": -1, "charge_microusd": -1, "succeeded": -1}),
        (2, START, "failed", {"requests": 1, "charge_microusd": 10, "succeeded": 1}),
        (2, START, "succeeded", {"requests": -1, "charge_microusd": -10, "succeeded": -1}),
    ]
    assert [(drift.level, drift.at) for drift in await rollups.compare(END)] == [(1, END)]
    await compare_usage({})
    assert await rollups.compare() == drifts


async def test_the_audit_sees_cells_that_are_not_their_events(database: str) -> None:
    """The audit's check of cells is silent with events queued, folded in part and whole, and speaks when a cell is changed."""

    async def broken() -> list[str]:
        return [row.subject for row in await ledger.audit() if row.broken == BROKEN]

    workspace = uuid4()
    await write(workspace, [Event(START, charge_microusd=10, list_microusd=12, input_tokens=3), Event(END, charge_microusd=1), Event(START, mode="test")])
    assert await broken() == []
    await rollups.fold(1)
    assert await broken() == []
    await rollups.fold_all()
    assert await broken() == []
    await db.fetch("UPDATE usage_cell SET requests = requests + 1 WHERE workspace_id = $1 AND level = 2 AND at = $2", workspace, START)
    assert await broken() == ["level 2"]
