"""Partitions of calls and what belongs to them: a month each, made ahead by whoever works, so that no month begins without one."""

from datetime import datetime

from models import database

MONTHS_AHEAD = 4
"""This month and the next three."""


async def make_ahead(at: datetime) -> int:
    """Make what is missing of the months from that of `at` on, and return how many partitions that were; any process may, at any time.

    Waits two seconds at most for others, and then raises what `models.database.CONTENDED` lists: the next time will do.
    """
    return int(await database.fetch_value("SELECT partitions_1($1, $2)", at, MONTHS_AHEAD))
