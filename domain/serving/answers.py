"""Answers to calls that their clients named by an idempotency key: claimed before anything is spent, kept sealed, given again, forgotten in time.

The call's own hold says whether a claimed one is under way: no lease has to be renewed, and a process that dies frees the key with the sweep of its
hold, unless something was delivered, and so charged.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from models import database
from models.enums import IdempotentAnswerState

KEPT_SECONDS = 24 * 3600
REMEMBERED_SECONDS = 30 * 24 * 3600
"""How long it is remembered that a key was used: its answer is gone after KEPT_SECONDS."""
LARGEST_ANSWER_BYTES = 4 * 1024 * 1024
LEASE_SECONDS = 60
"""How long a claim holds before its call has a hold; an admission takes milliseconds."""
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Claim:
    """A call that an idempotency key names; `request_hash` tells whether it is the same request."""

    workspace_id: UUID
    id: str
    request_hash: str
    call_id: UUID


class Standing(StrEnum):
    """What is there of a key that is claimed already."""

    UNDER_WAY = "under_way"
    ANOTHER_REQUEST = "another_request"
    ANSWERED = "answered"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The call that claimed the key before; `sealed` is its answer when it is ANSWERED."""

    standing: Standing
    call_id: UUID
    sealed: bytes | None = None


def named(workspace_id: UUID, key_id: UUID, idempotency_key: str) -> str:
    """Return the id under which a key's answer is kept: a hash of workspace, API key and idempotency key."""
    return hashlib.sha256(b"idempotent answer\0" + workspace_id.bytes + key_id.bytes + idempotency_key.encode()).hexdigest()


async def claim(asked: Claim) -> Earlier | None:
    """Claim a key for a call, durably, before the call is admitted; None when it is this call's, else what an earlier call made of it.

    A claim whose call was never admitted within LEASE_SECONDS, or ended without delivering anything, is free again.
    """
    taken = await database.fetch_value(
        """
        INSERT INTO idempotent_answer AS a (workspace_id, id, request_hash, call_id, state, leased_until, created_at)
        VALUES ($1, $2, $3, $4, 'claimed', clock_timestamp() + make_interval(secs => $5), clock_timestamp())
            ON CONFLICT (workspace_id, id) DO UPDATE
               SET request_hash = excluded.request_hash, call_id = excluded.call_id, leased_until = excluded.leased_until, created_at = excluded.created_at
             WHERE a.state = 'claimed' AND a.leased_until < clock_timestamp()
               AND NOT EXISTS (SELECT FROM hold h WHERE h.workspace_id = a.workspace_id AND h.call_id = a.call_id AND h.state <> 'released')
        RETURNING true
        """,
        asked.workspace_id,
        asked.id,
        asked.request_hash,
        asked.call_id,
        LEASE_SECONDS,
    )
    if taken:
        return None
    row = await database.fetch_row(
        """
        SELECT a.request_hash, a.call_id, a.state, a.sealed, a.expires_at <= clock_timestamp() AS expired, a.leased_until < clock_timestamp() AS lapsed, h.state AS hold
          FROM idempotent_answer a LEFT JOIN LATERAL (SELECT h.state FROM hold h WHERE h.workspace_id = a.workspace_id AND h.call_id = a.call_id) h ON true
         WHERE a.workspace_id = $1 AND a.id = $2
        """,
        asked.workspace_id,
        asked.id,
    )
    if row is None:  # it was freed between the two statements: the next try gets it
        return Earlier(Standing.UNDER_WAY, asked.call_id)
    call_id: UUID = row["call_id"]
    if row["request_hash"] != asked.request_hash:
        return Earlier(Standing.ANOTHER_REQUEST, call_id)
    if row["state"] == IdempotentAnswerState.CLAIMED:
        # settled, and yet not answered for so long: the process that had the answer is gone
        lost = row["lapsed"] and row["hold"] == "settled"
        return Earlier(Standing.GONE if lost else Standing.UNDER_WAY, call_id)
    if row["state"] != IdempotentAnswerState.ANSWERED or row["expired"]:
        return Earlier(Standing.GONE, call_id)
    return Earlier(Standing.ANSWERED, call_id, bytes(row["sealed"]))


async def keep(asked: Claim, sealed: bytes | None) -> None:
    """Keep a call's answer for KEPT_SECONDS; None for one that is too large, whose key stays used."""
    await database.fetch(
        """
        UPDATE idempotent_answer SET state = $4, sealed = $5, expires_at = clock_timestamp() + make_interval(secs => $6)
         WHERE workspace_id = $1 AND id = $2 AND call_id = $3 AND state = 'claimed'
        """,
        asked.workspace_id,
        asked.id,
        asked.call_id,
        IdempotentAnswerState.TOO_LARGE if sealed is None else IdempotentAnswerState.ANSWERED,
        sealed,
        KEPT_SECONDS,
    )


async def given_again(workspace_id: UUID, call_id: UUID) -> None:
    """Count that a call's answer is given another time, free of charge."""
    await database.fetch(
        """
        INSERT INTO replay AS r (workspace_id, call_id, replays) VALUES ($1, $2, 1)
            ON CONFLICT (workspace_id, call_id) DO UPDATE SET replays = r.replays + 1
        """,
        workspace_id,
        call_id,
    )


async def free(asked: Claim) -> None:
    """Give a key back whose call was refused, or failed before its first byte."""
    await database.fetch(
        "DELETE FROM idempotent_answer WHERE workspace_id = $1 AND id = $2 AND call_id = $3 AND state = 'claimed'", asked.workspace_id, asked.id, asked.call_id
    )


async def sweep(most: int = 500) -> int:
    """Forget answers that are past their time, and keys that are long past it; return how many answers were forgotten."""
    rows = await database.fetch(
        """
        UPDATE idempotent_answer a SET sealed = NULL, state = 'expired'
          FROM (SELECT workspace_id, id FROM idempotent_answer WHERE sealed IS NOT NULL AND expires_at <= clock_timestamp()
                 ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED) old
         WHERE a.workspace_id = old.workspace_id AND a.id = old.id RETURNING a.id
        """,
        most,
    )
    await database.fetch(
        """
        DELETE FROM idempotent_answer a
         USING (SELECT workspace_id, id FROM idempotent_answer WHERE created_at < clock_timestamp() - make_interval(secs => $2)
                 ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED) old
         WHERE a.workspace_id = old.workspace_id AND a.id = old.id
        """,
        most,
        REMEMBERED_SECONDS,
    )
    return len(rows)
