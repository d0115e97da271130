"""Answers that providers keep, their items, and containers, so that later calls name them: whose they are. Only the workspace that was given one may name it.

A call that does goes to the upstream that gave it: another, even an account at the same provider, keeps nothing of it.
"""

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


async def keep(workspace_id: UUID, given: Sequence[str], upstream: str) -> None:
    """Remember the ids that a workspace was given by an upstream; what cannot be remembered now is refused later, and nothing worse."""
    try:
        await database.fetch(
            """
            INSERT INTO kept_answer (workspace_id, id, created_at, upstream) SELECT $1, id, clock_timestamp(), $3 FROM unnest($2::text[]) id
            ON CONFLICT DO NOTHING
            """,
            workspace_id,
            sorted(set(map(_named, given))),  # in one order, so that two at once never wait for each other in a circle
            upstream,
        )
    except (*UNREACHABLE, *CONTENDED) as error:
        log.warning("answer not remembered", error=type(error).__name__)


async def keepers(workspace_id: UUID, names: Sequence[str]) -> dict[str, str | None]:
    """Return the upstreams that gave a workspace these ids, by id, without those that it was not given; None where it was not written down."""
    hashes = {_named(name): name for name in names}
    rows = await database.fetch("SELECT id, upstream FROM kept_answer WHERE workspace_id = $1 AND id = ANY ($2::text[])", workspace_id, list(hashes))
    return {hashes[row["id"]]: row["upstream"] for row in rows}


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
