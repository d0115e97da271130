"""`python -m bench.usage`: every 30-day read of the largest workspace, beside the same question over single calls in Postgres and in DuckDB."""

import asyncio
import importlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import click

from bench import events
from bench.rounds import table, write_json
from bench.stage import WrongBooks
from domain.access.callers import Caller
from domain.usage import activity, measure, windows
from domain.usage.activity import ActivityView
from domain.usage.metrics import CALLS, Detail, Dimension, Metric, Metrics, Question
from domain.usage.windows import Granularity, RelativeRange, Window
from embedded.provision import DATABASE, OWNER
from models import database
from models.enums import Scope
from rest.workspace import CONTENT

NEW_YORK = "America/New_York"
TOKENS = "sum(input_tokens + output_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)"
COUNTED = f"sum(requests), {TOKENS}, sum(charge_microusd), sum(errors)"
WHERE = "FROM {table} WHERE workspace_id = '{workspace}' AND \"at\" >= '{start}' AND \"at\" < '{end}' AND mode = 'live'"
DAY = "date_trunc('day', timezone('{zone}', \"at\"))"
EXPORTED = (
    *("workspace_id", "mode", "at", "app_id", "key_id", "model", "end_user", "language", "outcome", "requests", "errors", "input_tokens", "output_tokens"),
    *("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "charge_microusd", "list_microusd", "characters", "lines", "latency_ms", "first_token_ms"),
)
QUANTILES = "quantile_cont(latency_ms, 0.95), quantile_cont(first_token_ms, 0.5)"
GOAL, PEOPLE_GOAL = 40.0, 5.0
ROUNDS = 5
HEAD = ("30 days of the largest workspace", "ours ms", "raw ms", "x faster", "DuckDB ms", "x faster", "goal")
Answer = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Read:
    """One question: how we ask it, and how it is asked of single calls; `close` where quantiles are estimated, so that 5 % is equal."""

    name: str
    ours: Callable[[Caller], Awaitable[Answer]]
    sql: str
    window: Window
    duck: str | None = None
    goal: float = GOAL
    close: bool = False


def _numbers(metrics: Metrics) -> tuple[int, ...]:
    return metrics.requests, metrics.tokens, metrics.charge_microusd, metrics.errors


def reads(now: datetime) -> list[Read]:
    """Return what the five documents and the pages of the console ask about 30 days."""
    utc, york = (windows.resolve(RelativeRange.LAST_30_DAYS, zone, now) for zone in ("UTC", NEW_YORK))

    async def totals(caller: Caller) -> Answer:
        return [_numbers(await measure.totals(caller, utc, columns=CALLS))]

    def groups(dimension: Dimension) -> Callable[[Caller], Awaitable[Answer]]:
        async def ask(caller: Caller) -> Answer:
            found = await measure.groups(caller, utc, Question(by=(dimension,), first=None, columns=CALLS))
            return [(str(group.values.values[0] or ""), *_numbers(group.metrics)) for group in found]

        return ask

    def series(window: Window) -> Callable[[Caller], Awaitable[Answer]]:
        async def ask(caller: Caller) -> Answer:
            points = await measure.series(caller, window, Granularity.DAY, columns=CALLS)
            return [(point.bucket.label, *_numbers(point.metrics)) for point in points if point.metrics.requests]

        return ask

    async def model_by_day(caller: Caller) -> Answer:
        found = await measure.series_by(caller, utc, Granularity.DAY, Question(by=(Dimension.MODEL,), first=None, columns=CALLS))
        return [(f"{point.bucket.label} {line.values.values[0]}", *_numbers(point.metrics)) for line in found for point in line.points if point.metrics.requests]

    async def document_1(caller: Caller) -> Answer:
        details = frozenset({Detail.CREDITS, Detail.RUNS})
        (days,) = await measure.series_by(caller, york, Granularity.DAY, Question(details=details, columns=CONTENT))
        await activity.chart(caller, ActivityView.DAILY, Metric.LINES, NEW_YORK, now, details=details, columns=CONTENT)
        return [
            (point.bucket.label, point.metrics.runs.completed if point.metrics.runs else 0, point.metrics.characters, point.metrics.lines)
            for point in days.points
            if point.metrics.requests
        ]

    async def dashboard(caller: Caller) -> Answer:
        used = await measure.totals(caller, utc, details=frozenset({Detail.LATENCY, Detail.FIRST_TOKEN}), columns=CALLS)
        assert used.latency is not None
        assert used.first_token is not None
        return [(used.requests, used.charge_microusd, used.latency.p95, used.first_token.p50)]

    async def people(caller: Caller) -> Answer:
        return [((await measure.totals(caller, utc, details=frozenset({Detail.END_USERS}), columns=frozenset())).end_users,)]

    async def people_by_app(caller: Caller) -> Answer:
        found = await measure.groups(caller, utc, Question(by=(Dimension.APP,), first=None, details=frozenset({Detail.END_USERS}), columns=CALLS))
        return [(str(group.values.values[0] or ""), *_numbers(group.metrics), group.metrics.end_users) for group in found]

    def by(column: str) -> str:
        return f"SELECT coalesce({column}::text, ''), {COUNTED} {WHERE} GROUP BY 1"

    day = f"left({DAY}::text, 10)"
    latency = "percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms), percentile_cont(0.5) WITHIN GROUP (ORDER BY first_token_ms)"
    return [
        Read("totals", totals, f"SELECT {COUNTED} {WHERE}", utc),
        Read("by model", groups(Dimension.MODEL), by("model"), utc),
        Read("by app", groups(Dimension.APP), by("app_id"), utc),
        Read("by key", groups(Dimension.API_KEY), by("key_id"), utc),
        Read("by language", groups(Dimension.LANGUAGE), by("language"), utc),
        Read("days, UTC", series(utc), f"SELECT {day.format(zone='UTC')}, {COUNTED} {WHERE} GROUP BY 1", utc),
        Read("days, New York", series(york), f"SELECT {day.format(zone=NEW_YORK)}, {COUNTED} {WHERE} GROUP BY 1", york),
        Read("models by day", model_by_day, f"SELECT {day.format(zone='UTC')} || ' ' || model, {COUNTED} {WHERE} GROUP BY 1", utc),
        Read(
            "document 1, New York",
            document_1,
            f"SELECT {day.format(zone=NEW_YORK)}, sum(CASE outcome WHEN 'succeeded' THEN requests ELSE 0 END), sum(characters), sum(lines) {WHERE} GROUP BY 1",
            york,
        ),
        Read(
            "dashboard with quantiles",
            dashboard,
            f"SELECT sum(requests), sum(charge_microusd), {latency} {WHERE}",
            utc,
            duck=f"SELECT sum(requests), sum(charge_microusd), {QUANTILES} {WHERE}",
            close=True,
        ),
        Read("end users", people, f"SELECT count(DISTINCT end_user) {WHERE}", utc, goal=PEOPLE_GOAL),
        Read("end users by app", people_by_app, f"SELECT coalesce(app_id::text, ''), {COUNTED}, count(DISTINCT end_user) {WHERE} GROUP BY 1", utc, goal=PEOPLE_GOAL),
    ]


def _same(ours: Answer, theirs: Sequence[Sequence[Any]], *, close: bool) -> bool:
    def plain(rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        return sorted(tuple(value if isinstance(value, str | float) else int(value) for value in row) for row in rows)

    pairs = zip(plain(ours), plain(theirs), strict=True)
    if not close:
        return all(left == right for left, right in pairs)
    return all(abs(float(one) - float(other)) <= 0.05 * float(other) for left, right in pairs for one, other in zip(left, right, strict=True))


async def _timed(ask: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Ask twice, and time the second: the first finds the processor's caches full of what the side before has read."""
    await ask()
    before = time.perf_counter()
    answer = await ask()
    return (time.perf_counter() - before) * 1000, answer


class Duck:
    """DuckDB over the same calls, in columns of its own file; None of it is there without the package."""

    def __init__(self, folder: Path) -> None:
        self.connection: Any = importlib.import_module("duckdb").connect(str(folder / "calls.duckdb"))

    async def load(self, owner: asyncpg.Connection, folder: Path) -> int:
        """Take all calls over, and return how many there are."""
        path = folder / "calls.csv"
        columns, types = ", ".join(EXPORTED), ", ".join(f"'{name}': '{_type(name)}'" for name in EXPORTED)
        self.connection.execute("SET timezone = 'UTC'")
        self.connection.execute("CREATE TABLE calls (" + ", ".join(f'"{name}" {_type(name)}' for name in EXPORTED) + ")")
        for name, _ in await partitions(owner):  # one at a time: all of it as text would take as much of the disk as the database
            with path.open("wb") as file:
                await owner.copy_from_query(f"SELECT {columns} FROM {name} ORDER BY workspace_id, at", output=file, format="csv", header=True)
            self.connection.execute(f"INSERT INTO calls SELECT * FROM read_csv('{path}', header = true, columns = {{{types}}})")
            path.unlink()
        return int(self.connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    async def ask(self, sql: str) -> Any:
        """Run one query and return all its rows."""
        return self.connection.execute(sql).fetchall()


async def partitions(owner: asyncpg.Connection) -> list[tuple[str, int]]:
    """Return the partitions of usage events in order of their months, with their bytes."""
    rows = await owner.fetch(
        "SELECT inhrelid::regclass::text AS name, pg_relation_size(inhrelid) AS size FROM pg_inherits WHERE inhparent = 'usage_event'::regclass ORDER BY 1"
    )
    return [(row["name"], row["size"]) for row in rows if row["size"]]


def _type(name: str) -> str:
    if name == "at":
        return "TIMESTAMPTZ"
    return "VARCHAR" if name in ("workspace_id", "mode", "app_id", "key_id", "model", "end_user", "language", "outcome") else "BIGINT"


async def compare(read: Read, caller: Caller, rounds: int, duck: Duck | None) -> tuple[float, float, float | None]:
    """Return the median milliseconds of our way, of Postgres and of DuckDB over single calls; raises WrongBooks when answers differ."""
    facts = {"workspace": caller.workspace_id, "start": read.window.start, "end": read.window.end}
    raw_sql, duck_sql = read.sql.format(table="usage_event", **facts), (read.duck or read.sql).format(table="calls", **facts)
    ours, raw, ducks = [], [], []
    for _ in range(rounds + 1):
        took, answer = await _timed(lambda: read.ours(caller))
        ours.append(took)
        took, plain = await _timed(lambda: database.fetch(raw_sql))
        raw.append(took)
        if not _same(answer, plain, close=read.close):
            raise WrongBooks(f"{read.name}: cells say {sorted(answer)[:3]}, single calls {sorted(map(tuple, plain))[:3]}")
        if duck is not None:
            took, told = await _timed(lambda: duck.ask(duck_sql))
            ducks.append(took)
            if not _same(answer, told, close=read.close):
                raise WrongBooks(f"{read.name}: DuckDB says {sorted(told)[:3]}")
    return statistics.median(ours[1:]), statistics.median(raw[1:]), statistics.median(ducks[1:]) if ducks else None


async def ingest(owner: asyncpg.Connection) -> list[tuple[str, float]]:
    """Return rows a second by COPY of a thousand, and by single rows with a commit each, into a table with the same key and indexes."""
    await owner.execute("DROP TABLE IF EXISTS ingest; CREATE TABLE ingest (LIKE usage_event INCLUDING DEFAULTS INCLUDING INDEXES)")
    sample = await owner.fetch(f"SELECT {', '.join(events.COLUMNS)} FROM usage_event LIMIT 20000")
    records = [tuple(row) for row in sample]
    places = ", ".join(f"${place}" for place in range(1, len(events.COLUMNS) + 1))
    insert = await owner.prepare(f"INSERT INTO ingest ({', '.join(events.COLUMNS)}) VALUES ({places})")
    before = time.perf_counter()
    for record in records[:2_000]:
        await insert.fetch(*record)
    single = 2_000 / (time.perf_counter() - before)
    await owner.execute("TRUNCATE ingest")
    before = time.perf_counter()
    for first in range(0, len(records), 1_000):
        await owner.copy_records_to_table("ingest", records=records[first : first + 1_000], columns=events.COLUMNS)
    grouped = len(records) / (time.perf_counter() - before)
    await owner.execute("DROP TABLE ingest")
    return [("COPY of 1,000", grouped), ("single-row commits", single)]


async def sizes(owner: asyncpg.Connection) -> list[tuple[str, float]]:
    """Return the bytes a call of each table, with its indexes."""
    count = await owner.fetchval("SELECT count(*) FROM usage_event")
    rows = await owner.fetch(
        """
        SELECT coalesce(nullif(split_part(regexp_replace(c.relname, '_(y[0-9]+m[0-9]+|default)$', ''), '.', 1), ''), c.relname) AS name,
               sum(pg_table_size(c.oid)) AS own, sum(pg_indexes_size(c.oid)) AS indexes
          FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '^usage_(event|cell|span|people|name)' GROUP BY 1 ORDER BY 1
        """
    )
    return [(f"{row['name']} {part}", row[column] / count) for row in rows for part, column in (("rows", "own"), ("indexes", "indexes"))]


async def largest() -> UUID:
    """Return the workspace with most calls."""
    found: UUID = await database.fetch_value("SELECT workspace_id FROM usage_cell WHERE level = 0 GROUP BY 1 ORDER BY sum(requests) DESC LIMIT 1")
    return found


async def run(data: Path, calls: int, workspaces: int, rounds: int, json: Path | None) -> None:
    """Fill the folder if it is empty, ask everything in turn, and show the tables."""
    async with events.opened(data) as postgres:
        await events.fill(postgres, calls, workspaces)
        owner = await asyncpg.connect(postgres.dsn(OWNER, DATABASE))
        workspace_id = await largest()
        caller = Caller(at=await events.last(), workspace_id=workspace_id, name="bench", scopes=frozenset(Scope))
        count, own = (
            await owner.fetchval("SELECT count(*) FROM usage_event"),
            await owner.fetchval("SELECT count(*) FROM usage_event WHERE workspace_id = $1", workspace_id),
        )
        click.echo(f"{count:,} calls, the largest workspace has {own:,}; medians of {rounds} rounds after one that warms up")
        lines, facts = [], []
        with tempfile.TemporaryDirectory(prefix="tgd-") as folder:
            duck = None
            try:
                duck = Duck(Path(folder))
                await duck.load(owner, Path(folder))
            except ModuleNotFoundError:
                click.echo("DuckDB is left out: pip install -r bench/requirements.txt")
            for read in reads(caller.at):
                ours, raw, other = await compare(read, caller, rounds, duck)
                reached = raw / ours >= read.goal and (other is None or read.goal != GOAL or ours < other)
                lines.append(
                    (
                        read.name,
                        f"{ours:.2f}",
                        f"{raw:.1f}",
                        f"{raw / ours:.1f}",
                        *(("", "") if other is None else (f"{other:.1f}", f"{other / ours:.1f}")),
                        "reached" if reached else "MISSED",
                    )
                )
                facts.append({"read": read.name, "ours_ms": ours, "raw_ms": raw, "duckdb_ms": other, "calls": count, "reached": reached})
        click.echo(table(HEAD, lines))
        click.echo(table(("written how", "rows a second"), [(name, f"{rate:,.0f}") for name, rate in await ingest(owner)]))
        click.echo(table(("bytes a call", ""), [(name, f"{size:.1f}") for name, size in await sizes(owner)]))
        await owner.close()
        write_json(json, facts)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The folder that bench.events has filled, or one to fill.")
@click.option("--calls", default=10_000_000, help="How many calls, when the folder is empty.")
@click.option("--workspaces", default=events.WORKSPACES, help="How many workspaces share them.")
@click.option("--rounds", default=ROUNDS, help="How often each question is asked.")
@click.option("--json", type=click.Path(path_type=Path), default=None, help="Where the JSON lines go; to stdout without it.")
def main(data: Path, calls: int, workspaces: int, rounds: int, json: Path | None) -> None:
    """Compare every 30-day read of the largest workspace with the same question over single calls, in one run."""
    asyncio.run(run(data, calls, workspaces, rounds, json))


if __name__ == "__main__":
    main()
