"""Jobs of usage: fold what is queued, close days and hours that are over, and prove that cells are what their events add up to."""

from datetime import UTC, datetime
from typing import Any

import structlog

from domain.access import client_tokens
from domain.usage import partitions, rollups
from runtime import Runtime

log = structlog.get_logger()


async def fold_usage(ctx: dict[str, Any]) -> None:
    """Fold queued events into cells; to run every two seconds, in any number of processes."""
    await rollups.fold_all()


async def close_usage(ctx: dict[str, Any]) -> None:
    """Sum up the days and hours that are over; to run every hour, in any number of processes."""
    await rollups.close_all(datetime.now(UTC))


async def compare_usage(ctx: dict[str, Any]) -> None:
    """Recompute all cells, spans and people, remember what differs for `/metrics`, and raise an alarm for each; never mend it; to run once a night."""
    drifts, people = await rollups.look(datetime.now(UTC))
    if people:
        log.error("sets of people differ from their events", sets=people)
    for drift in drifts:
        at = drift.at.isoformat()
        log.error("usage cell differs from its events", workspace=str(drift.workspace_id), hours=drift.hours, level=drift.level, at=at, difference=drift.difference)


async def make_partitions(ctx: dict[str, Any]) -> None:
    """Make the partitions of the months to come; to run every hour, in any number of processes."""
    made = await partitions.make_ahead(datetime.now(UTC))
    if made:
        log.info("partitions made ahead", made=made)


async def retire_calls(ctx: dict[str, Any]) -> None:
    """Let calls go that are kept long enough, and then client tokens that are over; to run once a night, in any number of processes."""
    runtime: Runtime = ctx["runtime"]
    gone = await partitions.retire(datetime.now(UTC), runtime.settings.calls_kept_days)
    if gone:
        log.info("calls let go", months_and_events=gone)
    tokens = await client_tokens.retire(datetime.now(UTC))
    if tokens:
        log.info("client tokens let go", tokens=tokens)
