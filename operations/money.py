"""Credit, prices and the audit, by command."""

import asyncio
import sys
import tomllib
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from domain.access import workspaces
from domain.access.callers import Actor
from domain.errors import InvalidInput, Refusal
from domain.money import catalogue, entries, ledger, renewals, topups
from domain.money.amounts import parse_decimal, usd
from domain.money.books import CHECKS, named
from domain.money.catalogue import ModelEntry, make_row
from models.enums import ActorKind, Bucket
from models.ids import uuid7
from runtime import open_runtime
from settings import Settings

GENAI_BUCKETS = {
    "input_mtok": Bucket.UNCACHED_INPUT,
    "output_mtok": Bucket.OUTPUT,
    "cache_read_mtok": Bucket.CACHE_READ,
    "cache_write_mtok": Bucket.CACHE_WRITE_5M,
    "input_audio_mtok": Bucket.AUDIO_INPUT,
    "output_audio_mtok": Bucket.AUDIO_OUTPUT,
}


async def credit(settings: Settings, workspace_id: UUID, dollars: str, reason: str, actor: str, ref: str | None) -> str:
    """Add dollars to a workspace's balance and say what it is now."""
    try:
        amount = parse_decimal(dollars, places=6)
    except ValueError as error:
        raise InvalidInput(f"The amount is {error}; write dollars such as 25 or 12.50.") from None
    async with open_runtime(settings, serving=False):
        await workspaces.find(workspace_id)
        # one that repeats gets the transfer of the first time: it must be the same wish
        transfer = await ledger.give(workspace_id, amount, reason, ref or str(uuid7()), Actor(ActorKind.OPERATOR, None, actor))
        if transfer.amount != amount:
            raise InvalidInput(f"The ref {ref} was used before, for {usd(transfer.amount)} USD: nothing was added.")
        balance = await ledger.balance(workspace_id)
        return f"transfer {transfer.id}: {usd(transfer.amount)} USD; the balance is {usd(balance.balance)} USD"


async def import_prices(
    settings: Settings, path: Path | None, vendor: str | None, models: tuple[str, ...], effective_from: datetime | None, *, dry_run: bool
) -> None:
    """Enter price versions from a file or from the genai-prices package, with progress on standard error."""
    if path is not None:
        try:
            entries = list(catalogue.entries_of(tomllib.loads(await asyncio.to_thread(path.read_text), parse_float=Decimal)))
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"{path.name} is no TOML: {error}") from None
        source = f"file {path.name}"
    else:
        assert vendor is not None
        entries, source = await asyncio.to_thread(_genai_entries, vendor, models)
    now = datetime.now(UTC)
    entered = 0
    async with open_runtime(settings, serving=False):
        with click.progressbar(entries, label="prices", file=sys.stderr) as progress:
            for entry in progress:
                if dry_run:
                    rows = ", ".join(f"{row.bucket.value} {row.usd}" for row in entry.rows)
                    click.echo(f"{entry.name}: {rows}")
                elif await catalogue.enter(
                    entry, source=source, effective_from=effective_from or now, actor=Actor(ActorKind.OPERATOR, None, "manage.py prices import"), at=now
                ):
                    entered += 1
    click.echo(f"{entered} of {len(entries)} models have a new price version" if not dry_run else f"{len(entries)} models; nothing was entered")


def _genai_entries(vendor: str, models: tuple[str, ...]) -> tuple[list[ModelEntry], str]:
    # A large table in memory: it is for this command, and never imported by a server.
    from genai_prices.data import providers

    provider = next((provider for provider in providers if provider.id == vendor), None)
    if provider is None:
        raise InvalidInput(f"genai-prices knows no vendor {vendor}: one of {', '.join(sorted(provider.id for provider in providers))}.")
    entries = []
    for model in provider.models:
        if models and model.id not in models:
            continue
        rows = _genai_rows(model)
        if rows:
            entries.append(
                ModelEntry(name=model.id, display_name=model.name or model.id, vendor=vendor, rows=tuple(rows), context_window=model.context_window)
            )
    missing = set(models) - {entry.name for entry in entries}
    if missing:
        raise InvalidInput(f"genai-prices has no price for {', '.join(sorted(missing))}.")
    return entries, f"genai-prices {vendor}"


