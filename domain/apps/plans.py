"""What the plans of a workspace allow of apps and of hosted sites; read under a lock, so that of many at once exactly as many as there is room for get in."""

from datetime import datetime
from uuid import UUID

from domain.errors import QuotaReached
from domain.money import subscriptions
from models import database
from models.enums import Resource

SITES_PER_NODE = 25
"""How many sites a serving node takes where no plan says so."""
_SITES = """
    SELECT count(*) FROM app a WHERE a.workspace_id = $1 AND a.id <> $2 AND a.deleted_at IS NULL
       AND (a.live_deployment_id IS NOT NULL
            OR EXISTS (SELECT FROM deployment d WHERE d.workspace_id = a.workspace_id AND d.app_id = a.id AND d.status IN ('queued', 'running')))
"""


async def make_room_for_app(workspace_id: UUID, *, at: datetime) -> None:
    """Let the open transaction add an app to a workspace, or raise QuotaReached."""
    most = await _allowed(workspace_id, Resource.APPS, at=at)
    if most is None:
        return
    used: int = await database.fetch_value("SELECT count(*) FROM app WHERE workspace_id = $1 AND deleted_at IS NULL", workspace_id)
    if used >= most:
        raise QuotaReached(f"The plan allows {most} apps, and there are {used}: delete one, or choose a larger plan.", resource=Resource.APPS, limit=most, used=used)


async def make_room_for_site(workspace_id: UUID, app_id: UUID, *, at: datetime) -> None:
    """Let the open transaction make an app a hosted site of a workspace, which it may be already, or raise QuotaReached.

    Sites count that are live and those on their way; so many sites need so many serving nodes.
    """
    most = await _allowed(workspace_id, Resource.HOSTED_SITES, at=at)
    nodes = await _allowed(workspace_id, Resource.WEB_HOST_NODES, at=at)
    if most is None and nodes is None:
        return
    used: int = await database.fetch_value(_SITES, workspace_id, app_id)
    if most is not None and used >= most:
        message = f"The plan allows {most} hosted sites, and there are {used}: delete one, or choose a larger plan."
        raise QuotaReached(message, resource=Resource.HOSTED_SITES, limit=most, used=used)
    per_node = await subscriptions.allowance(workspace_id, Resource.SITES_PER_NODE, at=at)
    if nodes is not None and nodes_for(used + 1, per_node) > nodes:
        message = f"The plan allows {nodes} serving nodes of {per_node or SITES_PER_NODE} sites, and they are full: delete a site, or choose a larger plan."
        raise QuotaReached(message, resource=Resource.WEB_HOST_NODES, limit=nodes, used=nodes_for(used, per_node))


def nodes_for(sites: int, per_node: int | None) -> int:
    """Return how many serving nodes so many sites take."""
    return -(-sites // (per_node or SITES_PER_NODE))


async def _allowed(workspace_id: UUID, resource: Resource, *, at: datetime) -> int | None:
    """Return what the plans allow, with the workspace's count of apps and sites held still until the transaction ends; None for no limit."""
    most = await subscriptions.allowance(workspace_id, resource, at=at)
    if most is not None:
        await database.fetch("SELECT pg_advisory_xact_lock(hashtextextended('apps of ' || $1::uuid::text, 0))", workspace_id)
    return most
