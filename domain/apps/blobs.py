"""Content of apps: kept once for each app under its SHA-256, with what it compresses to beside it."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from models import database
from models.ids import uuid7

GRACE_SECONDS = 24 * 3600
"""How long content that no version needs is kept, so that a deployment under way never loses what it counted on."""
ENCODINGS = ("br", "gzip")


class Store(Protocol):
    """What keeps objects."""

    async def put(self, key: str, content: bytes | AsyncIterable[bytes]) -> None:
        """Write an object whole, or raise Unavailable."""

    async def put_new(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one: False; or raise Unavailable."""

    async def get(self, key: str) -> bytes | None:
        """Return an object, None when there is none."""

    def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Give a part of an object, piece by piece."""

    async def size(self, key: str) -> int | None:
        """Return an object's size, None when there is none."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Take objects away."""

    async def upload_address(self, key: str, *, seconds: int) -> str | None:
        """Return an address to send an object to, None when only we can write."""


class Compressor(Protocol):
    """What makes content smaller."""

    def smaller(self, content: bytes) -> tuple[bytes | None, bytes | None]:
        """Return content in gzip and in brotli, None for one that is not worth it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that is whole in the store; sizes in bytes, None for an encoding that is not kept."""

    id: UUID
    app_id: UUID
    sha256: str
    bytes: int
    gzip_bytes: int | None
    brotli_bytes: int | None

    def key(self, encoding: str | None = None) -> str:
        """Return where it lies: as it is, or in an encoding."""
        return blob_key(self.app_id, self.sha256, self.id, encoding)


def blob_key(app_id: UUID, sha256: str, blob_id: UUID, encoding: str | None = None) -> str:
    """Return the key of content: that of another app is another object, so that knowing a digest gives nobody the content."""
    ending = "" if encoding is None else f".{encoding}"
    return f"blobs/{app_id}/{sha256}/{blob_id}{ending}"


def staging_key(deployment_id: UUID, sha256: str) -> str:
    """Return where content waits that was sent and is not proved yet."""
    return f"uploads/{deployment_id}/{sha256}"


async def held(workspace_id: UUID, app_id: UUID, digests: Sequence[str]) -> dict[str, UUID]:
    """Return the ids of the app's whole content by digest, and keep it from being collected for another grace."""
    rows = await database.fetch(
        """
        UPDATE blob SET touched_at = clock_timestamp() WHERE workspace_id = $1 AND app_id = $2 AND sha256 = ANY ($3) AND stored_at IS NOT NULL
           AND collected_at IS NULL RETURNING sha256, id
        """,
        workspace_id,
        app_id,
        list(digests),
    )
    return {row["sha256"]: row["id"] for row in rows}


async def keep(store: Store, workspace_id: UUID, app_id: UUID, sha256: str, content: bytes, smaller: tuple[bytes | None, bytes | None]) -> UUID:
    """Keep content and what it compresses to, and return its id. The row comes first, so that nothing lies in the store that no row knows."""
    assert hashlib.sha256(content).hexdigest() == sha256, "content is proved before it is kept"
    compressed_gzip, compressed_brotli = smaller
    row = await database.fetch_row(
        """
        INSERT INTO blob AS b (workspace_id, id, app_id, sha256, bytes, touched_at) VALUES ($1, $2, $3, $4, $5, clock_timestamp())
            ON CONFLICT (workspace_id, app_id, sha256) WHERE collected_at IS NULL DO UPDATE SET touched_at = excluded.touched_at
        RETURNING id, stored_at
        """,
        workspace_id,
        uuid7(),
        app_id,
        sha256,
        len(content),
    )
    assert row is not None
    blob_id: UUID = row["id"]
    if row["stored_at"] is not None:
        return blob_id
    await store.put_new(blob_key(app_id, sha256, blob_id), content)  # another attempt may have brought it already, and its digest says that it is the same
    for encoding, encoded in (("gzip", compressed_gzip), ("br", compressed_brotli)):
        if encoded is not None:  # over what another attempt left: only what this one measures is what it says
            await store.put(blob_key(app_id, sha256, blob_id, encoding), encoded)
    await database.fetch(
        "UPDATE blob SET stored_at = clock_timestamp(), gzip_bytes = $3, brotli_bytes = $4 WHERE workspace_id = $1 AND id = $2 AND collected_at IS NULL",
        workspace_id,
        blob_id,
        None if compressed_gzip is None else len(compressed_gzip),
        None if compressed_brotli is None else len(compressed_brotli),
    )
    return blob_id


async def collect(store: Store, *, grace_seconds: int = GRACE_SECONDS, most: int = 500) -> int:
    """Take away content that no version has needed for the grace, and return how much was; safe to stop anywhere, and to run twice at once.

    A row is marked first, for good: the same content sent again is a row, and an object, of its own.
    """
    await database.fetch(
        """
        UPDATE blob b SET collected_at = clock_timestamp()
          FROM (SELECT c.workspace_id, c.id FROM blob c JOIN app a ON a.workspace_id = c.workspace_id AND a.id = c.app_id
                 WHERE c.collected_at IS NULL AND c.touched_at < clock_timestamp() - make_interval(secs => $1)
                   AND (a.deleted_at < clock_timestamp() - make_interval(secs => $1)
                        OR NOT EXISTS (SELECT FROM deployed_file f JOIN deployment d ON d.workspace_id = f.workspace_id AND d.id = f.deployment_id
                                        WHERE f.workspace_id = c.workspace_id AND d.app_id = c.app_id AND f.sha256 = c.sha256
                                          AND d.status NOT IN ('failed', 'cancelled')))
                 LIMIT $2 FOR UPDATE OF c SKIP LOCKED) gone
         WHERE b.workspace_id = gone.workspace_id AND b.id = gone.id
        """,
        float(grace_seconds),
        most,
    )
    rows = await database.fetch("SELECT workspace_id, id, app_id, sha256 FROM blob WHERE collected_at IS NOT NULL AND erased_at IS NULL LIMIT $1", most)
    for row in rows:
        await store.delete([blob_key(row["app_id"], row["sha256"], row["id"], encoding) for encoding in (None, *ENCODINGS)])
        await database.fetch("UPDATE blob SET erased_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2", row["workspace_id"], row["id"])
    return len(rows)
