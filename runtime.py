"""What a process holds: opened once, closed once, and handed to the doors."""

import contextlib
import hashlib
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clients.bills import Account, Bills
from clients.compressor import Compressor
from clients.exports import Files
from clients.issuers import Issuer, Issuers
from clients.mail import Mail
from clients.prompts import Prompts
from clients.queue import ArqQueue
from clients.rates import Rates
from clients.storage import Storage
from clients.unpacker import Unpacker
from clients.upstream import Upstreams
from clients.webhooks import Webhooks
from configuration import ECHO, Configuration, RouterEntry, RoutingEntry, UpstreamEntry, load_configuration
from domain import duties
from domain.access import callers
from domain.access.callers import Caller, Whence
from domain.apps.addresses import Addresses
from domain.errors import InvalidInput
from domain.money import tiers
from domain.money.amounts import parse_decimal
from domain.money.catalogue import Book
from domain.money.processor import Processor
from domain.serving.calls import Calls
from domain.serving.routers import Router, Rule
from domain.serving.routing import Routes, Upstream, Waits
from domain.serving.smoothing import Rate, Smoother
from domain.usage.cache_doctor import Doctor
from embedded import echo
from models import database
from settings import Settings, SettingsError

SHIPPED_TIERS = Path(__file__).parent / "operations" / "tiers.toml"
VENDORS = {"anthropic": "anthropic", "openai": "openai"}


SIMULATOR_PATH = "/stripe-simulator"
"""Where the process serves the simulator that it uses itself."""
SIMULATOR_KEY = "sk_test_simulator"
COUNTS_EASE = 10
"""How many times more often than it calls a key may count tokens: tools count a whole conversation at once, and it costs nobody anything."""
PUBLIC_TOKENS = Rate(0.2, 30)
"""Tokens that an app hands to one address without knowing who is there: thirty at once, then one in five seconds."""
WEBHOOK_PATH = "/webhooks/stripe"


@dataclass(frozen=True, slots=True)
class Payments:
    """Stripe as this process has it: its client, the secrets that sign its webhooks, and the simulator when that stands in for it."""

    processor: Processor
    webhook_secrets: tuple[str, ...]
    simulator: Any = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that outlives a request; every field is open for as long as the process serves."""

    settings: Settings
    book: Book
    calls: Calls
    routes: Routes
    upstreams: Upstreams
    issuers: Issuers
    queue: ArqQueue
    mail: Mail
    webhooks: Webhooks
    smoothing: Smoother
    counting: Smoother
    minting: Smoother
    store: Storage
    files: Files
    compressor: Compressor
    unpacker: Unpacker
    addresses: Addresses
    doctor: Doctor
    bills: Bills
    payments: Payments | None = None

    @staticmethod
    def clock() -> datetime:
        """Return this instant, in UTC: where time enters."""
        return datetime.now(UTC)

    async def identify(self, credential: str | None, workspace: str | None, whence: Whence) -> Caller | None:
        """Return who calls now; see `domain.access.callers.identify`."""
        open_signup = self.settings.signup == "open"
        return await callers.identify(credential, workspace, sessions=self.issuers, open_signup=open_signup, at=self.clock(), whence=whence)


def upstream_of(name: str, entry: UpstreamEntry, routing: RoutingEntry) -> Upstream:
    """Return an upstream as the configuration has it; raises SettingsError when its key is not in the environment."""
    key = entry.key()
    return Upstream(
        name=name,
        dialect=entry.dialect,
        url=entry.url,
        auth=entry.auth or ("x-api-key" if entry.dialect == "anthropic" else "bearer"),
        key=None if key is None else key.get_secret_value(),
        models=entry.models,
        vendor=VENDORS[entry.dialect],
        rename=dict(entry.rename),
        priority=entry.priority,
        weight=entry.weight,
        enabled=entry.enabled,
        requests_per_minute=entry.requests_per_minute,
        tokens_per_minute=entry.tokens_per_minute,
        waits=Waits(
            entry.connect_seconds or routing.connect_seconds, entry.first_byte_seconds or routing.first_byte_seconds, entry.idle_seconds or routing.idle_seconds
        ),
        forms=entry.forms,
    )


def _bill_accounts(configuration: Configuration) -> dict[str, Account]:
    keys = {name: entry.bill_key() for name, entry in configuration.upstreams.items()}
    return {name: Account(entry.dialect, entry.url, key.get_secret_value()) for name, entry in configuration.upstreams.items() if (key := keys[name])}


def _router(entry: RouterEntry) -> Router:
    rules = tuple(
        Rule(
            model=rule.model,
            weight=rule.weight,
            above_input_tokens=rule.above_input_tokens,
            up_to_input_tokens=rule.up_to_input_tokens,
            tools=rule.tools,
            images=rule.images,
            up_to_picousd=None if rule.up_to_usd is None else parse_decimal(rule.up_to_usd, places=12),
        )
        for rule in entry.targets
    )
    return Router(entry.name, entry.display_name or entry.name, entry.choose, rules)


def storage(settings: Settings) -> Storage:
    """Return where files are kept: a bucket, or without one a folder of this machine."""
    if settings.storage is None:
        return Storage.in_folder(settings.data / "files")
    bucket, _, prefix = settings.storage.removeprefix("s3://").partition("/")
    secret = settings.s3_secret_access_key
    return Storage.in_bucket(
        bucket,
        prefix.strip("/"),
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        key_id=settings.s3_access_key_id,
        secret=secret.get_secret_value() if secret else None,
        reachable=settings.uploads == "store",
    )


def addresses(settings: Settings) -> Addresses:
    """Return where apps are served: with the gateway's scheme, and on its port where nothing else is said."""
    public = urlsplit(settings.public_url)
    domain, _, port = settings.apps_domain.partition(":")
    beside = public.port if domain == "localhost" else None
    return Addresses(public.scheme, domain, int(port) if port else beside)


