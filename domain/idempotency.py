"""Doing a thing once for each idempotency key, in the transaction of the thing itself."""

import hashlib
from uuid import UUID

import msgspec

from domain.errors import IdempotencyConflict, InvalidInput
from models import database

LONGEST_KEY = 240
"""A transfer's reference is a key with a word before it, and has at most 255 characters."""


async def claim(scope_id: UUID, operation: str, key: str, input_: object, subject_id: UUID) -> UUID | None:
    """Claim `key` for `subject_id`, or return the subject that claimed it first.

    Call it inside the transaction that makes the subject: a second request with the same key then waits for the first to commit. The
    scope is the workspace, or the person where there is none yet. Raises IdempotencyConflict when the input differs, InvalidInput when
    the key is empty or too long.
    """
    if not 1 <= len(key) <= LONGEST_KEY or "\x00" in key:
        raise InvalidInput(f"An idempotency key has 1 to {LONGEST_KEY} characters.", path=("idempotencyKey",))
    digest = hashlib.sha256(msgspec.json.encode(input_)).hexdigest()
    row = await database.fetch_row(
        """
        INSERT INTO idempotency (scope_id, operation, key, input_hash, subject_id, created_at) VALUES ($1, $2, $3, $4, $5, clock_timestamp())
            ON CONFLICT (scope_id, operation, key) DO NOTHING RETURNING subject_id
        """,
        scope_id,
        operation,
        key,
        digest,
        subject_id,
    )
    if row:
        return None
    first = await database.fetch_row(
        "SELECT input_hash, subject_id FROM idempotency WHERE scope_id = $1 AND operation = $2 AND key = $3", scope_id, operation, key
    )
    assert first is not None, "a claimed idempotency key is never deleted while its scope lives"
    if first["input_hash"] != digest:
        raise IdempotencyConflict
    subject: UUID = first["subject_id"]
    return subject
