"""Jobs of usage: fold what is queued, and prove that cells are what their events add up to."""

from datetime import UTC, datetime
from typing import Any

import structlog

from domain.usage import partitions, rollups

log = structlog.get_logger()


async def fold_usage(ctx: dict[str, Any]) -> None:
    """Fold queued events into cells; to run every two seconds, in any number of processes."""
    await rollups.fold_all()


async def compare_usage(ctx: dict[str, Any]) -> None:
    """Recompute all cells and raise an alarm for each that differs, never mend it; to run once a night."""
    for drift in await rollups.compare():
        log.error("usage cell differs from its events", workspace=str(drift.workspace_id), level=drift.level, at=drift.at.isoformat(), difference=drift.difference)


async def make_partitions(ctx: dict[str, Any]) -> None:
    """Make the partitions of the months to come; to run every hour, in any number of processes."""
    made = await partitions.make_ahead(datetime.now(UTC))
    if made:
        log.info("partitions made ahead", made=made)
