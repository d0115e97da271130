"""Bringing a database up to date: Tortoise's migrations behind a lock, then functions, partitions and the rights of the application's role."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.migrations.api import migrate as run_migrations

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
        await run_migrations(config=settings)
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
