"""Operators, people, workspaces and keys, made by command."""

from datetime import UTC, datetime
from uuid import UUID

from clients.issuers import LOCAL_ISSUER
from domain.access import keys, users, workspaces
from domain.access.callers import WORKSPACE_SCOPES, Caller
from domain.errors import NotFound
from models.enums import ApiKeyKind, ApiKeyMode, Scope
from runtime import open_runtime
from settings import Settings


def commander(workspace_id: UUID, *, at: datetime, name: str = "manage.py", user_id: UUID | None = None) -> Caller:
    """Return the caller on whose behalf a command acts: whoever has the machine has every right."""
    return Caller(at=at, workspace_id=workspace_id, name=name, scopes=frozenset(Scope), user_id=user_id)


async def create_operator(settings: Settings, email: str, name: str | None, workspace_id: UUID | None) -> dict[str, str]:
    """Make an operator, or make an existing person one, with a key that has every scope."""
    now = datetime.now(UTC)
    async with open_runtime(settings, serving=False):
        try:
            person = await users.by_email(LOCAL_ISSUER, email)
            await users.make_operator(person.id)
        except NotFound:
            person = await users.create(LOCAL_ISSUER, email, name, operator=True, at=now)
        if workspace_id is None:
            workspace_id = (await workspaces.create_for(person.id, "Operations", "UTC", at=now)).id
        else:
            await workspaces.find(workspace_id)
        caller = commander(workspace_id, at=now, name=person.display_name, user_id=person.id)
        _, secret = await keys.create(caller, keys.NewKey(name=f"operator {email}"[:200], scopes=frozenset(Scope)))
        assert secret is not None
        return {"user_id": str(person.id), "workspace_id": str(workspace_id), "key": secret}


async def create_workspace(settings: Settings, name: str, owner: str | None, timezone: str) -> str:
    """Make a workspace; an owner is made when there is nobody with the address."""
    now = datetime.now(UTC)
    async with open_runtime(settings, serving=False):
        owner_id = None
        if owner is not None:
            try:
                owner_id = (await users.by_email(LOCAL_ISSUER, owner)).id
            except NotFound:
                owner_id = (await users.create(LOCAL_ISSUER, owner, None, operator=False, at=now)).id
        return str((await workspaces.create_for(owner_id, name, timezone, at=now)).id)


async def create_user(settings: Settings, email: str, name: str | None) -> str:
    """Make a person of the local issuer."""
    async with open_runtime(settings, serving=False):
        return str((await users.create(LOCAL_ISSUER, email, name, operator=False, at=datetime.now(UTC))).id)


async def create_key(settings: Settings, workspace_id: UUID, name: str | None, mode: str, kind: str) -> str:
    """Make a key that does what a workspace key does, and return its secret."""
    async with open_runtime(settings, serving=False):
        await workspaces.find(workspace_id)
        caller = Caller(at=datetime.now(UTC), workspace_id=workspace_id, name="manage.py", scopes=WORKSPACE_SCOPES)
        _, secret = await keys.create(caller, keys.NewKey(name=name, mode=ApiKeyMode(mode), kind=ApiKeyKind(kind)))
        assert secret is not None
        return secret
