"""What visitors of an app are served: read by the hosting, which knows nothing else of us."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from domain.apps.addresses import Site
from domain.apps.blobs import Blob
from models import database


@dataclass(frozen=True, slots=True)
class Served:
    """An app as it is served at one instant; `deployment_id` is None before anything was deployed."""

    workspace_id: UUID
    app_id: UUID
    slug: str
    suspended: bool
    manifest: str
    deployment_id: UUID | None


@dataclass(frozen=True, slots=True)
class SiteFile:
    """A file of a deployment, whose content is whole."""

    path: str
    content_type: str
    blob: Blob


_LIVE = """
    SELECT n.slug, NULL::int AS version, a.workspace_id, a.id, a.suspended_at IS NOT NULL AS suspended, a.manifest::text AS manifest, a.live_deployment_id AS shown
      FROM app_name n JOIN app a ON a.workspace_id = n.workspace_id AND a.id = n.app_id AND a.deleted_at IS NULL WHERE n.slug = ANY ($1)
"""
_VERSION = """
    SELECT n.slug, d.version, a.workspace_id, a.id, a.suspended_at IS NOT NULL AS suspended, a.manifest::text AS manifest, d.id AS shown
      FROM unnest($2::text[], $3::int[]) AS w (slug, version) JOIN app_name n ON n.slug = w.slug
      JOIN app a ON a.workspace_id = n.workspace_id AND a.id = n.app_id AND a.deleted_at IS NULL
      JOIN deployment d ON d.workspace_id = a.workspace_id AND d.app_id = a.id AND d.version = w.version AND d.status = 'succeeded'
"""


FRESH_SECONDS = 0.05
"""How old an answer of the database may be that visitors are served by, counted from before it was asked for."""
AHEAD_SECONDS = 0.03
"""How old it is when it is asked for anew, for those who come next."""
MOST_KNOWN = 10_000

_moves = 0


async def moved() -> None:
    """Note that what an app shows has changed, for after the commit, and wait until no process shows what was before.

    In this process the next request sees it; others serve by what they asked for less than FRESH_SECONDS ago.
    """
    global _moves  # one number for all hostings of a process: what was known before it counts no more
    _moves += 1
    await asyncio.sleep(FRESH_SECONDS)


@dataclass(frozen=True, slots=True)
class _Known:
    served: Served | None
    asked_at: float
    moves: int


class Sites:
    """Finds what a name shows now, by an answer that is at most FRESH_SECONDS old. Questions that come while one is under way wait and go together."""

    def __init__(self) -> None:
        self._known: dict[Site, _Known] = {}
        self._waiting: dict[Site, asyncio.Future[Served | None]] = {}
        self._turn: asyncio.Task[None] | None = None

    def known(self, site: Site) -> Served | None:
        """Return what a name shows as far as it is known just now, the same object for as long as it is the same; None when the database has to be asked."""
        found = self._known.get(site)
        if found is None or found.moves != _moves:
            return None
        age = time.monotonic() - found.asked_at
        if age > AHEAD_SECONDS:
            if age > FRESH_SECONDS:
                return None
            if site not in self._waiting:
                self._ask(site)
        return found.served

    async def find(self, site: Site) -> Served | None:
        """Return what a name shows; None when there is no such app or version. Raises what the driver raises when the database is away."""
        return self.known(site) or await self.look(site)

    async def look(self, site: Site) -> Served | None:
        """Return what a name shows by an answer that is not older than this question."""
        return await asyncio.shield(self._waiting.get(site) or self._ask(site))

    def _ask(self, site: Site) -> "asyncio.Future[Served | None]":
        future = self._waiting[site] = asyncio.get_running_loop().create_future()
        if self._turn is None or self._turn.done():
            self._turn = asyncio.create_task(self._answer())
        return future

    async def _answer(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            asked_at, moves = time.monotonic(), _moves
            try:
                found = await _find(list(asked))
            except Exception as error:
                for future in asked.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # every asker hears of it; one that has left is not reported as forgotten
                continue
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
            for site, future in asked.items():
                served, before = found.get(site), self._known.get(site)
                if before is not None and before.served == served:
                    served = before.served
                self._known[site] = _Known(served, asked_at, moves)
                if not future.done():
                    future.set_result(served)


async def _find(asked: list[Site]) -> dict[Site, Served]:
    versions = [site for site in asked if site.version is not None]
    live = [site.slug for site in asked if site.version is None]
    if versions:
        rows = await database.fetch(f"{_LIVE} UNION ALL {_VERSION}", live, [site.slug for site in versions], [site.version for site in versions])
    else:
        rows = await database.fetch(_LIVE, live)
    return {
        Site(row["slug"], row["version"]): Served(row["workspace_id"], row["id"], row["slug"], row["suspended"], row["manifest"], row["shown"]) for row in rows
    }


async def files_of(served: Served) -> dict[str, SiteFile]:
    """Return the files of what is served, by path; they never change."""
    rows = await database.fetch(
        """
        SELECT f.path, f.content_type, b.id, b.app_id, b.sha256, b.bytes, b.gzip_bytes, b.brotli_bytes FROM deployed_file f
          JOIN blob b ON b.workspace_id = f.workspace_id AND b.id = f.blob_id WHERE f.workspace_id = $1 AND f.deployment_id = $2
        """,
        served.workspace_id,
        served.deployment_id,
    )
    return {
        row["path"]: SiteFile(
            row["path"], row["content_type"], Blob(row["id"], row["app_id"], row["sha256"], row["bytes"], row["gzip_bytes"], row["brotli_bytes"])
        )
        for row in rows
    }


async def earlier_file(served: Served, path: str) -> SiteFile | None:
    """Return a file of the newest earlier version that has it: a page that was loaded before a switch may still ask for it."""
    row = await database.fetch_row(
        """
        SELECT f.path, f.content_type, b.id, b.app_id, b.sha256, b.bytes, b.gzip_bytes, b.brotli_bytes FROM deployment d
          JOIN deployed_file f ON f.workspace_id = d.workspace_id AND f.deployment_id = d.id AND f.path = $3
          JOIN blob b ON b.workspace_id = f.workspace_id AND b.id = f.blob_id
         WHERE d.workspace_id = $1 AND d.app_id = $2 AND d.status = 'succeeded' ORDER BY d.version DESC LIMIT 1
        """,
        served.workspace_id,
        served.app_id,
        path,
    )
    if row is None:
        return None
    blob = Blob(row["id"], row["app_id"], row["sha256"], row["bytes"], row["gzip_bytes"], row["brotli_bytes"])
    return SiteFile(row["path"], row["content_type"], blob)


def manifest_of(served: Served) -> dict[str, Any]:
    """Return the manifest of what is served."""
    decoded: dict[str, Any] = msgspec.json.decode(served.manifest)
    return decoded
