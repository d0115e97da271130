"""Partitions are made ahead by whoever works, without rights of its own and without standing in anybody's way."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from domain.usage import partitions
from models import database as db
from models.database import CONTENDED
from models.migrate import PARTITIONED
from tests.usage.events import Event, backdated, caller, write

pytestmark = pytest.mark.anyio

NAMES = "SELECT array_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits WHERE inhparent = ANY ($1::regclass[])"


async def names() -> set[str]:
    """The partitions that there are."""
    found: list[str] = await db.fetch_value(NAMES, list(PARTITIONED))
    return set(found)


@pytest.mark.usefixtures("database")
async def test_months_to_come_are_made_once() -> None:
    """The application's role makes what is missing, and nothing the second time; a row of a month to come stands in its partition."""
    before = await names()
    ahead = datetime.now(UTC) + timedelta(days=150)
    made = await partitions.make_ahead(ahead)
    new = await names() - before
    assert made == len(new) > 0
    assert f"usage_event_y{ahead.year}m{ahead.month:02}" in new
    assert await partitions.make_ahead(ahead) == 0
    event = Event(ahead, id=backdated(ahead))
    await write(uuid4(), [event])
    assert await db.fetch_value("SELECT tableoid::regclass::text FROM usage_event WHERE id = $1", event.id) == f"usage_event_y{ahead.year}m{ahead.month:02}"


@pytest.mark.usefixtures("database")
async def test_a_month_with_rows_in_the_default_partition_stays_there() -> None:
    """What was written before its month had a partition is found all the same."""
    past = datetime(2020, 5, 17, tzinfo=UTC)
    workspace = uuid4()
    await write(workspace, [Event(past, id=backdated(past), charge_microusd=3)])
    assert await db.fetch_value("SELECT partitions_1($1, 1)", past) == len(PARTITIONED) - 1
    assert await db.fetch_value("SELECT count(*) FROM usage_event WHERE workspace_id = $1", caller(workspace).workspace_id) == 1


async def test_it_waits_for_nobody_for_long(database: str) -> None:
    """A long transaction on the table puts it off, as a sweep is put off, and makes nothing by halves."""
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT count(*) FROM usage_event; SELECT count(*) FROM hold_default")
        before = await names()
        with pytest.raises(CONTENDED):
            await partitions.make_ahead(datetime.now(UTC) + timedelta(days=200))
        assert await names() == before
    await other.close()
    assert await partitions.make_ahead(datetime.now(UTC) + timedelta(days=200)) > 0
