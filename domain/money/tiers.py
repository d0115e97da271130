"""Tiers: what a subscription costs and allows, read from a file and kept in the database, where admission reads them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec

from domain import periods
from domain.errors import InvalidInput
from models import database
from models.enums import BillingCycle, Resource

SPENT = (Resource.API_CALLS, Resource.TOKENS, Resource.CREDITS, Resource.CONVERSATIONS)
"""Resources that calls use up, window by window; the others are held, and are limited `concurrent` only."""
LARGEST_LIMIT = 2**53 // 10_000
LARGEST_PRICE_CENTS = 100_000_000
LONGEST_TRIAL_DAYS = 730
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PRESET = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Limit:
    """The most of a resource in a window; `most` is None for no limit."""

    resource: Resource
    window: str
    most: int | None


@dataclass(frozen=True, slots=True)
class Tier:
    """What is sold; `presets` None opens every tool's routes. One that left the file is `retired`: it can be kept, and not be had any more."""

    slug: str
    name: str
    product_name: str
    price_cents: int
    billing_cycle: BillingCycle
    trial_days: int
    presets: tuple[str, ...] | None
    limits: tuple[Limit, ...]
    retired: bool = False

    def limit(self, resource: Resource, window: str) -> Limit | None:
        """Return the limit of a resource in a window; None when the tier names none."""
        return next((limit for limit in self.limits if limit.resource is resource and limit.window == window), None)


