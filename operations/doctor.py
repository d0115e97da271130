"""An examination of the installation: what is configured, reachable, out of date, unsafe."""

import asyncio
import os
import smtplib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import asyncpg
import click
from redis.asyncio import Redis
from redis.exceptions import RedisError

import configuration
from clients.mail import Mail
from clients.storage import Storage
from console.build import DIST
from domain.errors import Unavailable
from domain.money.processor import ProcessorFailed
from models import config as database_config
from models.database import UNREACHABLE
from models.ids import uuid7
from operations import database
from runtime import load_tiers, storage
from settings import VERSION, Settings, SettingsError, load

UPSTREAM_SECONDS = 5.0


class Verdict(StrEnum):
    """How serious a finding is."""

    GOOD = "ok"
    NOTE = "note"
    REPAIR = "REPAIR"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    text: str


async def examine() -> int:
    """Print every finding; return 1 when something must be repaired."""
    click.echo(f"tallygate {VERSION}")
    repairs = 0
    async for finding in findings():
        click.echo(f"{finding.verdict.value:>6}  {finding.text}")
        repairs += finding.verdict is Verdict.REPAIR
    return 1 if repairs else 0


async def findings() -> AsyncIterator[Finding]:
    """Give each finding as it is made."""
    try:
        settings = load()
    except SettingsError as error:
        for line in str(error).splitlines():
            yield Finding(Verdict.REPAIR, f"environment: {line}")
        return
    yield Finding(Verdict.GOOD, "the environment is complete")
    try:
        file = configuration.load_configuration(settings.config)
        for name, entry in file.upstreams.items():
            entry.key()
            plain = entry.url.startswith("http://") and not any(host in entry.url for host in ("127.0.0.1", "localhost", "[::1]"))
            away = await _unreachable(entry.url)
            said = f"upstream {name}: {entry.dialect}, " + ("answers" if away is None else f"cannot be reached: {away}") + (", over plain http" if plain else "")
            yield Finding(Verdict.REPAIR if plain or away else Verdict.GOOD, said)
        if not file.upstreams:
            yield Finding(Verdict.NOTE, "no upstream is configured: only the built-in model `echo` answers")
    except SettingsError as error:
        yield Finding(Verdict.REPAIR, str(error))
    try:
        load_tiers(settings.tiers)
    except SettingsError as error:
        yield Finding(Verdict.REPAIR, str(error))
    async for finding in _database(settings):
        yield finding
    yield await _queue(settings)
    yield await _store(settings)
    yield await _mail(settings)
    async for finding in _payments(settings):
        yield finding
    if settings.local_issuer and settings.host not in ("127.0.0.1", "localhost", "::1"):
        yield Finding(Verdict.REPAIR, "sessions of the local issuer are believed on a public address: set TALLYGATE_LOCAL_ISSUER=false")
    if settings.public_url.startswith("http://") and "127.0.0.1" not in settings.public_url and "localhost" not in settings.public_url:
        yield Finding(Verdict.REPAIR, "TALLYGATE_PUBLIC_URL is plain http: keys would travel in clear")
    if not (DIST / "index.html").exists():
        yield Finding(Verdict.NOTE, "the GraphiQL page is not built: python -m console.build")
    host, domain = (urlsplit(settings.public_url).hostname or "").split("."), settings.apps_domain.partition(":")[0].split(".")
    if len(domain) > 1 and host[-2:] == domain[-2:]:
        yield Finding(Verdict.NOTE, f"apps share {'.'.join(domain[-2:])} with the gateway: give APPS_DOMAIN a registrable domain of its own")
    if os.geteuid() == 0:
        yield Finding(Verdict.NOTE, "running as root")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    credentials = database_config.config(settings.database_url.get_secret_value())["connections"]["default"]["credentials"]
    try:
        connection = await asyncpg.connect(**{key: credentials[key] for key in ("host", "port", "user", "password", "database")}, timeout=5)
    except (*UNREACHABLE, asyncpg.PostgresError) as error:
        yield Finding(Verdict.REPAIR, f"the database cannot be reached: {type(error).__name__}")
        return
    try:
        version = int(await connection.fetchval("SHOW server_version_num")) // 10_000
        yield Finding(Verdict.GOOD if version >= 18 else Verdict.REPAIR, f"the database is Postgres {version}" + ("" if version >= 18 else ", and must be 18 or later"))
        strong = await connection.fetchrow("SELECT rolsuper OR rolbypassrls AS super FROM pg_roles WHERE rolname = current_user")
        if strong is not None and strong["super"]:
            yield Finding(Verdict.REPAIR, "the application's database role is a superuser: use one that cannot change the ledger")
        behind = await database.behind(settings)
        if behind:
            yield Finding(Verdict.REPAIR, f"the database is out of date ({', '.join(behind)}): run `python -m manage migrate`")
            return
        yield Finding(Verdict.GOOD, "the database is up to date")
        mutable = await connection.fetchval("SELECT has_table_privilege('transfer', 'UPDATE') OR has_table_privilege('transfer', 'DELETE')")
        yield Finding(
            Verdict.NOTE if mutable else Verdict.GOOD,
            "the application's role owns the ledger: triggers protect it, rights do not; set MIGRATION_DATABASE_URL to another role"
            if mutable
            else "the application's role may only add to the ledger",
        )
        durable = await connection.fetchval("SHOW synchronous_commit")
        if durable == "off":
            yield Finding(Verdict.REPAIR, "synchronous_commit is off: acknowledged money would be lost in a crash")
        broken = await connection.fetchval("SELECT count(*) FROM audit")
        sound = f"the books have {broken} broken invariants: python -m manage audit" if broken else "the books are sound"
        yield Finding(Verdict.REPAIR if broken else Verdict.GOOD, sound)
        stuck = await connection.fetchval("SELECT count(*) FROM job WHERE status = 'failed'")
        if stuck:
            yield Finding(Verdict.REPAIR, f"{stuck} jobs were given up")
    finally:
        await connection.close()