def _echo(url: str, dialect: str) -> Upstream:
    return Upstream(name=ECHO, dialect=dialect, url=url, auth="bearer", key=None, models=(ECHO,), vendor=None, rename={})


def load_tiers(path: Path | None) -> tuple[tiers.Tier, ...]:
    """Read the tiers file, the shipped one for None; raises SettingsError that names the entry at fault."""
    try:
        return tiers.tiers_of(tomllib.loads((path or SHIPPED_TIERS).read_text()))
    except OSError as error:
        raise SettingsError(f"TALLYGATE_TIERS, {path}, cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"TALLYGATE_TIERS is no TOML: {error}") from None
    except InvalidInput as refusal:
        raise SettingsError(f"TALLYGATE_TIERS: {refusal.message}") from None


@contextlib.asynccontextmanager
async def _open_payments(settings: Settings, *, serving: bool) -> AsyncIterator[Payments | None]:
    """Open Stripe's client: with the account's key, or with the simulator, which the serving process itself serves; None where neither is configured."""
    if settings.stripe_secret_key is None and not settings.stripe_simulator:
        yield None
        return
    from clients.stripe import Stripe  # its SDK takes a second to import, which no command without payments shall wait for

    if settings.stripe_secret_key is not None:
        stripe = Stripe(settings.stripe_secret_key.get_secret_value(), settings.stripe_api_url)
        try:
            yield Payments(stripe, settings.webhook_secrets)
        finally:
            await stripe.close()
        return
    from embedded.stripe.server import simulating

    # every process of the installation knows the secret, and no stranger does
    secret = "whsec_" + hashlib.sha256(b"stripe simulator " + settings.secret.get_secret_value().encode()).hexdigest()
    here = f"http://127.0.0.1:{settings.port}"
    stripe = Stripe(SIMULATOR_KEY, here + SIMULATOR_PATH)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(stripe.close)
        simulator = None
        if serving:
            pages, keep = settings.public_url.rstrip("/") + SIMULATOR_PATH, settings.data / "stripe-simulator.json"
            simulator = await stack.enter_async_context(simulating(pages, here + WEBHOOK_PATH, secret, keep))
        yield Payments(stripe, (secret,), simulator)


@contextlib.asynccontextmanager
async def open_runtime(settings: Settings, *, serving: bool) -> AsyncIterator[Runtime]:
    """Open what a process holds: all of it for one that serves, without upstreams of its own for a worker or a command.

    Raises SettingsError for a bad configuration file, and what the driver raises when the database is away.
    """
    configuration: Configuration = load_configuration(settings.config)
    offered = load_tiers(settings.tiers)
    upstreams = [upstream_of(name, entry, configuration.routing) for name, entry in configuration.upstreams.items()] if serving else []
    async with contextlib.AsyncExitStack() as stack:
        await database.open_pool(settings.database_url.get_secret_value(), pool=settings.database_pool)
        stack.push_async_callback(database.close_pool)
        await tiers.keep(offered, at=datetime.now(UTC))
        book = Book()
        await book.refresh()
        if serving and settings.echo:
            url = await stack.enter_async_context(echo.serve())
            upstreams += [_echo(url, "anthropic"), _echo(url, "openai")]
        clients = Upstreams()
        stack.push_async_callback(clients.close)
        queue = ArqQueue(settings.redis_url.get_secret_value())
        stack.push_async_callback(queue.close)
        duties.connect(queue)
        stack.callback(duties.connect, None)
        payments = await stack.enter_async_context(_open_payments(settings, serving=serving))
        shared = Rates(settings.redis_url.get_secret_value())
        stack.push_async_callback(shared.close)
        rate = Rate(settings.rate_per_second, settings.rate_burst) if settings.rate_per_second else None
        smoothing = Smoother("requests", rate, shared)
        counting = Smoother("counts", None if rate is None else Rate(rate.per_second * COUNTS_EASE, rate.burst * COUNTS_EASE), shared)
        minting = Smoother("tokens", PUBLIC_TOKENS, shared, refusal="Too many tokens for one address; try again in a moment.")
        for smoother in (smoothing, counting, minting):
            stack.push_async_callback(smoother.close)
        calls = Calls(book, batch=settings.batch, hold_seconds=settings.hold_seconds)
        stack.push_async_callback(calls.close)
        prompts = Prompts(settings.redis_url.get_secret_value())
        stack.push_async_callback(prompts.close)
        doctor = Doctor(book, prompts, settings.secret.get_secret_value())
        stack.push_async_callback(doctor.close)
        yield Runtime(
            settings=settings,
            book=book,
            calls=calls,
            routes=Routes(book, upstreams, [_router(entry) for entry in configuration.routers], tries=configuration.routing.tries),
            upstreams=clients,
            issuers=Issuers(
                [Issuer(entry.url, entry.audience, entry.algorithm, entry.jwks_url) for entry in configuration.issuers],
                local_secret=settings.secret.get_secret_value() if settings.local_issuer else None,
            ),
            queue=queue,
            mail=Mail(settings.smtp_url.get_secret_value() if settings.smtp_url else None, settings.mail_from, settings.data / "mail"),
            payments=payments,
            smoothing=smoothing,
            counting=counting,
            minting=minting,
            store=storage(settings),
            files=Files(),
            compressor=Compressor(),
            unpacker=Unpacker(),
            addresses=addresses(settings),
            doctor=doctor,
            bills=Bills(_bill_accounts(configuration)),
            webhooks=Webhooks(private_allowed=settings.webhooks_private),
        )

