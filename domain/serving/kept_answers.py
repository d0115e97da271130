"""Answers that providers keep, their items, and containers, so that later calls name them: whose they are. Only the workspace that was given one may name it."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

import structlog

from models import database
from models.database import CONTENDED, UNREACHABLE

KEPT_DAYS = 60
"""Longer than any provider keeps an answer; OpenAI keeps them for 30 days."""

log = structlog.get_logger()


def _named(given: str) -> str:
    return hashlib.sha256(b"kept answer\0" + given.encode()).hexdigest()


async def keep(workspace_id: UUID, given: Sequence[str]) -> None:
    """Remember the ids that a workspace was given; what cannot be remembered now is refused later, and nothing worse."""
    try:
        await database.fetch(
            "INSERT INTO kept_answer (workspace_id, id, created_at) SELECT $1, id, clock_timestamp() FROM unnest($2::text[]) id ON CONFLICT DO NOTHING",
            workspace_id,
            sorted(set(map(_named, given))),  # in one order, so that two at once never wait for each other in a circle
        )
    except (*UNREACHABLE, *CONTENDED) as error:
        log.warning("answer not remembered", error=type(error).__name__)


async def unknown(workspace_id: UUID, names: Sequence[str]) -> str | None:
    """Return the first id that a workspace was not given; None when it was given all."""
    hashes = {name: _named(name) for name in names}
    rows = await database.fetch("SELECT id FROM kept_answer WHERE workspace_id = $1 AND id = ANY ($2::text[])", workspace_id, list(hashes.values()))
    given = {row["id"] for row in rows}
    return next((name for name, hashed in hashes.items() if hashed not in given), None)


async def forget(most: int = 5000) -> int:
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
