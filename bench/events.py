"""`python -m bench.events`: a database with millions of realistic calls, folded, for `bench.usage` to ask."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import click

from domain.sql import install
from domain.usage import rollups
from domain.usage.metrics import COLUMNS as SUMMED
from embedded.postgres import Postgres
from embedded.provision import APPLICATION, DATABASE, OWNER, provision
from models import database
from models.enums import LedgerAccountKind
from models.ids import uuid7
from models.migrate import migrate

DAYS = 90
WORKSPACES = 1_000
LARGEST_SHARE = 0.15
AT_ONCE = 20_000
SEED = 7
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "2GB", "work_mem": "64MB", "maintenance_work_mem": "512MB"}
COLUMNS = (
    *("workspace_id", "id", "record_id", "kind", "mode", "at", "created_at", "key_id", "user_id", "app_id", "end_user", "conversation", "language", "tags"),
    *("api_name", "endpoint", "preset", "requested_model", "model", "provider", "streamed", "outcome", "http_status", "requests", "errors", "units"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "reasoning_tokens", "characters", "lines"),
    *("charge_microusd", "list_microusd", "charge_picousd", "list_picousd", "upstream_cost_picousd", "latency_ms", "first_token_ms", "token_source"),
    "needs_review",
)
MODELS = tuple(
    (f"{family}-{size}", "anthropic" if family in ("opus", "sonnet", "haiku") else "openai", price)
    for family, size, price in (
        *(("opus", "5", 15), ("sonnet", "5", 3), ("haiku", "5", 1), ("gpt", "5.5", 5), ("gpt", "5.5-mini", 0.4), ("gpt", "5.5-nano", 0.1)),
        *(("gpt", "4.1", 2), ("o5", "high", 20), ("o5", "low", 4), ("open", "70b", 0.6), ("open", "8b", 0.1), ("echo", "1", 1)),
    )
)
CELLS = """
INSERT INTO usage_cell (workspace_id, level, at, model, app_id, key_id, outcome, {columns}, succeeded, cancelled, latency, first_token)
SELECT d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome, {sums}, sum(d.succeeded), sum(d.cancelled),
       sketch_of_1(array_agg(sketch_bucket_1(d.latency_ms)) FILTER (WHERE d.latency_ms IS NOT NULL)),
       sketch_of_1(array_agg(sketch_bucket_1(d.first_token_ms)) FILTER (WHERE d.first_token_ms IS NOT NULL))
  FROM usage_delta_4 d WHERE d.workspace_id = ANY ($1) GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
PEOPLE = """
WITH seen AS MATERIALIZED (
  SELECT DISTINCT e.workspace_id, p.kind, (e.at AT TIME ZONE 'UTC')::date AS used_on, coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') AS app_id,
         person_1(e.workspace_id, p.name) AS person
    FROM usage_event e CROSS JOIN LATERAL (VALUES (0::smallint, e.end_user), (1::smallint, e.conversation)) AS p (kind, name)
   WHERE e.workspace_id = ANY ($1) AND e.mode = 'live' AND p.name IS NOT NULL
), named AS (
  INSERT INTO usage_name (workspace_id, kind, person, number)
  SELECT x.workspace_id, x.kind, x.person, row_number() OVER (PARTITION BY x.workspace_id, x.kind ORDER BY x.first_on, x.person) - 1
    FROM (SELECT s.workspace_id, s.kind, s.person, min(s.used_on) AS first_on FROM seen s GROUP BY 1, 2, 3) x
  RETURNING workspace_id, kind, person, number
), counted AS (
  INSERT INTO usage_name_count (workspace_id, kind, names) SELECT n.workspace_id, n.kind, count(*) FROM named n GROUP BY 1, 2
)
INSERT INTO usage_people (workspace_id, kind, used_on, app_id, part, people)
SELECT s.workspace_id, s.kind, s.used_on, s.app_id, n.number >> 15, bit_or(person_bit_1(n.number))
  FROM seen s JOIN named n ON n.workspace_id = s.workspace_id AND n.kind = s.kind AND n.person = s.person GROUP BY 1, 2, 3, 4, 5
"""
CLOSINGS = """
INSERT INTO usage_closing (workspace_id, days_until, hours_until, looked_until)
SELECT w, '1970-01-01Z', '1970-01-01Z', '1970-01-01Z' FROM unnest($1::uuid[]) w ON CONFLICT DO NOTHING
"""
"""What the fold does for each event, for whole workspaces at once: `rollups.compare` says afterwards that it is the same."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What the calls of one workspace choose from."""

    workspace_id: UUID
    keys: Sequence[UUID]
    apps: Sequence[UUID | None]
    people: int
    models: Sequence[tuple[str, str, float]]


