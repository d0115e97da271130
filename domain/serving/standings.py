"""Who makes a call, for markup alone: learnt before admission, and only where rules look at it; whether a key is good, only admission says."""

import time
from collections.abc import Callable, Collection
from datetime import datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec

from domain.access.client_tokens import Claims
from domain.errors import Unavailable
from domain.money.catalogue import Book, PriceVersion
from domain.money.markup import Rules, RuleView, Standing
from models import database
from models.database import CONTENDED, UNREACHABLE
from models.ids import instant

MOST_KEPT = 20_000
TIERS_SECONDS = 1.0
"""How old the tiers of a workspace may be: as old as the rules themselves."""
NOBODY = Standing(UUID(int=0))


def rule_of(book: Book, price: PriceVersion, workspace_id: UUID, standing: Standing | None, call_id: UUID) -> RuleView | None:
    """Return the rule of markup that makes a call's charge, by who called when it was let in; None for list price."""
    return None if book.markup.empty else book.markup.in_force(price.model, standing or Standing(workspace_id), instant(call_id))


def markup_kept(book: Book, price: PriceVersion, workspace_id: UUID, standing: Standing | None, call_id: UUID) -> dict[str, Any]:
    """Return what a sign of life keeps for whoever may have to end the call: who called, and the fraction that makes the charge."""
    rule = rule_of(book, price, workspace_id, standing, call_id)
    told = {"standing": None if standing is None else msgspec.to_builtins(standing), "markup": rule and [rule.numerator, rule.denominator]}
    return {name: value for name, value in told.items() if value is not None}


class Standings:
    """What this process has learnt of credentials. Whose a key or a client token is never changes; on which tiers a workspace is, does."""

    def __init__(self, rules: Rules, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._owners: dict[str | UUID, tuple[UUID, UUID | None]] = {}
        self._tiers: dict[UUID, tuple[float, frozenset[str]]] = {}

    async def of(self, fingerprint: str, token: Claims | None, models: Collection[str], at: datetime) -> tuple[Standing | None, Fraction]:
        """Return who calls, None where no rule asks or nobody is known, and the most that the call's list value may be multiplied with.

        Raises Unavailable when the database is away.
        """
        who, tiers = self._rules.asks(models, at)
        if not who:
            return None, self._rules.factor(models, NOBODY, at)
        try:
            owner = self._owners.get(fingerprint if token is None else token.id) or await self._learn(fingerprint, token)
            if owner is None:
                return None, self._rules.factor(models, NOBODY, at)
            standing = Standing(owner[0], await self._tiers_of(owner[0]) if tiers else frozenset(), owner[1])
        except (*UNREACHABLE, *CONTENDED):
            raise Unavailable from None
        return standing, self._rules.factor(models, standing, at)

    async def _learn(self, fingerprint: str, token: Claims | None) -> tuple[UUID, UUID | None] | None:
        if token is None:
            row = await database.fetch_row("SELECT workspace_id, NULL::uuid AS app_id FROM api_key_secret WHERE hash = $1", fingerprint)
        else:
            row = await database.fetch_row("SELECT workspace_id, app_id FROM client_token WHERE workspace_id = $1 AND id = $2", token.workspace_id, token.id)
        if row is None:
            return None
        if len(self._owners) >= MOST_KEPT:
            self._owners.clear()
        owner = self._owners[fingerprint if token is None else token.id] = (row["workspace_id"], row["app_id"])
        return owner

    async def _tiers_of(self, workspace_id: UUID) -> frozenset[str]:
        read_at, tiers = self._tiers.get(workspace_id, (0.0, frozenset()))
        now = self._clock()
        if workspace_id not in self._tiers or now - read_at > TIERS_SECONDS:
            rows = await database.fetch("SELECT DISTINCT s.tier FROM subscription s WHERE s.workspace_id = $1 AND entitled_1(s, clock_timestamp())", workspace_id)
            tiers = frozenset(row["tier"] for row in rows)
            if len(self._tiers) >= MOST_KEPT:
                self._tiers.clear()
            self._tiers[workspace_id] = (now, tiers)
        return tiers
