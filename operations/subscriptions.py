"""Subscriptions that an operator gives and ends, by command."""

from datetime import UTC, datetime
from uuid import UUID

from domain.access import workspaces
from domain.money import subscriptions
from models.ids import uuid7
from operations.people import commander
from runtime import open_runtime
from settings import Settings


async def grant(settings: Settings, workspace_id: UUID, tier: str, until: datetime | None, reason: str, actor: str, ref: str | None) -> str:
    """Give a workspace a tier, and return the subscription's id."""
    async with open_runtime(settings, serving=False):
        caller = commander(workspace_id, at=datetime.now(UTC), name=actor)
        given = await subscriptions.grant(caller, workspace_id, tier, reason, ends_at=until, idempotency_key=ref or str(uuid7()))
        return str(given.id)


async def show(settings: Settings, workspace_id: UUID) -> list[str]:
    """Return a line for each subscription of a workspace, and one for each quota."""
    now = datetime.now(UTC)
    async with open_runtime(settings, serving=False):
        await workspaces.find(workspace_id)
        lines = [
            f"{each.id}  {each.tier}  {each.source.value} {each.status.value}  {'entitled' if each.entitled else 'not entitled'}"
            f"  period {each.current_period_start:%Y-%m-%d} to {each.current_period_end:%Y-%m-%d}" + (f"  until {each.ends_at:%Y-%m-%d %H:%M}" if each.ends_at else "")
            for each in await subscriptions.of_workspace(workspace_id, at=now)
        ]
        lines += [
            f"{quota.resource.value} in {quota.window}: {'-' if quota.used is None else quota.used} of {'unlimited' if quota.limit is None else quota.limit}"
            + (f", begins anew at {quota.resets_at:%Y-%m-%d %H:%M:%S} UTC" if quota.resets_at else "")
            for quota in await subscriptions.quotas(workspace_id, at=now)
        ]
    return lines or ["no subscription"]


async def end(settings: Settings, subscription_id: UUID, actor: str) -> str:
    """End a granted subscription, and say so."""
    async with open_runtime(settings, serving=False):
        ended = await subscriptions.end(commander(UUID(int=0), at=datetime.now(UTC), name=actor), subscription_id)
        return f"{ended.tier} ended at {ended.ended_at:%Y-%m-%d %H:%M:%S} UTC"