def habits(chance: random.Random, size: int) -> Habits:
    """Return a workspace that makes about `size` calls: the larger, the more keys, apps and people."""
    count = max(1, min(40, int(size**0.35)))
    return Habits(
        workspace_id=uuid7(),
        keys=[uuid7() for _ in range(count)],
        apps=[None, *(uuid7() for _ in range(count // 3))],
        people=max(1, size // 40),
        models=chance.sample(MODELS, k=min(len(MODELS), 2 + count // 4)),
    )


def sizes(calls: int, workspaces: int) -> list[int]:
    """Return how many calls each workspace makes: one has LARGEST_SHARE of them, the others fall off as 1 / rank."""
    weights = [1 / rank for rank in range(1, workspaces)]
    rest = calls * (1 - LARGEST_SHARE) / sum(weights)
    return [calls - sum(int(weight * rest) for weight in weights), *(int(weight * rest) for weight in weights)]


def rows(chance: random.Random, who: Habits, count: int, until: datetime) -> Iterator[tuple[Any, ...]]:
    """Yield calls of one workspace over DAYS, busier by day and on weekdays, most of them small, some of them failed."""
    start = until - timedelta(days=DAYS)
    for _ in range(count):
        day = int(chance.random() * DAYS)
        hour = min(23.999, max(0.0, chance.gauss(14, 4))) if chance.random() < 0.8 else chance.random() * 24
        at = start + timedelta(days=day, hours=hour, microseconds=chance.randrange(1_000_000))
        name, provider, price = who.models[min(int(chance.expovariate(0.7)), len(who.models) - 1)]
        outcome = "succeeded" if (dice := chance.random()) < 0.95 else "failed" if dice < 0.985 else "cancelled"
        failed = outcome == "failed"
        given = int(chance.lognormvariate(6.5, 1.2))
        cached = given * 3 if not failed and chance.random() < 0.4 else 0
        made = 0 if failed else int(chance.lognormvariate(5.2, 1.0))
        written = 0 if failed or not cached or chance.random() < 0.7 else given // 2
        picos = int(price * (given + 5 * made + cached / 10 + written * 1.25) * 1_000_000)
        micros = picos // 1_000_000
        key = min(int(chance.expovariate(0.3)), len(who.keys) - 1)
        person = int(who.people * chance.random() ** 2)
        streamed = chance.random() < 0.6
        latency = int(chance.lognormvariate(7.2, 0.8))
        record = uuid7(int(at.timestamp() * 1000))
        yield (
            *(who.workspace_id, record, record, "call", "live", at, at + timedelta(milliseconds=latency)),
            *(who.keys[key], None, who.apps[key % len(who.apps)]),
            *(f"user-{person}" if chance.random() < 0.7 else None, f"c-{person}-{day}" if chance.random() < 0.5 else None),
            *(chance.choice(("en", "en", "de", "ja", None)), '{"team":"core"}' if chance.random() < 0.1 else None),
            *("llm_query", "/v1/messages" if provider == "anthropic" else "/v1/chat/completions", "cursor@3" if chance.random() < 0.2 else None),
            *(name, name, provider, streamed, outcome, 500 if failed else 200, 1, int(failed), given + made + cached + written),
            *(given, made, cached, written, 0, 0, made * 4, made // 12, micros, micros, micros * 1_000_000, micros * 1_000_000, picos // 2),
            *(latency, latency // 4 if streamed and not failed else None, "provider", False),
        )


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Postgres]:
    """Start the Postgres of a folder, migrated, with this process's pool on it as the application's role; its data stays."""
    folder.mkdir(parents=True, exist_ok=True)
    postgres = Postgres(folder / "p", settings=SETTINGS)
    postgres.start()
    try:
        provision(postgres)
        await migrate(postgres.dsn(OWNER, DATABASE), postgres.dsn(APPLICATION, DATABASE), install.statements())
        await database.open_pool(postgres.dsn(APPLICATION, DATABASE), pool=4)
        try:
            yield postgres
        finally:
            await database.close_pool()
    finally:
        postgres.stop()


async def fill(postgres: Postgres, calls: int, workspaces: int) -> None:
    """Write calls by COPY and fold them, showing progress; calls that are there already stay, and what of them is in no cell yet is folded."""
    if await database.fetch_value("SELECT EXISTS (SELECT FROM usage_event)"):
        click.echo("it has calls already: none is written")
    else:
        await write(postgres, calls, workspaces)
    await fold(postgres)


async def write(postgres: Postgres, calls: int, workspaces: int) -> None:
    """Write calls, workspace by workspace."""
    chance, until = random.Random(SEED), datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    owner = await asyncpg.connect(postgres.dsn(OWNER, DATABASE))
    await owner.execute("SELECT partitions_1($1, $2)", until - timedelta(days=DAYS + 31), math.ceil(DAYS / 30) + 3)
    started, done, took = time.monotonic(), 0, 0.0
    for size in sizes(calls, workspaces):
        who = habits(chance, size)
        await owner.execute("INSERT INTO workspace (id, name, default_timezone, created_at) VALUES ($1, $2, 'UTC', now())", who.workspace_id, f"{size} calls")
        await owner.execute(
            """
            INSERT INTO account (workspace_id, id, kind, credits, debits, held, floor, version, carry_picousd, list_carry_picousd, updated_at)
            SELECT $1, uuidv7(), kind, 0, 0, 0, 0, 0, 0, 0, now() FROM unnest($2::text[]) kind
            """,
            who.workspace_id,
            [kind.value for kind in (LedgerAccountKind.CASH, LedgerAccountKind.REVENUE)],
        )
        for first in range(0, size, AT_ONCE):
            batch = list(rows(chance, who, min(AT_ONCE, size - first), until))
            before = time.monotonic()
            await owner.copy_records_to_table("usage_event", records=batch, columns=COLUMNS)
            took += time.monotonic() - before
            done += len(batch)
            if size >= AT_ONCE or done // AT_ONCE > (done - len(batch)) // AT_ONCE:
                share, elapsed = done / calls, time.monotonic() - started
                click.echo(f"\r{done:>11,} of {calls:,} calls, {share:4.0%}, {elapsed:5.0f} s, {elapsed / share - elapsed:5.0f} s to go", nl=False)
    click.echo(f"\nCOPY took {took:.0f} s: {done / took:,.0f} rows a second with both indexes and the key")
    await owner.execute("ANALYZE usage_event")
    await owner.close()


async def last() -> datetime:
    """Return the clock of a bench: the instant of the last quarter with a call, late on a day, when most of it is no whole day yet."""
    at: datetime = await database.fetch_value("SELECT max(at) FROM usage_cell WHERE level = 0")
    return at + timedelta(minutes=14)


async def fold(postgres: Postgres) -> None:
    """Fold what is in no cell, the largest workspace alone and the others by fifties, and close the days and hours that are over, as the worker does."""
    owner = await asyncpg.connect(postgres.dsn(OWNER, DATABASE))
    rows = await owner.fetch("SELECT id FROM workspace WHERE id NOT IN (SELECT workspace_id FROM usage_closing) ORDER BY split_part(name, ' ', 1)::bigint DESC")
    everyone = [row["id"] for row in rows]
    names = [name for name in COLUMNS if name in SUMMED]
    cells = CELLS.format(columns=", ".join(names), sums=", ".join(f"sum(d.{name})" for name in names))
    started = time.monotonic()
    groups = [some for some in (everyone[:1], *(everyone[first : first + 50] for first in range(1, len(everyone), 50))) if some]
    for number, some in enumerate(groups, 1):
        async with owner.transaction():
            await owner.execute(cells, some)
            await owner.execute(PEOPLE, some)
            await owner.execute(CLOSINGS, some)
        click.echo(f"\rfolded {number} of {len(groups)} groups of workspaces, {time.monotonic() - started:5.0f} s", nl=False)
    started = time.monotonic()
    spans = await rollups.close_all(await last())
    click.echo(f"\n{spans:,} spans of days and hours, {time.monotonic() - started:5.0f} s")
    if everyone:
        await owner.execute("VACUUM ANALYZE")
    await owner.close()


@click.command()
@click.option("--calls", default=10_000_000, help="How many calls.")
@click.option("--workspaces", default=WORKSPACES, help="How many workspaces share them.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The folder of the Postgres that is filled; it stays for bench.usage.")
def main(calls: int, workspaces: int, data: Path) -> None:
    """Fill a database with calls as many workspaces make them in 90 days."""

    async def run() -> None:
        async with opened(data) as postgres:
            await fill(postgres, calls, workspaces)

    asyncio.run(run())


if __name__ == "__main__":
    main()
