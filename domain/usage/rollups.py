"""Folding: events that are queued become cells, cells of hours and days that are over become spans, by any number of processes at once; and a comparison
that proves it."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from domain.money.books import COMPARISON
from domain.usage.metrics import COLUMNS
from models import database

SUMS = (*COLUMNS, "succeeded", "cancelled")
SKETCHES = ("latency", "first_token")
FOLD_AT_ONCE = 5000
FOLDS_IN_A_ROW = 100
CLOSING_LAG = timedelta(minutes=10)
"""How long after an hour of UTC it is closed: what is settled later is added to its spans one by one."""
DAYS_FROM, HOURS_FROM = 16, 192
"""From how many cells by app, key and outcome on a day of use a workspace has days, and hours: with fewer, reading the cells is as fast."""
QUARTERS = 0


@dataclass(frozen=True, slots=True)
class Drift:
    """A cell that is not what its folded events add up to, or a span (`hours` is 1 or 24) that is not what its cells do.

    `difference` is what is there less what should be, by column, without zeros; 1 for a sketch.
    """

    workspace_id: UUID
    hours: int
    level: int
    at: datetime
    model: str
    app_id: UUID
    key_id: UUID
    outcome: str
    difference: dict[str, int]


async def fold(most: int = FOLD_AT_ONCE) -> int:
    """Add at most that many queued events to their cells, and return how many; all of it happens, or nothing."""
    return int(await database.fetch_value("SELECT fold_4($1)", most))


async def fold_all() -> int:
    """Fold until the queue is empty, or a bounded number of times, and return how many events that were."""
    folded = 0
    for _ in range(FOLDS_IN_A_ROW):
        some = await fold()
        folded += some
        if some < FOLD_AT_ONCE:
            break
    return folded


async def close(workspace_id: UUID, until: datetime, *, days_from: int = DAYS_FROM, hours_from: int = HOURS_FROM) -> int:
    """Sum the cells of a workspace up into days and hours before an hour of UTC, if it is busy enough, and return how many spans that made."""
    return int(await database.fetch_value("SELECT close_3($1, $2, $3, $4)", workspace_id, until, days_from, hours_from))


async def close_all(now: datetime) -> int:
    """Close the days and hours that are over, workspace by workspace, and return how many spans that made; any process may, at any time."""
    until = (now.astimezone(UTC) - CLOSING_LAG).replace(minute=0, second=0, microsecond=0)
    rows = await database.fetch(
        """
        SELECT workspace_id FROM usage_closing
         WHERE looked_until < date_bin('1 day', $1, 'epoch') OR (hours_until < $1 AND hours_until > 'epoch') ORDER BY workspace_id
        """,
        until,
    )
    made = 0
    for row in rows:
        async with database.transaction():
            await database.fetch("SET LOCAL statement_timeout = '10min'")  # the first time it is all history
            made += await close(row["workspace_id"], until)
    return made


async def compare(start: datetime | None = None, end: datetime | None = None) -> list[Drift]:
    """Recompute cells from their events, and spans from their cells, in one snapshot, and return those that differ; a sound installation has none.

    `start` and `end` bound what is compared; they are midnights of UTC for spans, and quarters of an hour for cells.
    """
    async with database.transaction():
        await database.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await database.fetch("SET LOCAL statement_timeout = '30min'")  # it reads everything
        rows = [*await database.fetch(_CELLS, start, end), *await database.fetch(_SPANS, start, end)]
    return [
        Drift(
            row["workspace_id"],
            row["hours"],
            row["level"],
            row["at"],
            row["model"],
            row["app_id"],
            row["key_id"],
            row["outcome"],
            {name: int(row[name]) for name in (*SUMS, *SKETCHES) if row[name]},
        )
        for row in rows
    ]


async def strays(start: date | None = None) -> int:
    """Recompute the people of each day, from `start` on, from the events that are folded, and return how many sets differ; a sound installation has none."""
    async with database.transaction():
        await database.fetch("SET LOCAL statement_timeout = '30min'")
        return int(await database.fetch_value(_STRAYS, start))


async def look(at: datetime) -> tuple[list[Drift], int]:
    """Compare everything, and remember what was found for `/metrics` and `/health/books`: differing cells and spans, and sets of people."""
    drifts, people = await compare(), await strays()
    await database.fetch(
        """
        INSERT INTO books_check (name, broken, difference, checked_at) VALUES ($1, $2, $3, $4)
            ON CONFLICT (name) DO UPDATE SET broken = excluded.broken, difference = excluded.difference, checked_at = excluded.checked_at
        """,
        COMPARISON,
        len(drifts) + people,
        sum(abs(drift.difference.get("charge_microusd", 0)) for drift in drifts),
        at,
    )
    return drifts, people


_KEPT = "NOT EXISTS (SELECT FROM usage_retired r WHERE r.workspace_id = {0} AND {1} < r.before)"
"""What can be compared: of days whose calls are gone there is nothing to compare with."""
_STRAYS = f"""
    SELECT count(*) FROM (
      SELECT s.workspace_id, s.kind, s.used_on, s.app_id, n.number >> 15 AS part, bit_or(person_bit_1(n.number)) AS people
        FROM (SELECT DISTINCT e.workspace_id, p.kind, (e.at AT TIME ZONE 'UTC')::date AS used_on, coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') AS app_id,
                     person_1(e.workspace_id, p.name) AS person
                FROM usage_event e CROSS JOIN LATERAL (VALUES (0::smallint, e.end_user), (1::smallint, e.conversation)) AS p (kind, name)
               WHERE e.mode = 'live' AND p.name IS NOT NULL AND ($1::date IS NULL OR e.at >= $1::timestamp AT TIME ZONE 'UTC')
                 AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = e.workspace_id AND q.event_id = e.id)
                 AND {_KEPT.format("e.workspace_id", "e.at")}) s
        LEFT JOIN usage_name n ON n.workspace_id = s.workspace_id AND n.kind = s.kind AND n.person = s.person
       GROUP BY 1, 2, 3, 4, 5) x
      FULL JOIN (SELECT * FROM usage_people u WHERE ($1::date IS NULL OR u.used_on >= $1)
                    AND {_KEPT.format("u.workspace_id", "(u.used_on::timestamp AT TIME ZONE 'UTC')")}) u USING (workspace_id, kind, used_on, app_id, part)
     WHERE x.people IS DISTINCT FROM u.people