async def _unreachable(url: str) -> str | None:
    """Return what stands in the way of a connection to an upstream, TLS and all; None when nothing does. No request is made."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        async with asyncio.timeout(UPSTREAM_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None)
            writer.close()
    except OSError as error:
        return type(error).__name__
    return None


async def _store(settings: Settings) -> Finding:
    where = settings.storage or "the folder `files` in TALLYGATE_DATA"
    key, marks = f"doctor/{uuid7()}", (b"first", b"second")
    try:
        store: Storage = storage(settings)
        wrote = [await store.put_new(key, mark) for mark in marks]
        kept = await store.get(key)
        await store.delete([key])
    except (Unavailable, OSError) as error:
        return Finding(Verdict.REPAIR, f"files cannot be kept in {where}: {type(error).__name__}; the log above has the reason")
    if (wrote, kept) != ([True, False], marks[0]):
        return Finding(Verdict.REPAIR, f"{where} takes a second file under one name (`If-None-Match: *`): deployments need a store that does not")
    return Finding(Verdict.GOOD, f"files are kept in {where}")


async def _mail(settings: Settings) -> Finding:
    if settings.smtp_url is None:
        return Finding(Verdict.NOTE, "no SMTP_URL: mail is written to the data folder, and nobody is told")
    try:
        await Mail(settings.smtp_url.get_secret_value(), settings.mail_from, settings.data / "mail").check()
    except (OSError, smtplib.SMTPException) as error:
        return Finding(Verdict.REPAIR, f"mail cannot be sent: {type(error).__name__}")
    return Finding(Verdict.GOOD, "the mail server answers")


async def _payments(settings: Settings) -> AsyncIterator[Finding]:
    if settings.stripe_secret_key is None:
        if settings.stripe_simulator:
            yield Finding(Verdict.NOTE, "payments go to the simulator: nobody pays. Set STRIPE_SECRET_KEY")
        else:
            yield Finding(Verdict.NOTE, "payments are off: STRIPE_SECRET_KEY is not set")
        return
    from clients.stripe import Stripe  # its SDK takes a second to import

    stripe = Stripe(settings.stripe_secret_key.get_secret_value(), settings.stripe_api_url)
    try:
        await stripe.find_session("cs_doctor")  # there is none: a good key is told so
        yield Finding(Verdict.GOOD, f"Stripe answers, in {'live' if stripe.live else 'test'} mode")
    except ProcessorFailed as failed:
        yield Finding(Verdict.REPAIR, f"Stripe does not do what it is asked: {failed}")
    finally:
        await stripe.close()
    if not settings.webhook_secrets:
        yield Finding(Verdict.REPAIR, "STRIPE_WEBHOOK_SECRET is not set: Stripe's events are refused, and payments are booked late")


async def _queue(settings: Settings) -> Finding:
    client = Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5, socket_connect_timeout=5)
    try:
        await client.ping()
        return Finding(Verdict.GOOD, "the queue answers")
    except (RedisError, OSError) as error:
        return Finding(Verdict.REPAIR, f"the queue cannot be reached: {type(error).__name__}; jobs wait until it is back")
    finally:
        await client.aclose()
