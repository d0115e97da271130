"""What was booked stays as it was booked: the database refuses, whoever asks."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from domain.money.catalogue import Book
from models import database
from models.migrate import APPEND_ONLY, PARTITIONED
from tests.conftest import Suite
from tests.serving.openings import calls, ending, listed, opening, used
from tests.support.servers import Servers
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

COLUMNS = {"transfer": "amount", "price": "model", "call": "model", "usage_event": "charge_microusd", "attempt": "cost_picousd", "audit_event": "action"}


@pytest.fixture
async def owner(books: Suite, servers: Servers) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection as the role that owns the tables."""
    connection = await asyncpg.connect(books.environment["MIGRATION_DATABASE_URL"])
    yield connection
    await connection.close()


@pytest.fixture
async def settled(books: Suite) -> Tenant:
    """A workspace with a settled call, so that every table has a row."""
    mine, book = await tenant(credit_microusd=1000), Book()
    await book.refresh()
    price, process = listed(book, "echo"), calls(book)
    await process.settle(ending(await process.admit(opening(mine.secret, price, input_tokens=1, max_output=1)), price, used(1, 1)))
    return mine


def statements(table: str) -> list[str]:
    """Return every way to change what a table remembers."""
    return [f'UPDATE "{table}" SET {COLUMNS[table]} = {COLUMNS[table]}', f'DELETE FROM "{table}"', f'TRUNCATE "{table}" CASCADE']


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_the_application_may_only_add(settled: Tenant, table: str) -> None:
    """M1: the application's role lacks the right to change, delete or truncate, on the table and on each of its partitions."""
    partitions = await database.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = to_regclass($1)", f'"{table}"')
    for statement in statements(table):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.fetch(statement)
        for partition in partitions:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await database.fetch(statement.replace(f'"{table}"', partition["name"]))


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_the_owner_may_only_add_too(settled: Tenant, owner: "asyncpg.Connection[asyncpg.Record]", table: str) -> None:
    """M1: the owner of the tables, who could, is refused by a trigger."""
    for statement in statements(table):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="is append-only"):
            await owner.execute(statement)


@pytest.mark.parametrize("table", PARTITIONED)
async def test_a_partition_is_guarded_by_itself(settled: Tenant, owner: "asyncpg.Connection[asyncpg.Record]", table: str) -> None:
    """M1: who names a partition goes around no guard: neither rows that are there nor, for TRUNCATE, any partition can be taken away."""
    names = await database.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = to_regclass($1)", f'"{table}"')
    partitions = [row["name"] for row in names]
    filled = await database.fetch_value(f'SELECT tableoid::regclass::text FROM "{table}" WHERE workspace_id = $1 LIMIT 1', settled.workspace_id) or partitions[0]
    changes = [f"TRUNCATE {name}" for name in partitions]
    if await database.fetch_value(f"SELECT EXISTS (SELECT FROM {filled})"):
        changes.append(f"DELETE FROM {filled}")
        changes += [f"UPDATE {filled} SET {COLUMNS[table]} = {COLUMNS[table]}"] if table in APPEND_ONLY else []
    assert len(partitions) == 5
    for change in changes:
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="is append-only"):
            await owner.execute(change)
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
            await database.fetch(change)


async def test_a_hold_is_closed_once(settled: Tenant, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    """M3: a closed hold is neither reopened nor changed nor deleted; an open one neither shrinks nor changes hands."""
    where = f"WHERE workspace_id = '{settled.workspace_id}'"
    for change in ("state = 'open', closed_at = NULL", "amount = amount + 1", "state = 'released'", "charge_microusd = 0", "closed_by = 'late'", "expires_at = now()"):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="is already settled"):
            await owner.execute(f"UPDATE hold SET {change} {where}")
    book = Book()
    await book.refresh()
    under_way = await calls(book).admit(opening(settled.secret, listed(book, "echo"), input_tokens=1, max_output=10))
    where = f"WHERE call_id = '{under_way.call_id}'"
    for change in ("amount = amount - 1", "account_id = NULL, amount = 0", "workspace_id = uuidv7()", "call_id = uuidv7()"):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="may only grow or close"):
            await owner.execute(f"UPDATE hold SET {change} {where}")
    for statement in (f"DELETE FROM hold {where}", "TRUNCATE hold"):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="is append-only"):
            await owner.execute(statement)
    await calls(book).settle(ending(under_way, listed(book, "echo"), used(1, 1)))


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("debits = debits + 1001", "never_below_floor"),
        ("held = -1", "account_held_check"),
        ("floor = 1", "account_floor_check"),
        ("carry_picousd = 1000000", "account_carry_picousd_check"),
        ("carry_picousd = -1", "account_carry_picousd_check"),
        ("list_carry_picousd = 1000000", "account_list_carry_picousd_check"),
    ],
)
async def test_an_account_keeps_its_bounds(settled: Tenant, change: str, constraint: str) -> None:
    """M2: were every guard of the code wrong, the database still refuses a balance below its floor, a negative hold and a carry that is a whole micro."""
    with pytest.raises(asyncpg.CheckViolationError) as refusal:
        await database.fetch(f"UPDATE account SET {change} WHERE workspace_id = $1 AND kind = 'cash'", settled.workspace_id)
    assert refusal.value.constraint_name == constraint


async def test_the_application_is_no_superuser(books: Suite) -> None:
    """The application's role can make nothing, owns nothing and goes around nothing."""
    role = await database.fetch_row("SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user")
    assert role is not None
    assert tuple(role) == (False, False, False, False, False)
    assert await database.fetch_value("SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) = current_user") == 0
    assert await database.fetch_value("SELECT has_schema_privilege('public', 'CREATE')") is False
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.fetch("DROP TRIGGER append_only ON transfer")
