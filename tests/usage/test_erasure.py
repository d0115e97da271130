"""Forgetting an end user: the name is nowhere any more, and every number is what it was (F36)."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from domain.access import end_users
from domain.errors import MissingScope, NotFound
from domain.usage import erasure, measure, rollups
from domain.usage.metrics import COLUMNS, Detail, Dimension, Metrics, Question
from domain.usage.windows import Between, Granularity, resolve
from models import database as db
from models.enums import Scope
from tests.support.servers import Servers
from tests.usage.events import APPS, Event, backdated, caller, write

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
NAME, OTHER = "jane.doe@example.test", "john.roe@example.test"
WINDOW = resolve(Between(NOW - 4 * DAY, NOW + DAY), "UTC", NOW)
PEOPLE = frozenset({Detail.END_USERS, Detail.CONVERSATIONS})


async def workspace_with(name: str) -> tuple[UUID, UUID]:
    """A workspace whose end users called, with what is folded, closed and queued; and the id of the one of that name under the first app."""
    workspace, app = uuid4(), APPS[0]
    await db.fetch("INSERT INTO workspace (id, name, default_timezone, created_at) VALUES ($1, 'w', 'UTC', now())", workspace)
    await db.fetch("INSERT INTO account (workspace_id, id, kind, credits, debits, held, floor, version, carry_picousd, list_carry_picousd, updated_at) "
                   "VALUES ($1, $2, 'cash', 0, 0, 0, 0, 0, 0, 0, now())", workspace, uuid4())  # fmt: skip
    facts = [(3, name, app), (3, OTHER, app), (4, name, None), (2, name, app), (1, OTHER, None), (0, name, app), (0, None, app)]
    written = [
        Event(
            NOW - days * DAY,
            id=backdated(NOW - days * DAY),
            end_user=who,
            app_id=where,
            conversation=f"talk of {who}" if who and place % 2 == 0 else "plain",
            tags={"who": who or "nobody", "team": "core"},
            charge_microusd=10**place,
            input_tokens=place,
        )
        for place, (days, who, where) in enumerate(facts)
    ]
    await write(workspace, written[:5])
    await rollups.fold_all()
    await rollups.close(workspace, (NOW - DAY).replace(hour=0), days_from=0, hours_from=0)
    await write(workspace, written[5:])
    await end_users.name(workspace, None, name, at=NOW)
    return workspace, await end_users.name(workspace, app, name, at=NOW)


def plain(metrics: Metrics) -> tuple[int | None, ...]:
    return (*(getattr(metrics, name) for name in COLUMNS), metrics.end_users, metrics.conversations)


async def measured(workspace: UUID) -> list[object]:
    """Every number of the window: in all, by day and by app, with the people of each."""
    me = caller(workspace)
    points = await measure.series(me, WINDOW, Granularity.DAY, details=PEOPLE)
    groups = await measure.groups(me, WINDOW, Question(by=(Dimension.APP,), details=PEOPLE))
    totals = await measure.totals(me, WINDOW, details=PEOPLE)
    return [plain(totals), *(plain(point.metrics) for point in points), *((group.values.values, plain(group.metrics)) for group in groups)]


async def standing(name: str) -> set[str]:
    """The tables in which a text stands."""
    tables = await db.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition")
    return {row["relname"] for row in tables if await db.fetch_value(f'SELECT EXISTS (SELECT FROM "{row["relname"]}" t WHERE strpos(t::text, $1) > 0)', name)}


@pytest.mark.usefixtures("database")
async def test_the_name_is_nowhere_and_every_number_stays() -> None:
    """Erasing under one app takes the name out of that app's calls, tags and conversations; sums by day and app and the people of each stay, folded and
    queued ones, and the sets are what the events add up to; the same name without the app is somebody else, who then is counted apart."""
    workspace, person = await workspace_with(NAME)
    before = await measured(workspace)
    await erasure.erase(caller(workspace), person)
    after = await measured(workspace)
    assert after[1:] == before[1:]
    whole, then = before[0], after[0]
    assert isinstance(whole, tuple)
    assert then == (*whole[:-2], whole[-2] + 1, whole[-1] + 1)  # two end users of one name had been one person, and talked of one thing
    assert await db.fetch_value("SELECT count(*) FROM usage_event WHERE workspace_id = $1 AND end_user = $2 AND app_id IS NOT NULL", workspace, NAME) == 0
    assert (await rollups.compare(), await rollups.strays()) == ([], 0)
    await erasure.erase(caller(workspace), end_users.id_of(workspace, None, NAME))
    assert (await measured(workspace))[1:] == before[1:]
    assert await standing(NAME) == set()
    assert await standing(OTHER) == {"usage_event"}
    await rollups.fold_all()
    assert (await measured(workspace))[1:] == before[1:]
    assert (await rollups.compare(), await rollups.strays()) == ([], 0)
    assert await db.fetch_value("SELECT count(*) FROM usage_name WHERE person = person_1($1, $2)", workspace, NAME) == 0
    rows = await db.fetch("SELECT external_id, blocked_at IS NOT NULL AS blocked FROM end_user WHERE workspace_id = $1", workspace)
    assert [(row["external_id"].startswith(erasure.ERASED), row["blocked"]) for row in rows] == [(True, True)] * 2


@pytest.mark.usefixtures("database")
async def test_erasing_twice_changes_nothing_more() -> None:
    """Whoever is forgotten stays so: the repeat succeeds, writes nothing, and one audit event tells who did it; a stranger's and nobody's id are unknown."""
    workspace, person = await workspace_with(NAME)
    me = caller(workspace)
    await erasure.erase(me, person)
    before = await measured(workspace), await db.fetch("SELECT end_user FROM usage_event ORDER BY id")
    await erasure.erase(me, person)
    assert (await measured(workspace), await db.fetch("SELECT end_user FROM usage_event ORDER BY id")) == before
    assert await db.fetch_value("SELECT count(*) FROM audit_event WHERE workspace_id = $1 AND action = 'endUser.erase'", workspace) == 1
    for wrong in (uuid4(), person):
        with pytest.raises(NotFound):
            await erasure.erase(caller(uuid4()), wrong)
    with pytest.raises(MissingScope):
        await erasure.erase(caller(workspace, without=[Scope.APPS_WRITE]), person)


async def test_an_erasure_that_dies_leaves_all_as_it_was(database: str) -> None:
    """The session is killed while it waits for the workspace's lock, with every row already rewritten: the name stands as before, and the next try is whole.

    Meanwhile reads are exact and never see a part of it; and who holds that lock gets the end user's row too, as `walletAdjust` asks for both: no deadlock."""
    workspace, person = await workspace_with(NAME)
    before, tables = await measured(workspace), await standing(NAME)
    other = await asyncpg.connect(database)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM account WHERE workspace_id = $1 FOR UPDATE", workspace)
    erasing = asyncio.ensure_future(erasure.erase(caller(workspace), person))
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while (pid := await db.fetch_value(waiting)) is None:
        await asyncio.sleep(0.01)
    assert (await measured(workspace), await standing(NAME)) == (before, tables)
    await other.execute("SELECT FROM end_user WHERE workspace_id = $1 AND id = $2 FOR UPDATE NOWAIT", workspace, person)
    await db.fetch("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await erasing
    assert (await measured(workspace), await standing(NAME)) == (before, tables)
    await transaction.rollback()
    await other.close()
    await erasure.erase(caller(workspace), person)
    assert (await measured(workspace))[1:] == before[1:]


async def test_nothing_else_changes_what_is_append_only(database: str, servers: Servers) -> None:
    """The application's role cannot change a call, whatever it says of itself; and even the owner's erasing touches names alone."""
    workspace, _ = await workspace_with(NAME)
    app = await asyncpg.connect(database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("SET tallygate.erasing = 'on'; UPDATE usage_event SET end_user = 'x'")
    await app.close()
    owner = await asyncpg.connect(servers.admin_dsn(urlsplit(database).path.lstrip("/")))
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await owner.execute("UPDATE usage_event SET end_user = 'x'")
    await owner.execute("SET tallygate.erasing = 'on'")
    for statement in ("UPDATE usage_event SET charge_microusd = 0, end_user = 'x' WHERE charge_microusd > 0", "DELETE FROM usage_event"):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await owner.execute(statement)
    await owner.close()
    assert dataclasses.astuple(await measure.totals(caller(workspace), WINDOW))[11] == 1_111_111
