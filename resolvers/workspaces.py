"""Workspaces: the current one, those to switch to, and new ones."""

from uuid import UUID

from domain.access import limits, workspaces
from domain.access.workspaces import WorkspaceChanges, WorkspaceView
from models.enums import SubjectKind
from resolvers.asking import Asking, offered_names


async def current(asking: Asking) -> WorkspaceView | None:
    """The workspace that the call is scoped to; None without a credential, or for a person who is a member of none."""
    if asking.caller is None or asking.caller.workspace_id is None:
        return None
    return await workspaces.find(asking.caller.workspace_id)


async def of_event(asking: Asking, workspace_id: UUID) -> WorkspaceView:
    """The workspace of a change that the caller may see."""
    asking.within(workspace_id)
    return await workspaces.find(workspace_id)


async def reachable(asking: Asking) -> list[WorkspaceView]:
    """Every workspace that the caller can switch to: a person's own, or a key's only one."""
    if asking.known.user_id is not None:
        return [place.workspace for place in await workspaces.of_user(asking.known.user_id)]
    here = await current(asking)
    return [here] if here else []


async def create(asking: Asking, name: str, timezone: str, idempotency_key: str | None) -> WorkspaceView:
    """Make a workspace that the signed-in person owns."""
    return await workspaces.create(asking.known, name, timezone, idempotency_key)


async def update(asking: Asking, changes: WorkspaceChanges) -> WorkspaceView:
    """Change the current workspace."""
    return await workspaces.update(asking.known, changes, offered=offered_names(asking))


async def reset_limits(asking: Asking, kind: SubjectKind, subject_id: UUID, reason: str) -> None:
    """Begin every window of a subject's bounds afresh."""
    await limits.reset(asking.known, kind, subject_id, reason)
