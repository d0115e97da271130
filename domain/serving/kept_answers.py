"""Answers that providers keep so that later calls go on from them: whose they are. Only the workspace that was given one may name it."""

import hashlib
from uuid import UUID

import structlog

from models import database
from models.database import CONTENDED, UNREACHABLE

KEPT_DAYS = 60
"""Longer than any provider keeps an answer; OpenAI keeps them for 30 days."""

log = structlog.get_logger()


def _named(answer: str) -> str:
    return hashlib.sha256(b"kept answer\0" + answer.encode()).hexdigest()


async def keep(workspace_id: UUID, answer: str) -> None:
    """Remember that a workspace was given an answer; one that cannot be remembered now is refused later, and nothing worse."""
    try:
        await database.fetch(
            "INSERT INTO kept_answer (workspace_id, id, created_at) VALUES ($1, $2, clock_timestamp()) ON CONFLICT DO NOTHING", workspace_id, _named(answer)
        )
    except (*UNREACHABLE, *CONTENDED) as error:
        log.warning("answer not remembered", error=type(error).__name__)


async def known(workspace_id: UUID, answer: str) -> bool:
    """Tell whether a workspace was given an answer."""
    return bool(await database.fetch_value("SELECT EXISTS (SELECT FROM kept_answer WHERE workspace_id = $1 AND id = $2)", workspace_id, _named(answer)))


async def forget(most: int = 1000) -> int:
    """Forget answers that no provider keeps any more; return how many."""
    rows = await database.fetch(
        """
        DELETE FROM kept_answer k
         USING (SELECT workspace_id, id FROM kept_answer WHERE created_at < clock_timestamp() - make_interval(days => $2)
                 ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED) old
         WHERE k.workspace_id = old.workspace_id AND k.id = old.id RETURNING k.id
        """,
        most,
        KEPT_DAYS,
    )
    return len(rows)
