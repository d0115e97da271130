"""Partitions of calls and what belongs to them: a month each, made ahead by whoever works, and dropped when they are kept long enough."""

from datetime import UTC, datetime, timedelta

from models import database
from models.database import CONTENDED

MONTHS_AHEAD = 4
"""This month and the next three."""


async def make_ahead(at: datetime) -> int:
    """Make what is missing of the months from that of `at` on, and return how many partitions that were; any process may, at any time.

    Waits two seconds at most for others, and then raises what `models.database.CONTENDED` lists: the next time will do.
    """
    return int(await database.fetch_value("SELECT partitions_1($1, $2)", at, MONTHS_AHEAD))


RETIRED_AT_ONCE = 2_000


async def retire(at: datetime, kept_days: int | None) -> int:
    """Let single calls go that are kept long enough, and return how many months were dropped and how many events were deleted besides, together.

    `kept_days` is how long the service keeps them, None for ever; a workspace may keep its own for less. Months that are over for everybody are
    dropped whole; a workspace's own days are deleted, some at a time. Cells, spans and sets of people stay, so that every sum stays. Any process
    may do it at any time, and may die over it: a step is one transaction. A month that somebody reads at that moment is left for the next time.
    """
    gone = 0
    if kept_days is not None:
        try:
            while await database.fetch_value("SELECT retire_month_1($1)", at - timedelta(days=kept_days)):
                gone += 1
        except CONTENDED:
            pass
    rows = await database.fetch("SELECT id, least(retention_days, $1) AS days FROM workspace WHERE retention_days < coalesce($1, retention_days + 1)", kept_days)
    for row in rows:
        before = (at.astimezone(UTC) - timedelta(days=row["days"])).replace(hour=0, minute=0, second=0, microsecond=0)
        while some := int(await database.fetch_value("SELECT retire_1($1, $2, $3)", row["id"], before, RETIRED_AT_ONCE)):
            gone += some
    return gone