class _Limit(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    resource: Resource
    window: str
    limit: int | Literal["unlimited"]


class _Tier(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    slug: str
    name: str
    price_cents: int
    limits: list[_Limit]
    product_name: str = "Tallygate"
    billing_cycle: BillingCycle = BillingCycle.MONTHLY
    trial_days: int = 0
    presets: list[str] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tier: list[_Tier] = []


def tiers_of(document: Mapping[str, Any]) -> tuple[Tier, ...]:
    """Return the tiers of a parsed file, in its order; raises InvalidInput that names the entry at fault, an unknown key among them."""
    try:
        entries = msgspec.convert(document, _File).tier
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The tiers file is malformed: {error}.", path=("tier",)) from None
    slugs: set[str] = set()
    for index, entry in enumerate(entries):
        path = ("tier", entry.slug or str(index))
        _refuse(not _SLUG.fullmatch(entry.slug) or len(entry.slug) > 64, "a slug has lowercase letters, digits and single hyphens inside, at most 64", (*path, "slug"))
        _refuse(entry.slug in slugs, "the slug is there twice", (*path, "slug"))
        slugs.add(entry.slug)
        for field in ("name", "product_name"):
            text = getattr(entry, field)
            _refuse(not 1 <= len(text) <= 200 or not text.isprintable(), "a name has 1 to 200 printable characters", (*path, field))
        _refuse(not 0 <= entry.price_cents <= LARGEST_PRICE_CENTS, "a price is 0 to a million dollars, in cents", (*path, "price_cents"))
        _refuse(not 0 <= entry.trial_days <= LONGEST_TRIAL_DAYS, f"a trial has 0 to {LONGEST_TRIAL_DAYS} days", (*path, "trial_days"))
        _refuse(any(not _PRESET.fullmatch(preset) for preset in entry.presets or ()), "a preset is named as its route is, such as claudecode", (*path, "presets"))
        _check_limits(entry, path)
    return tuple(
        Tier(
            slug=entry.slug,
            name=entry.name,
            product_name=entry.product_name,
            price_cents=entry.price_cents,
            billing_cycle=entry.billing_cycle,
            trial_days=entry.trial_days,
            presets=None if entry.presets is None else tuple(entry.presets),
            limits=tuple(Limit(limit.resource, limit.window, None if limit.limit == "unlimited" else limit.limit) for limit in entry.limits),
        )
        for entry in entries
    )


def _check_limits(entry: _Tier, path: tuple[str, ...]) -> None:
    seen: set[tuple[Resource, str]] = set()
    for index, limit in enumerate(entry.limits):
        here = (*path, "limits", str(index))
        try:
            periods.check_window(limit.window, path=here)
        except InvalidInput as refusal:
            raise InvalidInput(f"The tiers file is malformed at {'.'.join(here)}: {refusal.message}", path=here) from None
        _refuse(
            limit.resource not in SPENT and limit.window != "concurrent",
            f"{limit.resource.value} are held, not spent: their window is concurrent",
            (*here, "window"),
        )
        _refuse(
            limit.resource in SPENT and limit.resource is not Resource.API_CALLS and limit.window == "concurrent",
            "of what is spent, only api_calls can be limited at any one time",
            (*here, "window"),
        )
        _refuse((limit.resource, limit.window) in seen, "the same window of the same resource is there twice", here)
        seen.add((limit.resource, limit.window))
        _refuse(limit.limit != "unlimited" and not 0 <= limit.limit <= LARGEST_LIMIT, f'a limit is 0 to {LARGEST_LIMIT}, or "unlimited"', (*here, "limit"))
    bounded = any(limit.resource in SPENT and limit.window != "concurrent" for limit in entry.limits)
    _refuse(not bounded, "a tier says how many api_calls, tokens or credits it allows, if only that they are unlimited", (*path, "limits"))


def _refuse(wrong: bool, why: str, path: tuple[str, ...]) -> None:
    if wrong:
        raise InvalidInput(f"The tiers file is malformed at {'.'.join(path)}: {why}.", path=path)


async def keep(tiers: Sequence[Tier], *, at: datetime) -> None:
    """Make the database's tiers those of the file; one that is not in it any more is retired, and keeps its limits for those who have it."""
    rows = [
        {
            "slug": tier.slug,
            "position": position,
            "name": tier.name,
            "product_name": tier.product_name,
            "price_cents": tier.price_cents,
            "billing_cycle": tier.billing_cycle,
            "trial_days": tier.trial_days,
            "presets": tier.presets,
            "limits": [{"resource": limit.resource, "window": limit.window, "most": limit.most} for limit in tier.limits],
        }
        for position, tier in enumerate(tiers)
    ]
    await database.fetch(
        """
        WITH wanted AS (
          SELECT * FROM jsonb_to_recordset($1::jsonb) AS w (slug text, position int, name text, product_name text, price_cents bigint, billing_cycle text,
                                                            trial_days int, presets text[], limits jsonb)
        ), entered AS (
          INSERT INTO tier AS t (slug, position, name, product_name, price_cents, billing_cycle, trial_days, presets, limits, updated_at)
          SELECT w.slug, w.position, w.name, w.product_name, w.price_cents, w.billing_cycle, w.trial_days, w.presets, w.limits, $2 FROM wanted w ORDER BY w.slug
              ON CONFLICT (slug) DO UPDATE
             SET position = excluded.position, name = excluded.name, product_name = excluded.product_name, price_cents = excluded.price_cents,
                 billing_cycle = excluded.billing_cycle, trial_days = excluded.trial_days, presets = excluded.presets, limits = excluded.limits,
                 updated_at = excluded.updated_at, retired_at = NULL
           WHERE (t.position, t.name, t.product_name, t.price_cents, t.billing_cycle, t.trial_days, t.presets, t.limits, t.retired_at)
              IS DISTINCT FROM (excluded.position, excluded.name, excluded.product_name, excluded.price_cents, excluded.billing_cycle, excluded.trial_days,
                                excluded.presets, excluded.limits, NULL::timestamptz)
        )
        UPDATE tier SET retired_at = $2, updated_at = $2 WHERE retired_at IS NULL AND slug NOT IN (SELECT slug FROM wanted)
        """,
        msgspec.json.encode(rows).decode(),
        at,
    )


_COLUMNS = "slug, name, product_name, price_cents, billing_cycle, trial_days, presets, limits, retired_at IS NOT NULL AS retired"


def _tier(row: asyncpg.Record) -> Tier:
    return Tier(
        slug=row["slug"],
        name=row["name"],
        product_name=row["product_name"],
        price_cents=row["price_cents"],
        billing_cycle=BillingCycle(row["billing_cycle"]),
        trial_days=row["trial_days"],
        presets=None if row["presets"] is None else tuple(row["presets"]),
        limits=tuple(Limit(Resource(limit["resource"]), limit["window"], limit["most"]) for limit in msgspec.json.decode(row["limits"])),
        retired=row["retired"],
    )


async def listed() -> list[Tier]:
    """Return the tiers on sale, cheapest first."""
    return [_tier(row) for row in await database.fetch(f"SELECT {_COLUMNS} FROM tier WHERE retired_at IS NULL ORDER BY price_cents, position")]


async def find_many(slugs: Sequence[str]) -> dict[str, Tier]:
    """Return those tiers that have these slugs, retired ones among them."""
    return {row["slug"]: _tier(row) for row in await database.fetch(f"SELECT {_COLUMNS} FROM tier WHERE slug = ANY ($1)", list(slugs))}
