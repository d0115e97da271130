"""Folding: events that are queued become cells, by any number of processes at once, and a comparison that proves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from domain.usage.metrics import COLUMNS
from models import database

SUMS = (*COLUMNS, "succeeded", "cancelled")
SKETCHES = ("latency", "first_token")
FOLD_AT_ONCE = 5000
FOLDS_IN_A_ROW = 100


@dataclass(frozen=True, slots=True)
class Drift:
    """A cell that is not what its folded events add up to; `difference` is cell less events, by column, without zeros; 1 for a sketch."""

    workspace_id: UUID
    level: int
    at: datetime
    model: str
    app_id: UUID
    key_id: UUID
    outcome: str
    difference: dict[str, int]


async def fold(most: int = FOLD_AT_ONCE) -> int:
    """Add at most that many queued events to their cells, and return how many; all of it happens, or nothing."""
    return int(await database.fetch_value("SELECT fold_3($1)", most))


async def fold_all() -> int:
    """Fold until the queue is empty, or a bounded number of times, and return how many events that were."""
    folded = 0
    for _ in range(FOLDS_IN_A_ROW):
        some = await fold()
        folded += some
        if some < FOLD_AT_ONCE:
            break
    return folded


async def compare(start: datetime | None = None, end: datetime | None = None) -> list[Drift]:
    """Recompute cells from their events, in one snapshot, and return those that differ; a sound installation has none.

    `start` and `end` bound the cells that are compared; they are quarters of an hour.
    """
    async with database.transaction():
        await database.fetch("SET LOCAL statement_timeout = '30min'")  # it reads everything
        rows = await _differing(start, end)
    return [
        Drift(
            row["workspace_id"],
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


async def _differing(start: datetime | None, end: datetime | None) -> Sequence[asyncpg.Record]:
    return await database.fetch(
        f"""
        SELECT workspace_id, level, at, model, app_id, key_id, outcome, {", ".join(f"coalesce(c.{name}, 0) - coalesce(x.{name}, 0) AS {name}" for name in SUMS)},
               {", ".join(f"c.{name} IS DISTINCT FROM x.{name} AS {name}" for name in SKETCHES)}
          FROM (SELECT d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome, {", ".join(f"sum(d.{name}) AS {name}" for name in SUMS)},
                       {", ".join(f"sketch_of_1(array_agg(sketch_bucket_1(d.{name}_ms)) FILTER (WHERE d.{name}_ms IS NOT NULL)) AS {name}" for name in SKETCHES)}
                  FROM usage_delta_3 d
                 WHERE ($1::timestamptz IS NULL OR d.at >= $1) AND ($2::timestamptz IS NULL OR d.at < $2)
                   AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = d.workspace_id AND q.event_id = d.event_id)
                 GROUP BY 1, 2, 3, 4, 5, 6, 7) x
          FULL JOIN (SELECT * FROM usage_cell c WHERE ($1::timestamptz IS NULL OR c.at >= $1) AND ($2::timestamptz IS NULL OR c.at < $2)) c
                 USING (workspace_id, level, at, model, app_id, key_id, outcome)
         WHERE ({", ".join(f"coalesce(c.{name}, 0)" for name in SUMS)}) <> ({", ".join(f"coalesce(x.{name}, 0)" for name in SUMS)})
            OR {" OR ".join(f"c.{name} IS DISTINCT FROM x.{name}" for name in SKETCHES)}
         ORDER BY 1, 2, 3, 4, 5, 6, 7
        """,
        start,
        end,
    )
