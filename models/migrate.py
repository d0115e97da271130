"""Bringing a database up to date: Tortoise's migrations behind a lock, then functions, partitions and the rights of the application's role."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.connection import get_connection
from tortoise.migrations.executor import MigrationExecutor, MigrationTarget
from tortoise.migrations.graph import MigrationKey
from tortoise.migrations.schema_generator.state import ModelState, State
from tortoise.migrations.schema_generator.state_apps import StateApps

from models.config import config

LOCK = 7_155_419_225
"""Two `migrate` at once on an empty database would break each other; the second waits, and finds nothing to do."""
PARTITIONED = ("call", "hold", "attempt", "usage_event")
MONTHS = 4
"""This month's partitions are made here, and those of the next three; the worker then makes them ahead."""
APPEND_ONLY = ("transfer", "price", "call", "usage_event", "attempt", "audit_event")
MIGRATIONS = "tortoise_migrations"


PATIENT = {"statement_timeout": "0"}
"""A migration that reads or indexes a large table takes as long as it takes; the bound on waits for locks holds for it too."""


class _Tables(StateApps):
    """The models as a migration sees them: to write DDL, never to ask for rows, so that no queries are made ready (two thirds of a migration's time)."""

    def _build_initial_querysets(self) -> None:
        pass


class _Before(State):
    """The tables before an operation, whose classes are made only if the operation looks at them: few do, and Tortoise would make all for each."""

    def __init__(self, models: dict[tuple[str, str], ModelState], after: _Tables) -> None:
        self.models = models
        self._after = after
        self._apps: StateApps | None = None

    @property
    def apps(self) -> StateApps:  # type: ignore[override]  # a field there, made when it is first read here
        """The models' classes."""
        if self._apps is None:
            self._apps = self._after.clone(model_states=self.models)
        return self._apps


class _Now(State):
    """The tables as they are, changed by each operation."""

    def clone(self) -> State:
        """Return them as they are before an operation."""
        assert isinstance(self.apps, _Tables)
        return _Before({key: model.clone() for key, model in self.models.items()}, self.apps)


class _Executor(MigrationExecutor):
    """Tortoise's own, forward only, in a tenth of its time."""

    async def _project_state(self, applied: set[MigrationKey], *, upto: MigrationKey | None = None) -> State:
        state = _Now(models={}, apps=_Tables(default_connections={label: app["default_connection"] for label, app in self.loader.apps_config.items()}))
        for key in self._full_plan():
            migration = self.loader.graph.nodes[key]
            if key in applied and migration is not None:
                await migration.apply(state, dry_run=True)
        return state


async def _connect(url: str) -> asyncpg.Connection:
    credentials = config(url)["connections"]["default"]["credentials"]
    connection: asyncpg.Connection = await asyncpg.connect(
        host=credentials["host"],
        port=credentials["port"],
        user=credentials["user"],
        password=credentials["password"],
        database=credentials["database"],
        timeout=10,
        server_settings=PATIENT,
    )
    return connection


async def migrate(owner_url: str, application_url: str, functions: Sequence[tuple[str, str]]) -> None:
    """Bring the database up to date as its owner; safe to repeat, and to run twice at once.

    `functions` are name and text of each SQL file to install. The application's role, if it is another, may read and write what the doors
    need, and on the append-only tables only add.
    """
    connection = await _connect(owner_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        settings = config(owner_url, pool=2)
        settings["connections"]["default"]["credentials"]["server_settings"] |= PATIENT
        await Tortoise.init(config=settings, init_connections=False)
        await _Executor(get_connection("default"), settings["apps"]).migrate([MigrationTarget(label, "__latest__") for label in settings["apps"]])
        await Tortoise.close_connections()
        async with connection.transaction():
            for _, text in functions:
                await connection.execute(text)
            await connection.execute("SELECT partitions_1(now(), $1)", MONTHS)
            role = unquote(urlsplit(application_url).username or "")
            owner = await connection.fetchval("SELECT current_user")
            if role and role != owner:
                await _grant(connection, role)
    finally:
        await connection.close()


async def _grant(connection: asyncpg.Connection, role: str) -> None:
    name = '"' + role.replace('"', '""') + '"'
    await connection.execute(f"GRANT USAGE ON SCHEMA public TO {name}")
    await connection.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}")
    await connection.execute(f"REVOKE DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public FROM {name}")
    # the fold takes from its queue; a key whose call was refused is free again; a process that is gone is forgotten; what a call's prompt
    # cache missed is forgotten with the call, whose answer a provider kept when it is kept no more; nothing else is ever deleted
    await connection.execute(f"GRANT DELETE ON usage_pending, idempotent_answer, upstream_health, cache_miss, kept_answer TO {name}")
    rows = await connection.fetch(
        "SELECT relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND relname ~ $1",
        "^(" + "|".join(APPEND_ONLY) + ")(_default|_y[0-9]+m[0-9]+)?$",
    )
    for row in rows:
        await connection.execute(f'REVOKE UPDATE ON "{row["relname"]}" FROM {name}')
    await connection.execute(f"REVOKE INSERT, UPDATE ON {MIGRATIONS} FROM {name}")
    await connection.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {name}")


async def pending(url: str, heads: Sequence[str]) -> list[str]:
    """Return the names of migrations that the database lacks; all of them for one that was never migrated."""
    connection = await _connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass($1)", f"public.{MIGRATIONS}") is None:
            return list(heads)
        done = {row["name"] for row in await connection.fetch(f"SELECT name FROM {MIGRATIONS}")}
    finally:
        await connection.close()
    return [name for name in heads if name not in done]


def shipped() -> list[str]:
    """Return the names of the migrations in this code, in order."""
    return sorted(path.stem for path in (Path(__file__).parent / "migrations").glob("*.py") if re.match(r"\d{4}_", path.stem))
