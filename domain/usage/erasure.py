"""Forgetting an end user: its name leaves every row and set, and every sum and count stays."""

from uuid import UUID, uuid4

from domain import audit
from domain.access.callers import Caller
from domain.errors import NotFound
from models import database
from models.enums import Scope

ERASED = "erased-"
"""How the name begins that stands instead; what follows is random, and kept nowhere else."""


async def erase(caller: Caller, end_user_id: UUID) -> None:
    """Forget an end user of the workspace; it cannot be undone. To forget one who is forgotten already changes nothing.

    Its calls, usage and tokens get another name, all the same one, so that it stays one person in every count; its tokens end and its row is
    blocked; files exported before are deleted. All of it happens, or nothing. A call that names it afterwards is a new end user's. Needs
    APPS_WRITE; raises MissingScope and NotFound.
    """
    workspace_id = caller.require(Scope.APPS_WRITE)
    async with database.transaction():
        await database.fetch("SET LOCAL statement_timeout = '30min'")  # it looks at every event of the workspace
        name = f"{ERASED}{uuid4().hex}"
        result = await database.fetch_value("SELECT erase_2($1, $2, $3, $4)", workspace_id, end_user_id, name, caller.at)
        if result == "unknown":
            if await _forgotten(workspace_id, end_user_id):
                return
            raise NotFound("end user", path=("id",))
        await audit.note(caller.actor, "endUser.erase", ("EndUser", end_user_id), workspace_id=workspace_id, at=caller.at)


async def _forgotten(workspace_id: UUID, end_user_id: UUID) -> bool:
    return bool(
        await database.fetch_value(
            """
            SELECT EXISTS (SELECT FROM audit_event a WHERE a.workspace_id = $1 AND a.action = 'endUser.erase' AND a.subject_kind = 'EndUser' AND a.subject_id = $2)
            """,
            workspace_id,
            str(end_user_id),
        )
    )
