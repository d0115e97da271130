"""Whether this process lives, whether it can serve, and what it is; no credential, and nothing here costs more than one look at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog

from models import database, migrate
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import Nothing, Told
from rest.shapes import PLAIN, PlainError
from runtime import Runtime
from settings import VERSION

LOOK_SECONDS = 3.0

log = structlog.get_logger()


class Alive(Told):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Parts(Told):
    """Whether the process can serve, part by part; the queue may be away, because what it would carry is in the database too."""

    status: Literal["ready", "unready"]
    database: Literal["ok", "away"]
    migrations: Literal["ok", "behind", "unknown"]
    queue: Literal["ok", "away"]


class Version(Told):
    """What runs here."""

    name: Literal["tallygate"] = "tallygate"
    version: str


class Readiness:
    """Looks at the parts of a process; requests that come together share one look, so that asking often costs nobody a connection."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._look: asyncio.Task[Parts] | None = None
        self._migrated = False

    async def look(self) -> Parts:
        """Return how the parts stand, within LOOK_SECONDS."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._parts())
        return await asyncio.shield(self._look)

    async def _parts(self) -> Parts:
        database_answers, queue_answers = await asyncio.gather(self._answers("database", self._ask_database), self._answers("queue", self._runtime.queue.ping))
        migrations: Literal["ok", "behind", "unknown"] = "unknown"
        if self._migrated or (database_answers and await self._answers("migrations", self._ask_migrations)):
            migrations = "ok" if self._migrated else "behind"
        return Parts(
            status="ready" if database_answers and migrations == "ok" else "unready",
            database="ok" if database_answers else "away",
            migrations=migrations,
            queue="ok" if queue_answers else "away",
        )

    @staticmethod
    async def _answers(part: str, look: Callable[[], Awaitable[object]]) -> bool:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await look()
        except Exception as error:  # whatever a driver raises means the same here: the part does not answer
            log.warning("part does not answer", part=part, error=type(error).__name__)
            return False
        return True

    @staticmethod
    async def _ask_database() -> None:
        await database.fetch_value("SELECT 1")

    async def _ask_migrations(self) -> None:
        """A database that was up to date with this code stays so: it is asked until then, on a connection of its own, and no more."""
        self._migrated = not await migrate.pending(self._runtime.settings.database_url.get_secret_value(), migrate.shipped())


def document(runtime: Runtime) -> Document:
    """Return the operations, for one process."""
    readiness = Readiness(runtime)

    async def alive(ask: Ask[Nothing]) -> Alive:
        return Alive()

    async def ready(ask: Ask[Nothing]) -> Parts | Reply:
        parts = await readiness.look()
        return parts if parts.status == "ready" else Reply(503, parts.model_dump_json().encode())

    async def version(ask: Ask[Nothing]) -> Version:
        return Version(version=VERSION)

    return Document(
        name="Health",
        shape=lambda headers: PLAIN,
        errors=PlainError,
        public=True,
        operations=(
            Operation("GET", "/healthz", "Whether the process lives; asks nothing else.", Nothing, Alive, alive),
            Operation("GET", "/readyz", "Whether the process can serve, part by part; 503 when it cannot.", Nothing, Parts, ready),
            Operation("GET", "/version", "What runs here.", Nothing, Version, version),
        ),
    )
