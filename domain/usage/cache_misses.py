"""What calls missed of the prompt cache: kept with numbers alone, read dearest first, forgotten with their calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from domain.access.callers import Caller
from domain.errors import OutOfRange
from domain.usage import records
from domain.usage.metrics import UsageFilter
from domain.usage.prompts import Finding
from domain.usage.records import RecordFilter, RecordView
from domain.usage.windows import Window
from models import database
from models.enums import ApiKeyMode, CacheMissReason, PromptPart, UsageRecordStatus

MOST = 100
LONGEST_KEPT_DAYS = 400


@dataclass(frozen=True, slots=True)
class CacheMiss:
    """A call that read less from the prompt cache than the one before it had put there, with both; see `domain.usage.prompts.Finding`."""

    record: RecordView
    previous: RecordView
    reason: CacheMissReason
    part: PromptPart | None
    message_index: int | None
    shared_tokens: int
    missed_tokens: int
    cost_microusd: int


async def keep(workspace_id: UUID, call_id: UUID, previous_id: UUID, at: datetime, found: Finding, cost_microusd: int) -> None:
    """Keep what a call missed; the first word counts. Raises as the driver does."""
    await database.fetch(
        """
        INSERT INTO cache_miss (workspace_id, call_id, previous_id, at, reason, part, message_index, shared_tokens, missed_tokens, cost_microusd)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
        """,
        workspace_id,
        call_id,
        previous_id,
        at,
        found.reason,
        found.part,
        found.message_index,
        found.shared_tokens,
        found.missed_tokens,
        cost_microusd,
    )


async def dearest(caller: Caller, window: Window, narrowed: UsageFilter, first: int) -> Sequence[CacheMiss]:
    """Return the misses of a window, dearest first, of calls that the caller may see; those of a call that is gone, or was taken back, are left out.

    Raises OutOfRange (path `first`), MissingScope and InvalidInput.
    """
    if not 1 <= first <= MOST:
        raise OutOfRange(f"At least 1 and at most {MOST}.", minimum=1, maximum=MOST, too_large=first > 1, path=("first",))
    wanted = RecordFilter(window, narrowed, modes=(ApiKeyMode.LIVE,), statuses=(UsageRecordStatus.ACTIVE, UsageRecordStatus.REFUNDED))
    seen, arguments = records.seen(caller, wanted, "m.workspace_id", "m.call_id")
    rows = await database.fetch(
        f"""
        SELECT m.* FROM cache_miss m
         WHERE {"true" if narrowed.everywhere else "m.workspace_id = $1"} AND m.at >= ${len(arguments) + 1} AND m.at < ${len(arguments) + 2} AND {seen}
         ORDER BY m.cost_microusd DESC, m.missed_tokens DESC, m.call_id DESC LIMIT ${len(arguments) + 3}
        """,
        *arguments,
        window.start,
        window.end,
        first,
    )
    found: dict[UUID, RecordView] = {}
    for workspace_id in {row["workspace_id"] for row in rows}:
        ids = [row[name] for row in rows if row["workspace_id"] == workspace_id for name in ("call_id", "previous_id")]
        found |= await records.find_many(replace(caller, workspace_id=workspace_id), ids)
    return [
        CacheMiss(
            found[row["call_id"]],
            found[row["previous_id"]],
            CacheMissReason(row["reason"]),
            PromptPart(row["part"]) if row["part"] else None,
            row["message_index"],
            row["shared_tokens"],
            row["missed_tokens"],
            row["cost_microusd"],
        )
        for row in rows
        if row["call_id"] in found and row["previous_id"] in found
    ]


async def forget(most: int = 1000) -> int:
    """Forget misses older than their workspace keeps its calls, and than LONGEST_KEPT_DAYS in any case; return how many."""
    rows = await database.fetch(
        """
        DELETE FROM cache_miss m USING (
          SELECT o.workspace_id, o.call_id FROM workspace w
            CROSS JOIN LATERAL (SELECT c.workspace_id, c.call_id FROM cache_miss c WHERE c.workspace_id = w.id
                                   AND c.at < clock_timestamp() - make_interval(days => least(coalesce(w.retention_days, $2), $2)) LIMIT $1) o
           LIMIT $1) old
         WHERE m.workspace_id = old.workspace_id AND m.call_id = old.call_id RETURNING m.call_id
        """,
        most,
        LONGEST_KEPT_DAYS,
    )
    return len(rows)