"""


def _differing(there: str, should: str) -> str:
    """Return the statement that compares the table with what should be in it."""
    key = "workspace_id, hours, level, at, model, app_id, key_id, outcome"
    return f"""
        SELECT {key}, {", ".join(f"coalesce(c.{name}, 0) - coalesce(x.{name}, 0) AS {name}" for name in SUMS)},
               {", ".join(f"c.{name} IS DISTINCT FROM x.{name} AS {name}" for name in SKETCHES)}
          FROM ({should} AND ($1::timestamptz IS NULL OR d.at >= $1) AND ($2::timestamptz IS NULL OR d.at < $2) GROUP BY 1, 2, 3, 4, 5, 6, 7, 8) x
          FULL JOIN (SELECT * FROM {there} WHERE ($1::timestamptz IS NULL OR c.at >= $1) AND ($2::timestamptz IS NULL OR c.at < $2)) c USING ({key})
         WHERE ({", ".join(f"coalesce(c.{name}, 0)" for name in SUMS)}) <> ({", ".join(f"coalesce(x.{name}, 0)" for name in SUMS)})
            OR {" OR ".join(f"c.{name} IS DISTINCT FROM x.{name}" for name in SKETCHES)}
         ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
    """


_ADDED = ", ".join(f"sum(d.{name}) AS {name}" for name in SUMS)
_CELLS = _differing(
    f"(SELECT {QUARTERS} AS hours, q.* FROM usage_cell q WHERE {_KEPT.format('q.workspace_id', 'q.at')}) c",
    f"""SELECT d.workspace_id, {QUARTERS} AS hours, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome, {_ADDED},
               {", ".join(f"sketch_of_1(array_agg(sketch_bucket_1(d.{name}_ms)) FILTER (WHERE d.{name}_ms IS NOT NULL)) AS {name}" for name in SKETCHES)}
          FROM usage_delta_4 d WHERE NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = d.workspace_id AND q.event_id = d.event_id)
           AND {_KEPT.format("d.workspace_id", "d.at")}""",
)
_SPANS = _differing(
    "usage_span c",
    f"""SELECT d.workspace_id, w.hours, d.level, date_bin(make_interval(hours => w.hours), d.at, 'epoch') AS at, d.model, d.app_id, d.key_id, d.outcome, {_ADDED},
               {", ".join(f"sketch_sum_1(d.{name}) AS {name}" for name in SKETCHES)}
          FROM usage_cell d JOIN usage_closing s ON s.workspace_id = d.workspace_id
          JOIN (VALUES (24), (1)) AS w (hours) ON d.at < CASE w.hours WHEN 24 THEN s.days_until ELSE s.hours_until END WHERE true""",
)
