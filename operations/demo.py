"""The demo workspace of a first run: an owner, a key that does everything in it, an operator's key, some credit, and the example chat."""

from datetime import UTC, datetime

from clients.issuers import LOCAL_ISSUER
from domain.access import keys, users, workspaces
from domain.access.callers import WORKSPACE_SCOPES, Actor, Caller
from domain.errors import NotFound, Taken
from domain.money import ledger
from models import database
from models.enums import ActorKind, Scope
from operations import chat
from operations.people import commander
from runtime import open_runtime
from settings import Settings

OWNER = "demo@localhost"
OPERATOR = "operator@localhost"
CREDIT_MICROUSD = 10_000_000


async def make(settings: Settings, *, renew: bool) -> dict[str, str]:
    """Make what is missing of the demo; return where the example chat is, and new keys unless it is complete and none are asked for.

    Every step may have been made by a run that stopped half-way.
    """
    now = datetime.now(UTC)
    async with open_runtime(settings, serving=False) as runtime:
        owner = await _person(OWNER, "Demo owner", operator=False, at=now)
        operator = await _person(OPERATOR, "Demo operator", operator=True, at=now)
        places = await workspaces.of_user(owner.id)
        workspace_id = places[0].workspace.id if places else (await workspaces.create_for(owner.id, "Demo", "UTC", at=now)).id
        await ledger.give(workspace_id, CREDIT_MICROUSD, "demo credit", "demo", Actor(ActorKind.SYSTEM, None, "manage.py demo"))
        as_owner = Caller(at=now, workspace_id=workspace_id, name=owner.display_name, scopes=WORKSPACE_SCOPES, user_id=owner.id)
        url = await chat.deploy(runtime, as_owner)
        told = {} if url is None else {"chat_url": url}
        complete = await database.fetch_value("SELECT EXISTS (SELECT FROM clock WHERE name = 'demo')")
        if complete and not renew:
            return told
        _, api_key = await keys.create(as_owner, keys.NewKey(name="demo", scopes=WORKSPACE_SCOPES))
        as_operator = commander(workspace_id, at=now, name=operator.display_name, user_id=operator.id)
        _, operator_key = await keys.create(as_operator, keys.NewKey(name="demo operator", scopes=frozenset(Scope)))
        await database.fetch("INSERT INTO clock (name, done_at) VALUES ('demo', $1) ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at", now)
        assert api_key is not None
        assert operator_key is not None
        return {**told, "api_key": api_key, "operator_key": operator_key, "workspace_id": str(workspace_id)}


async def _person(email: str, name: str, *, operator: bool, at: datetime) -> users.UserView:
    try:
        return await users.by_email(LOCAL_ISSUER, email)
    except NotFound:
        try:
            return await users.create(LOCAL_ISSUER, email, name, operator=operator, at=at)
        except Taken:  # another run made it a moment ago
            return await users.by_email(LOCAL_ISSUER, email)