def _genai_rows(model: Any) -> list[catalogue.PriceRow]:
    conditional = model.prices if isinstance(model.prices, list) else None
    price = conditional[-1].prices if conditional else model.prices
    rows = []
    for field, bucket in GENAI_BUCKETS.items():
        value = getattr(price, field, None)
        if value is None:
            continue
        tiers = getattr(value, "tiers", None)
        base = value.base if tiers is not None else value
        rows.append(make_row(bucket, _text(base)))
        rows += [make_row(bucket, _text(tier.price), above_input_tokens=tier.start) for tier in tiers or ()]
    return rows


def _text(value: Decimal) -> str:
    return f"{Decimal(value):f}"


async def audit(settings: Settings) -> int:
    """Read Stripe's entries where payments are on, and print every check of the books and every row that breaks one; return how many there are."""
    async with open_runtime(settings, serving=False) as runtime:
        if runtime.payments is not None:
            try:
                await entries.read(runtime.payments.processor, at=runtime.clock())
            except Refusal as refusal:
                click.echo(f"what Stripe lists could not be read, so this is as of the last time: {refusal.message}", err=True)
        broken = await ledger.audit()
    tally = Counter(row.broken for row in broken)
    for words in (*CHECKS, *(words for words in tally if words not in CHECKS)):
        name, promise = named(words)
        click.echo(f"{f'{tally[words]} broken' if tally[words] else 'sound'}: {name}: {promise}")
    for row in broken:
        difference = "" if row.difference_microusd is None else f", off by {usd(row.difference_microusd)} USD"
        where = "at Stripe" if row.workspace_id is None else f"workspace {row.workspace_id}"
        click.echo(f"{row.broken}: {where}, {row.subject}{difference}")
    click.echo(f"{len(broken)} broken" if broken else "the books are sound")
    return len(broken)


async def sync_stripe(settings: Settings) -> None:
    """Make products and prices at Stripe for the tiers that are sold, and print them."""
    async with open_runtime(settings, serving=False) as runtime:
        made = await renewals.sync(topups.enabled(runtime.payments.processor if runtime.payments else None))
    for slug, price_id in made:
        click.echo(f"{slug}: {price_id}")
    click.echo(f"{len(made)} tiers are on sale at Stripe")


async def list_entries(settings: Settings, most: int, *, unexplained: bool) -> None:
    """Read Stripe's balance transactions and print the newest, each with what accounts for it."""
    async with open_runtime(settings, serving=False) as runtime:
        cashier = topups.enabled(runtime.payments.processor if runtime.payments else None)
        await entries.read(cashier, at=runtime.clock())
        found = await entries.listed(most, unexplained=unexplained)
    for entry in found:
        account = f"transfer {entry.transfer}" if entry.transfer else entry.explanation or "NOTHING"
        by = f" ({entry.explained_by})" if entry.explained_by else ""
        amount = f"{usd(entry.amount)} {entry.currency.upper()}, fee {usd(entry.fee)}"
        click.echo(f"{entry.created_at:%Y-%m-%d %H:%M} {entry.id} {entry.type} {entry.source or '-'} {amount}: {account}{by}")
    click.echo(f"{len(found)} entries")


async def explain_entry(settings: Settings, entry_id: str, reason: str, actor: str) -> str:
    """Account for a balance transaction that is no customer's, in the operator's words."""
    async with open_runtime(settings, serving=False) as runtime:
        await entries.explain(Actor(ActorKind.OPERATOR, None, actor), entry_id, reason, at=runtime.clock())
    return f"{entry_id} is explained: {reason}"
